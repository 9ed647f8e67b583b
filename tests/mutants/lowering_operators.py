"""Operators on the lowering: terms to bands, the algebra of bands, tile programs and their transposes."""

from __future__ import annotations

from mutant import Operator


def _of(folder: str, *operators: tuple[str, str, str, str], part: str = "lowering") -> tuple[Operator, ...]:
    return tuple(
        Operator(name, part, f"sparsec/{folder}/{file}.py", before, after) for name, file, before, after in operators
    )


TERMS = _of(
    "ir/bands",
    ("window one longer", "lower", "query((1 - n) * unit, unit)", "query(-n * unit, unit)"),
    ("window one shorter", "lower", "query((1 - n) * unit, unit)", "query((2 - n) * unit, unit)"),
    ("window one less ahead", "lower", "(ahead + 1) * unit", "ahead * unit"),
    ("causal without the diagonal", "lower", "Band(upper=(query(1),))", "Band(upper=(query(0),))"),
    ("causal one too far", "lower", "Band(upper=(query(1),))", "Band(upper=(query(2),))"),
    (
        "sink one longer",
        "lower",
        "(Band(upper=(constant(n * (block if blocks else 1)),)),)",
        "(Band(upper=(constant(n * (block if blocks else 1) + 1),)),)",
    ),
    ("stride phase", "lower", "period, phase, 1, moving=False", "period, (phase + 1) % period, 1, moving=False"),
    ("dilated phase reversed", "lower", "-phase % period, 1, moving=True", "phase % period, 1, moving=True"),
    ("chunk without those before", "lower", "_chunks(n, -back, ahead + 1)", "_chunks(n, 0, ahead + 1)"),
    ("chunk without those ahead", "lower", "_chunks(n, -back, ahead + 1)", "_chunks(n, -back, 1)"),
    ("grid rows that wrap round", "lower", "_chunks(width, row, row + 1)", "_chunks(width, -rows, rows + 1)"),
    ("grid without a row ahead", "lower", "range(-rows, rows + 1)", "range(-rows, rows)"),
    ("grid one column narrower", "lower", "row * width + columns + 1", "row * width + columns"),
    ("rows without an end", "lower", "first, last = _edge(start, unit), _edge(stop, unit)",
     "first, last = _edge(start, unit), ()"),
    ("edge from the end in tokens", "lower", "end(edge.at * unit, unit)", "end(edge.at * unit)"),
    ("global without its rows", "lower", "(Band(upper=(bound,)), Band(last_row=(bound,)))", "(Band(upper=(bound,)),)"),
    ("stride's only key misplaced", "lower", "constant((phase + 1) * unit)", "constant(phase * unit + 1)"),
)  # fmt: skip

ALGEBRA = _of(
    "ir/bands",
    ("complement's residues unmoved", "lower", "phase=(c.phase + c.width) % c.period", "phase=c.phase"),
    ("complement keeps row bounds", "lower", "Band(last_row=(bound,)) for bound in band.first_row",
     "Band(first_row=(bound,)) for bound in band.first_row"),
    ("complement keeps a lower bound", "lower", "Band(upper=(bound,)) for bound in band.lower",
     "Band(lower=(bound,)) for bound in band.lower"),
    ("complement keeps list tests", "lower", "Band(lists=(replace(test, negated=not test.negated)",
     "Band(lists=(replace(test, negated=test.negated)"),
    ("complement keeps input tests", "lower", "Band(inputs=(replace(test, negated=not test.negated)",
     "Band(inputs=(replace(test, negated=test.negated)"),
    ("intersection drops residues", "lower", "a.congruences + b.congruences", "a.congruences"),
    ("residues join over a gap", "normalise", "if gap <= left.width:", "if gap <= left.width + 1:"),
    ("joined residues counted twice", "normalise", "max(left.width, gap + right.width)", "left.width + right.width"),
    ("remainder theorem reversed", "normalise", "_phase(b) - _phase(a)\n    if", "_phase(a) - _phase(b)\n    if"),
    ("overlap's second run dropped", "normalise", ", (0, min(start + b.width - b.period, a.width))):", ",):"),
    ("residue containment by phase alone", "normalise", "% b.period + a.width <= b.width", "% b.period < b.width"),
    ("bands join over a gap", "normalise", "upper_before(left, right) and _touches(left, right)",
     "upper_before(left, right)"),
    ("containment without last rows", "normalise",
     "        and all(any(never_above(n, o) for n in inner.last_row) for o in outer.last_row)\n", ""),
    ("the weakest upper bound kept", "normalise",
     "if not beyond_end(b)], lambda x, y: never_above(y, x))", "if not beyond_end(b)], never_above)"),
    ("head constants known by the first head", "classes", "min(column), max(column)", "column[0], column[0]"),
    ("transposed bounds exchanged", "transpose",
     "in band.upper if b.base is Base.ROW),\n        upper=band.last_row + tuple(_exchanged(b) for b in band.lower",
     "in band.lower if b.base is Base.ROW),\n        upper=band.last_row + tuple(_exchanged(b) for b in band.upper"),
    ("transposed bound one unit low", "transpose", "(whole + 1) * bound.unit", "whole * bound.unit"),
    ("reversed residue of width one", "transpose", "(1 - c.width - c.phase)", "-c.phase"),
)  # fmt: skip

TILES = _of(
    "ir/tiles",
    ("last tile dropped", "dense", "stop = scalars.ceil_tile(tokens.stop)", "stop = scalars.floor_tile(tokens.stop)"),
    ("tiles of two bands doubled", "dense", 'scalars("start", scalars.maximum(tiles.start, reached))',
     'scalars("start", tiles.start)'),
    ("full from a partial tile", "dense", "scalars.ceil_tile(run_start)", "scalars.floor_tile(run_start)"),
    ("bands of few columns that hold a tile together", "dense", "sum(width for", "max(width for"),
    ("bands that touch taken for bands apart", "dense", "is not None and most < 0", "is not None and most < 1"),
    ("unproved order of gated bands", "dense", "never_above(low, other) and (rows or low.base is not Base.ROW)",
     "never_above(low, other)"),
    ("unproved order from a negative row", "dense", "from_zero and _starts_at_zero(low)", "_starts_at_zero(low)"),
    ("surely live by the wrong rows", "band_rows",
     "lower_bound(scalars, band, frame.last), upper_bound(scalars, band, frame.first)",
     "lower_bound(scalars, band, frame.first), upper_bound(scalars, band, frame.last)"),
    ("maybe live up to the first row's bound", "band_rows", "upper_bound(scalars, band, last))",
     "upper_bound(scalars, band, first))"),
    ("residue of one block", "band_rows", "Int(c.period)), Int(c.width))", "Int(c.period)), Int(1))"),
    ("strided tiles of two bands doubled", "strided",
     "x.both(when, x.negate(strided_visits(scalars, other_band, tile)))", "when"),
    ("residue not counted from the origin", "strided", "offset if origin == ZERO else", "offset if origin else"),
    ("run that begins before the tile unseen", "strided",
     "x.add(x.sub(stop, start), x.sub(residue.width, ONE)))", "x.sub(stop, start))"),
    ("aligned runs one tile wide", "strided",
     "nonneg=True), Int(width)))\n    for each", "nonneg=True), ONE))\n    for each"),
    ("aligned residue's first run a tile late", "strided", "x.mod(scalars.floor_tile(residue.offset), Int(period)",
     "x.mod(x.add(scalars.floor_tile(residue.offset), ONE), Int(period)"),
    ("tiles before the first whole run", "strided", "x.minimum(x.sub(Int(period), first), Int(width))",
     "x.sub(Int(period), first)"),
    ("drawn tiles doubled by dense ones", "listed", "    for interval in visited:", "    for interval in visited[1:]:"),
    ("tiles drawn twice doubled", "listed", "    when = x.both(when, x.negate(seen))\n", ""),
)  # fmt: skip

LIMITS = _of(
    "ir/tiles",
    ("the greatest of several lower limits", "limits", "x.minimum if kind is _Kind.LOWER else x.maximum, limits)",
     "x.maximum if kind is _Kind.LOWER else x.minimum, limits)"),
    ("rows without a limit see every column", "limits", "else ALWAYS, NEVER)", "else ALWAYS, ALWAYS)"),
    ("a lower limit one column early", "limits", "x.add(x.sub(left, Int(beyond)), ONE)", "x.sub(left, Int(beyond))"),
    ("a tile that begins at its limit left out", "limits", "x.at_most(limit, FIRST)", "x.less(limit, FIRST)"),
    ("blocks of a tile and a half told by its first column", "limits", "unit % width == 0", "2 * unit % width == 0"),
    ("limits within a tile asked of its rows", "limits", "return number % width == 0",
     "return 2 * number % width == 0"),
    ("unions negated as unions", "limits", " != negated else x.either", " else x.either"),
    ("what one way asks asked of all", "limits", "if all(atom in way for way in ways)",
     "if any(atom in way for way in ways)"),
    part="limits of tiles",
)  # fmt: skip

OPERATORS = (*TERMS, *ALGEBRA, *TILES, *LIMITS)

"""Checked term -> bands: each leaf by its formula, each operator by the algebra of bands.

Invariant: the bands' union equals the term's set for every i, j and nk. Query positions may be negative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.band import ALL, Asks, Band, Congruence, Draws, InputTest, ListTest
from sparsec.ir.bands.bounds import LIMIT, Bound, constant, end, query
from sparsec.ir.bands.normalise import BAND_LIMIT, Effort, TooManyBands, normalise
from sparsec.sema import model

Inputs = tuple[model.InputDecl, ...]


def lower(term: model.Term, block: int, effort: Effort, inputs: Inputs = ()) -> tuple[Band, ...]:
    """The bands of `term` under block size `block`; `inputs` are those that it may name. Raises TooManyBands."""
    return _Lowering(block, inputs, effort).bands(term)


@dataclass(frozen=True, slots=True)
class _Lowering:
    block: int
    inputs: Inputs
    effort: Effort

    def bands(self, term: model.Term, origin: str = "") -> tuple[Band, ...]:
        effort = self.effort
        match term:
            case model.At(inner, at):
                return self.bands(inner, str(at))
            case model.Union(terms):
                return normalise((band for t in terms for band in self.bands(t, origin)), effort)
            case model.Intersection(terms):
                bands: tuple[Band, ...] = (ALL,)
                for t in terms:
                    bands = intersection(bands, self.bands(t, origin), effort)
                return bands
            case model.Difference(left, right):
                return intersection(self.bands(left, origin), complement(self.bands(right, origin), effort), effort)
            case model.Complement(model.Complement(inner)):
                return self.bands(inner, origin)
            case model.Complement(inner):
                return complement(self.bands(inner, origin), effort)
            case _:
                leaf = _leaf(term, self.block, self.inputs)
                return normalise((replace(band, origin=origin) for band in leaf), effort)


def intersection(left: tuple[Band, ...], right: tuple[Band, ...], effort: Effort) -> tuple[Band, ...]:
    return normalise((_meet(a, b) for a in left for b in right), effort)


def complement(bands: tuple[Band, ...], effort: Effort) -> tuple[Band, ...]:
    result: tuple[Band, ...] = (ALL,)
    for band in bands:
        result = intersection(result, normalise(_outside(band), effort), effort)
    return result


def _meet(a: Band, b: Band) -> Band:
    origin = " & ".join(dict.fromkeys(text for text in (a.origin, b.origin) if text))
    return Band(
        a.lower + b.lower,
        a.upper + b.upper,
        a.first_row + b.first_row,
        a.last_row + b.last_row,
        a.congruences + b.congruences,
        a.lists + b.lists,
        a.inputs + b.inputs,
        origin=origin,
    )


def _outside(band: Band) -> tuple[Band, ...]:
    """The pairs that fail at least one of the band's tests."""
    origin = f"~({band.origin})" if band.origin else ""
    parts = [Band(upper=(bound,)) for bound in band.lower]
    parts += [Band(lower=(bound,)) for bound in band.upper]
    parts += [Band(last_row=(bound,)) for bound in band.first_row]
    parts += [Band(first_row=(bound,)) for bound in band.last_row]
    parts += [Band(congruences=(_other_residues(c),)) for c in band.congruences]
    parts += [Band(lists=(replace(test, negated=not test.negated),)) for test in band.lists]
    parts += [Band(inputs=(replace(test, negated=not test.negated),)) for test in band.inputs]
    return tuple(replace(part, origin=origin) for part in parts)


def _other_residues(c: Congruence) -> Congruence:
    assert isinstance(c.phase, int)
    return replace(c, phase=(c.phase + c.width) % c.period, width=c.period - c.width)


def _leaf(term: model.Leaf, block: int, inputs: Inputs) -> tuple[Band, ...]:
    match term:
        case model.Full():
            return (ALL,)
        case model.Nothing():
            return ()
        case model.Causal():
            return (Band(upper=(query(1),)),)
        case model.Window(n, ahead, blocks):
            unit = block if blocks else 1
            upper = (query((ahead + 1) * unit, unit),)
            if isinstance(n, model.RunTimeLength):
                return (Band(upper=upper, inputs=(InputTest(n.ordinal, Asks.NEAR),)),)
            return (Band(lower=(query((1 - n) * unit, unit),), upper=upper),)
        case model.Sink(n, blocks):
            if isinstance(n, model.RunTimeLength):
                return (Band(inputs=(InputTest(n.ordinal, Asks.KEY_BELOW),)),)
            return (Band(upper=(constant(n * (block if blocks else 1)),)),)
        case model.Stride(period, phase, blocks):
            return _residue(period, phase, block if blocks else 1)
        case model.Dilated(period, phase, blocks):
            return _moving_residue(period, phase, block if blocks else 1)
        case model.Chunk(n, back, ahead):
            return (_chunks(n, -back, ahead + 1),)
        case model.Near2d(width, rows, columns):
            return _near2d(width, rows, columns)
        case model.Columns(start, stop, blocks):
            unit = block if blocks else 1
            return (Band(_edge(start, unit), _edge(stop, unit), inputs=_ends(start, stop, Asks.KEY_BELOW)),)
        case model.Rows(start, stop, blocks):
            unit = block if blocks else 1
            first, last = _edge(start, unit), _edge(stop, unit)
            return (Band(first_row=first, last_row=last, inputs=_ends(start, stop, Asks.QUERY_BELOW)),)
        case model.Global(n, blocks):
            bound = constant(n * (block if blocks else 1))
            return (Band(upper=(bound,)), Band(last_row=(bound,)))
        case model.Random(k, seed, lane):
            return (Band(lists=(ListTest(Draws(k, seed, lane, block), negated=False),)),)
        case model.Input(ordinal):
            return (Band(inputs=(test_of_input(inputs[ordinal], ordinal, block),)),)
        case _:
            assert_never(term)


def test_of_input(input_: model.InputDecl, ordinal: int, block: int) -> InputTest:
    """What the term of an input asks of a pair."""
    unit = 1 if input_.unit is model.InputUnit.TOKENS else block
    match input_.kind:
        case model.InputKind.TOKENS:
            return InputTest(ordinal, Asks.MARKED)
        case model.InputKind.COLUMNS:
            return InputTest(ordinal, Asks.COLUMN, width=unit)
        case model.InputKind.SLASHES if input_.unit is model.InputUnit.TILES:
            return InputTest(ordinal, Asks.SLASH_TILE, unit, unit)
        case model.InputKind.SLASHES:
            return InputTest(ordinal, Asks.SLASH, unit, unit)
        case model.InputKind.ROWS:
            return InputTest(ordinal, Asks.ROW, width=unit)
        case model.InputKind.BLOCKS:
            return InputTest(ordinal, Asks.CELL, *(input_.tile or (block, block)))
        case model.InputKind.LABELS:
            return InputTest(ordinal, Asks.LABEL)
        case model.InputKind.TREE:
            return InputTest(ordinal, Asks.ANCESTOR)
        case model.InputKind.LENGTH | model.InputKind.WEIGHTS:
            raise InternalError(f"an input of kind {input_.kind.value} is no term")
        case _:
            assert_never(input_.kind)


def _residue(period: int, phase: int, unit: int) -> tuple[Band, ...]:
    if period == 1:
        return (ALL,)
    if period * unit >= LIMIT:  # no key reaches the second one
        return (Band(lower=(constant(phase * unit),), upper=(constant((phase + 1) * unit),)),)
    return (Band(congruences=(Congruence(unit, period, phase, 1, moving=False),)),)


def _moving_residue(period: int, phase: int, unit: int) -> tuple[Band, ...]:
    if period == 1:
        return (ALL,)
    if period * unit >= LIMIT:  # the distance is phase itself or, ahead of the query, phase - period
        return tuple(
            Band(lower=(query(-d * unit, unit),), upper=(query((1 - d) * unit, unit),)) for d in (phase, phase - period)
        )
    return (Band(congruences=(Congruence(unit, period, -phase % period, 1, moving=True),)),)


def _chunks(n: int, first: int, stop: int) -> Band:
    """The keys of the chunks `first` to before `stop`, counted from the query's own."""
    return Band(lower=(query(first * n, n),), upper=(query(stop * n, n),))


def _near2d(width: int, rows: int, columns: int) -> tuple[Band, ...]:
    """A band for each grid row: the window of 2 * columns + 1 keys around the query's column, cut to that row."""
    near = _chunks(width, -rows, rows + 1)
    if columns >= width - 1:
        return (near,)
    rows = min(rows, LIMIT // width + 1)  # no two positions are further apart
    if 2 * rows + 1 > BAND_LIMIT:
        if columns == 0:
            return tuple(_meet(near, band) for band in _moving_residue(width, 0, 1))
        raise TooManyBands(f"expected at most {BAND_LIMIT} bands, got {2 * rows + 1}")
    return tuple(
        _meet(
            _chunks(width, row, row + 1),
            Band(lower=(query(row * width - columns),), upper=(query(row * width + columns + 1),)),
        )
        for row in range(-rows, rows + 1)
    )


def _edge(edge: model.Edge | model.RunTimeLength | None, unit: int) -> tuple[Bound, ...]:
    if not isinstance(edge, model.Edge):
        return ()
    return (end(edge.at * unit, unit) if edge.from_end else constant(edge.at * unit),)


def _ends(
    start: model.Edge | model.RunTimeLength | None, stop: model.Edge | model.RunTimeLength | None, asks: Asks
) -> tuple[InputTest, ...]:
    """The tests of a range's ends that are given at run time."""
    return tuple(
        InputTest(edge.ordinal, asks, negated=first)
        for edge, first in ((start, True), (stop, False))
        if isinstance(edge, model.RunTimeLength)
    )

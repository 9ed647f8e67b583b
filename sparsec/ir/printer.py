"""The IR -> text that a person reads and a golden file keeps: bands by class, and tile programs line by line.

`/` and `rem` are `//` and `%` of a left side known to be at least 0. Invariant: equal IR prints equal text, and every
number and name of the IR appears in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from sparsec.ir.bands.band import Band, Congruence, ListTest
from sparsec.ir.bands.bounds import Base, Bound, Number, PerHead
from sparsec.ir.bands.classes import BandClass, BlockMask
from sparsec.ir.expr import nodes as x
from sparsec.ir.tiles.program import Piece, TileProgram

_ATOM, _PRODUCT, _SUM, _COMPARE, _NOT, _AND, _OR = range(7)


def print_mask(mask: BlockMask) -> str:
    """The bands of every head class."""
    lines = [f"block {mask.block}"]
    for band_class in mask.classes:
        lines += ["", *_class(band_class)]
    return "\n".join(lines) + "\n"


def print_program(program: TileProgram) -> str:
    """A tile program: its lets, the pieces of its two loops, its predicate and its lists."""
    lines = [f"tiles {program.query_tile} x {program.key_tile}"]
    lines += [f"let {let.name} = {print_expr(let.value)}" for let in program.lets]
    for name, pieces in (("full", program.full), ("masked", program.masked)):
        for piece in pieces:
            lines += _piece(name, piece)
    lines.append(f"live(i, j) = {print_test(program.live)}")
    for ordinal, spec in enumerate(program.lists):
        lanes = ", ".join(f"(seed {seed}, lane {lane})" for seed, lane in spec.lanes)
        lines.append(f"list {ordinal}: {spec.width} draws, block {spec.block}, row {spec.lane_row} of [{lanes}]")
    return "\n".join(lines) + "\n"


def head_ranges(heads: tuple[int, ...]) -> str:
    """`0..4, 6`: half-open runs of ascending heads."""
    runs: list[list[int]] = []
    for head in heads:
        if runs and runs[-1][1] == head:
            runs[-1][1] = head + 1
        else:
            runs.append([head, head + 1])
    return ", ".join(f"{start}" if stop == start + 1 else f"{start}..{stop}" for start, stop in runs)


def print_expr(expr: x.Expr) -> str:
    """The expression with the parentheses that it needs."""
    return _expr(expr)[0]


def print_test(test: x.Bool) -> str:
    """The condition with the parentheses that it needs."""
    return _test(test)[0]


def _class(band_class: BandClass) -> Iterator[str]:
    yield f"heads {head_ranges(band_class.heads)}"
    for name, values in band_class.constants:
        yield f"    {name} = [{', '.join(map(str, values))}]"
    for band in band_class.bands:
        yield f"    band{f'  # {band.origin}' if band.origin else ''}"
        for line in _band(band):
            yield f"        {line}"


def _band(band: Band) -> Iterator[str]:
    for what, bounds in (
        ("j >=", band.lower),
        ("j <", band.upper),
        ("i >=", band.first_row),
        ("i <", band.last_row),
    ):
        for bound in bounds:
            yield f"{what} {_bound(bound)}"
    for congruence in band.congruences:
        yield _congruence(congruence)
    for residue in band.row_residues:
        yield f"row: {_congruence(residue)}"
    for test in band.lists:
        yield _list(test)


def _bound(bound: Bound) -> str:
    unit = bound.unit
    match bound.base:
        case Base.START:
            return _number(bound.offset)
        case Base.ROW:
            row = "i" if bound.shift == 0 else f"(i + {_number(bound.shift)})"
            base = row if unit == 1 else f"{unit} * ({row} // {unit})"
        case Base.END:
            base = "nk" if unit == 1 else f"{unit} * ceil(nk / {unit})"
        case _:
            assert_never(bound.base)
    if bound.offset == 0:
        return base
    if isinstance(bound.offset, int) and bound.offset < 0:
        return f"{base} - {-bound.offset}"
    return f"{base} + {_number(bound.offset)}"


def _congruence(c: Congruence) -> str:
    j, i = ("j", "i") if c.unit == 1 else (f"j // {c.unit}", f"i // {c.unit}")
    position = f"{j} - {i}" if c.moving else j
    return f"({position} - {_number(c.phase)}) % {c.period} < {c.width}"


def _list(test: ListTest) -> str:
    d = test.draws
    drawn = f"draws(count {d.count}, seed {d.seed}, lane {_number(d.lane)}, block {d.block})"
    return f"tile {'not ' if test.negated else ''}in {drawn}"


def _number(number: Number) -> str:
    match number:
        case PerHead(name, low, high):
            return f"{name}[{low}..{high + 1}]"
        case int():
            return str(number)


def _piece(loop: str, piece: Piece) -> Iterator[str]:
    notes = [word for word, holds in (("contiguous", piece.contiguous), ("listed", piece.listed is not None)) if holds]
    origin = f"  # {piece.origin}" if piece.origin else ""
    yield f"{' '.join([loop, *notes])}{'' if piece.listed is None else f' {piece.listed}'}{origin}"
    yield f"    for n in 0..{_expr(piece.count, _PRODUCT)[0]}"
    yield f"    tile = {print_expr(piece.tile)}"
    if piece.when != x.TRUE:
        yield f"    when {print_test(piece.when)}"


def _expr(expr: x.Expr, loosest: int = _SUM) -> tuple[str, int]:
    """The text and how tightly it binds, in parentheses if that is looser than `loosest`."""
    text, level = _bare(expr)
    return (text, level) if level <= loosest else (f"({text})", _ATOM)


def _bare(expr: x.Expr) -> tuple[str, int]:
    match expr:
        case x.Int(value):
            return str(value), _ATOM if value >= 0 else _PRODUCT
        case x.Var(name):
            return name, _ATOM
        case x.Add(a, b):
            return f"{_expr(a)[0]} + {_expr(b, _PRODUCT)[0]}", _SUM
        case x.Sub(a, b):
            return f"{_expr(a)[0]} - {_expr(b, _PRODUCT)[0]}", _SUM
        case x.Mul(a, b):
            return f"{_expr(a, _PRODUCT)[0]} * {_expr(b, _ATOM)[0]}", _PRODUCT
        case x.FloorDiv(a, b, nonneg):
            return f"{_expr(a, _PRODUCT)[0]} {'/' if nonneg else '//'} {_expr(b, _ATOM)[0]}", _PRODUCT
        case x.Mod(a, b, nonneg):
            return f"{_expr(a, _PRODUCT)[0]} {'rem' if nonneg else '%'} {_expr(b, _ATOM)[0]}", _PRODUCT
        case x.Min(a, b):
            return f"min({print_expr(a)}, {print_expr(b)})", _ATOM
        case x.Max(a, b):
            return f"max({print_expr(a)}, {print_expr(b)})", _ATOM
        case x.Select(c, a, b):
            return f"select({print_test(c)}, {print_expr(a)}, {print_expr(b)})", _ATOM
        case _:
            assert_never(expr)


def _test(test: x.Bool, loosest: int = _OR) -> tuple[str, int]:
    text, level = _bare_test(test)
    return (text, level) if level <= loosest else (f"({text})", _ATOM)


def _bare_test(test: x.Bool) -> tuple[str, int]:
    match test:
        case x.Truth(value):
            return str(value).lower(), _ATOM
        case x.Less(a, b):
            return f"{print_expr(a)} < {print_expr(b)}", _COMPARE
        case x.And(a, b):
            return f"{_test(a, _AND)[0]} and {_test(b, _NOT)[0]}", _AND
        case x.Or(a, b):
            return f"{_test(a, _OR)[0]} or {_test(b, _AND)[0]}", _OR
        case x.Not(a):
            return f"not {_test(a, _ATOM)[0]}", _NOT
        case x.Listed(ordinal):
            return f"listed({ordinal})", _ATOM
        case _:
            assert_never(test)

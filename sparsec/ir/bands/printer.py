"""Bands -> text that a person reads, head class by head class.

Invariant: equal bands print equal text, and every number and name of a band appears in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from sparsec.ir.bands.band import Band, Congruence, InputTest, ListTest
from sparsec.ir.bands.bounds import Base, Bound, Number, PerHead
from sparsec.ir.bands.classes import BandClass, BlockMask
from sparsec.sema.printer import head_ranges


def print_mask(mask: BlockMask, head: int | None = None, *, transposed: bool = False) -> str:
    """The bands of every head class, or of that of `head`; `transposed`: a row is a key j, and a column a query i."""
    lines = [f"block {mask.block}"]
    row, column = ("j", "i") if transposed else ("i", "j")
    for band_class in (each for each in mask.classes if head is None or head in each.heads):
        lines += ["", *_class(band_class, row, column)]
    return "\n".join(lines) + "\n"


def print_band(band: Band) -> str:
    """The conditions of one band on a pair (i, j), on one line."""
    return "; ".join(_band(band, "i", "j")) or "every pair"


def _class(band_class: BandClass, row: str, column: str) -> Iterator[str]:
    yield f"heads {head_ranges(band_class.heads)}"
    for name, values in band_class.constants:
        yield f"    {name} = [{', '.join(map(str, values))}]"
    for band in band_class.bands:
        yield f"    band{f'  # {band.origin}' if band.origin else ''}"
        for line in _band(band, row, column):
            yield f"        {line}"


def _band(band: Band, row: str, column: str) -> Iterator[str]:
    for what, bounds in (
        (f"{column} >=", band.lower),
        (f"{column} <", band.upper),
        (f"{row} >=", band.first_row),
        (f"{row} <", band.last_row),
    ):
        for bound in bounds:
            yield f"{what} {_bound(bound, row)}"
    for congruence in band.congruences:
        yield _congruence(congruence, column, row)
    for residue in band.row_residues:
        yield _congruence(residue, row, column)
    for test in band.lists:
        yield _list(test)
    for asked in band.inputs:
        yield print_input_test(asked)


def _bound(bound: Bound, row: str) -> str:
    unit = bound.unit
    match bound.base:
        case Base.START:
            return _number(bound.offset)
        case Base.ROW:
            shifted = row if bound.shift == 0 else f"({row} + {_number(bound.shift)})"
            base = shifted if unit == 1 else f"{unit} * ({shifted} // {unit})"
        case Base.END:
            base = "nk" if unit == 1 else f"{unit} * ceil(nk / {unit})"
        case _:
            assert_never(bound.base)
    if bound.offset == 0:
        return base
    if isinstance(bound.offset, int) and bound.offset < 0:
        return f"{base} - {-bound.offset}"
    return f"{base} + {_number(bound.offset)}"


def _congruence(c: Congruence, position: str, other: str) -> str:
    at, from_ = (position, other) if c.unit == 1 else (f"{position} // {c.unit}", f"{other} // {c.unit}")
    return f"({at}{f' - {from_}' if c.moving else ''} - {_number(c.phase)}) % {c.period} < {c.width}"


def _list(test: ListTest) -> str:
    d = test.draws
    drawn = f"draws(count {d.count}, seed {d.seed}, lane {_number(d.lane)}, block {d.block})"
    return f"tile {'not ' if test.negated else ''}in {drawn}"


def print_input_test(test: InputTest) -> str:
    size = "" if test.height == test.width == 1 else f" of {test.height} x {test.width}"
    return f"{'not ' if test.negated else ''}{test.asks.value}{size} of input {test.ordinal}"


def _number(number: Number) -> str:
    match number:
        case PerHead(name, low, high):
            return f"{name}[{low}..{high + 1}]"
        case int():
            return str(number)

"""Bounds: quasi-affine functions of a query position or of the key count, and what can be proved of two of them.

A bound's value is `base + offset`, base being 0 (START), unit * ((i + shift) // unit) (ROW) or unit * ceil(nk / unit)
(END). In the bands of a forward pass i is a query's position; in transposed bands (see `transpose`) it is a key's.
Invariant: every bound is non-decreasing in i and in nk; units are positive; offsets stay within +-LIMIT.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sparsec.ir.expr.nodes import ZERO, Expr, Int, Var
from sparsec.ir.expr.simplify import add, ceil_div, floor_div, mul

POSITION_LIMIT = 1 << 29
"""Positions, lengths and the slots of a cache stay below it."""
LIMIT = 2 * POSITION_LIMIT
"""No two positions are as far apart, so a distance clamped to it means the same."""


@dataclass(frozen=True, slots=True)
class PerHead:
    """A number that varies over the heads of a class: head constant `name`, with values in [low, high]."""

    name: str
    low: int
    high: int


Number = int | PerHead


def lowest(number: Number) -> int:
    return number if isinstance(number, int) else number.low


def highest(number: Number) -> int:
    return number if isinstance(number, int) else number.high


def number_expr(number: Number) -> Expr:
    return Int(number) if isinstance(number, int) else Var(number.name)


class Base(Enum):
    START = "0"
    ROW = "i"
    END = "nk"


@dataclass(frozen=True, slots=True)
class Bound:
    base: Base
    unit: int
    offset: Number
    shift: Number = 0


def constant(value: int) -> Bound:
    return Bound(Base.START, 1, max(-LIMIT, min(LIMIT, value)))


def query(offset: int, unit: int = 1) -> Bound:
    """unit * (i // unit) + offset."""
    if unit >= POSITION_LIMIT and offset - unit >= POSITION_LIMIT:  # every key lies below it, for a negative row too
        return constant(LIMIT)
    if unit > LIMIT:  # i // unit is 0 or -1; negative rows lie below every key, as does offset - LIMIT
        unit = LIMIT
    largest = (POSITION_LIMIT - 1) // unit * unit
    if offset <= -largest:  # then it is 0 or less for every row, and no key comes before key 0
        return constant(0)
    return Bound(Base.ROW, unit, min(LIMIT, offset))


def end(offset: int, unit: int = 1) -> Bound:
    """unit * ceil(nk / unit) + offset."""
    return Bound(Base.END, unit, max(-LIMIT, min(LIMIT, offset)))


def most_above(a: Bound, b: Bound) -> int | None:
    """The least number for which a <= b + number is proved for every i and nk >= 0, and for every pair of heads."""
    least, greatest = b.offset, a.offset
    if not (isinstance(least, int) and isinstance(greatest, int)):
        least, greatest = lowest(least), highest(greatest)
    gap = least - greatest
    match a.base, b.base:
        case Base.START, Base.START | Base.END:
            return -gap
        case Base.ROW, Base.ROW if isinstance(a.shift, int) and a.shift == b.shift:
            if a.unit % b.unit == 0:
                return -gap
            # floor to a.unit is at most i; floor to b.unit is at least i - b.unit + 1, or, on a common grid, closer
            return (b.unit - a.unit if b.unit % a.unit == 0 else b.unit - 1) - gap
        case Base.ROW, Base.ROW:
            return b.unit - 1 - gap - lowest(b.shift) + highest(a.shift)
        case Base.END, Base.END:
            if b.unit % a.unit == 0:
                return -gap
            return (a.unit - b.unit if a.unit % b.unit == 0 else a.unit - 1) - gap
    return None


def never_above(a: Bound, b: Bound) -> bool:
    """Whether a <= b is proved for every i and nk >= 0, and for every pair of heads. False means unknown."""
    most = most_above(a, b)
    return most is not None and most <= 0


def bound_expr(bound: Bound, position: Expr, nk: Expr) -> Expr:
    """The bound's value at query `position`."""
    unit, offset = Int(bound.unit), number_expr(bound.offset)
    match bound.base:
        case Base.START:
            base: Expr = ZERO
        case Base.ROW:
            base = mul(floor_div(add(position, number_expr(bound.shift)), unit), unit)
        case Base.END:
            base = mul(ceil_div(nk, unit, nonneg=True), unit)
    return add(base, offset)

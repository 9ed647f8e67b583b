"""Order proofs of bounds: what is proved must hold for every position and key count."""

from __future__ import annotations

from itertools import product

import pytest

from sparsec.ir.bands.bounds import (
    LIMIT,
    POSITION_LIMIT,
    Base,
    Bound,
    PerHead,
    bound_expr,
    constant,
    end,
    most_above,
    never_above,
    query,
)
from sparsec.ir.expr.evaluate import evaluate
from sparsec.ir.expr.nodes import Int

UNITS = (1, 2, 3, 4, 6, 8)
BOUNDS = (
    *(Bound(Base.START, 1, c) for c in (-3, 0, 5)),
    *(Bound(base, unit, c) for base in (Base.ROW, Base.END) for unit in UNITS for c in (-7, 0, 5)),
)


def value(bound: Bound, position: int, nk: int) -> int:
    return evaluate(bound_expr(bound, Int(position), Int(nk)), {})


def test_every_proved_order_holds() -> None:
    proved = 0
    for a, b in product(BOUNDS, BOUNDS):
        if never_above(a, b):
            proved += 1
            for position, nk in product(range(-25, 26, 2), (0, 5, 24)):
                assert value(a, position, nk) <= value(b, position, nk), (a, b, position, nk)
    assert proved > 300


def test_distances_are_proved_and_never_less_than_what_is_seen() -> None:
    tight = 0
    for a, b in product(BOUNDS, BOUNDS):
        if (most := most_above(a, b)) is not None:
            places = product(range(-25, 26), (0, 5, 24))
            seen = max(value(a, position, nk) - value(b, position, nk) for position, nk in places)
            assert seen <= most, (a, b)
            tight += seen == most
    assert tight > 300


def test_orders_of_one_grid_are_decided() -> None:
    for unit in UNITS:
        for base in (Base.ROW, Base.END):
            for c, d in product(range(-5, 6), range(-5, 6)):
                assert never_above(Bound(base, unit, c), Bound(base, unit, d)) == (c <= d)


def test_a_number_that_varies_by_head_is_compared_by_its_extremes() -> None:
    some = PerHead("c0", 3, 9)
    assert never_above(Bound(Base.ROW, 1, some), Bound(Base.ROW, 1, 9))
    assert not never_above(Bound(Base.ROW, 1, some), Bound(Base.ROW, 1, 8))
    assert never_above(Bound(Base.ROW, 1, 3), Bound(Base.ROW, 1, some))
    assert not never_above(Bound(Base.ROW, 1, 4), Bound(Base.ROW, 1, some))


@pytest.mark.parametrize("make", [constant, query, end])
def test_distances_are_clamped(make: object) -> None:
    assert callable(make)
    assert make(1 << 40).offset == LIMIT
    assert make(-(1 << 40)).offset == (0 if make is query else -LIMIT)


@pytest.mark.parametrize("unit", [1, 7, 600_000_000])
def test_what_lies_before_every_key_for_every_query_is_key_0(unit: int) -> None:
    largest = (POSITION_LIMIT - 1) // unit * unit
    assert query(-(1 << 40), unit) == query(-largest, unit) == constant(0)
    if largest:
        assert query(1 - largest, unit) == Bound(Base.ROW, unit, 1 - largest)

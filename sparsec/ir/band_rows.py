"""A band within one query tile: its rows, the tokens it may and must keep, and its test on a pair.

Bounds never decrease from row to row, so a band may be live on [lower(first row), upper(last row)), and is surely live
on [lower(last row), upper(first row)).
"""

from __future__ import annotations

from sparsec.ir import expr as x
from sparsec.ir.bounds import Base, Bound, bound_expr, number_expr
from sparsec.ir.expr import FALSE, ONE, TRUE, ZERO, Bool, Expr, Int, Var
from sparsec.ir.nodes import Band, Draws
from sparsec.ir.scalars import I0, I1, NK, Interval, Scalars


def rows_within(scalars: Scalars, band: Band) -> tuple[Expr, Expr, Bool, Bool]:
    """First and last row of the tile inside the band's row bounds; whether any row is; whether all are."""
    first: Expr = I0
    last: Expr = I1
    every: Bool = TRUE
    for bound in band.first_row:
        value = bound_expr(bound, ZERO, NK)
        first, every = x.maximum(first, value), x.both(every, x.at_most(value, I0))
    for bound in band.last_row:
        value = bound_expr(bound, ZERO, NK)
        last, every = x.minimum(last, x.sub(value, ONE)), x.both(every, x.less(I1, value))
    some = x.at_most(first, last) if band.first_row or band.last_row else TRUE
    return scalars("first", first), scalars("last", last), some, every


def bound_at(scalars: Scalars, bound: Bound, row: Expr) -> Expr:
    """The bound's value at `row`; rows of one tile share the unit that they all lie in."""
    shared = row == I1 and bound.base is Base.QUERY and bound.unit % scalars.query_tile == 0
    return bound_expr(bound, I0 if shared else row, NK)


def lower(scalars: Scalars, band: Band, row: Expr) -> Expr:
    value: Expr = ZERO
    for bound in band.lower:
        value = scalars.maximum(value, bound_at(scalars, bound, row))
    return value


def upper(scalars: Scalars, band: Band, row: Expr) -> Expr:
    value: Expr = NK
    for bound in band.upper:
        value = x.minimum(value, bound_at(scalars, bound, row))
    return scalars.maximum(value, ZERO)


def maybe_live(scalars: Scalars, band: Band) -> tuple[Interval, Bool]:
    """Tokens live for some row; and whether any row is in the band at all."""
    first, last, some, _ = rows_within(scalars, band)
    return Interval(
        scalars("lo", lower(scalars, band, first)), scalars("hi", upper(scalars, band, last)), band.origin
    ), some


def surely_live(scalars: Scalars, band: Band) -> tuple[Interval, Bool]:
    """Tokens live for every row, as far as bounds tell; and whether all rows are in the band."""
    _, _, _, every = rows_within(scalars, band)
    tokens = Interval(scalars("lo", lower(scalars, band, I1)), scalars("hi", upper(scalars, band, I0)), band.origin)
    return tokens, FALSE if band.lists else every


def band_predicate(band: Band, lists: tuple[Draws, ...]) -> Bool:
    """The band's test on a pair (i, j) with 0 <= j < nk."""
    i, j = Var("i"), Var("j")
    result: Bool = TRUE
    for bound in band.lower:
        result = x.both(result, x.at_most(bound_expr(bound, i, NK), j))
    for bound in band.upper:
        result = x.both(result, x.less(j, bound_expr(bound, i, NK)))
    for bound in band.first_row:
        result = x.both(result, x.at_most(bound_expr(bound, i, NK), i))
    for bound in band.last_row:
        result = x.both(result, x.less(i, bound_expr(bound, i, NK)))
    for c in band.congruences:
        block = x.floor_div(j, Int(c.unit), nonneg=True)
        if c.moving:
            block = x.sub(block, x.floor_div(i, Int(c.unit)))
        shifted = x.sub(block, number_expr(c.phase))
        result = x.both(result, x.less(x.mod(shifted, Int(c.period)), Int(c.width)))
    for test in band.lists:
        drawn: Bool = x.Listed(lists.index(test.draws))
        result = x.both(result, x.negate(drawn) if test.negated else drawn)
    return result

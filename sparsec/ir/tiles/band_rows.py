"""A band within one tile of rows: its rows, the tokens it may and must keep, and its test on a pair.

Bounds never decrease from row to row, so a band may be live from `lower_bound` of the first row to
`upper_bound` of the last one, and is surely live from that of the last row to that of the first one.
"""

from __future__ import annotations

from sparsec.ir.bands.band import Band, Congruence, Draws, InputTest, plain
from sparsec.ir.bands.bounds import Base, Bound, bound_expr, number_expr
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.nodes import FALSE, ONE, TRUE, ZERO, Bool, Expr, Extent, Int, Listed, Picked, Var
from sparsec.ir.expr.scalars import NK, Frame, Interval, Scalars


def rows_within(scalars: Scalars, band: Band) -> tuple[Expr, Expr, Bool, Bool]:
    """First and last row of the tile inside the band's row bounds; whether any row is in the band; whether all are."""
    frame = scalars.frame
    first: Expr = frame.first
    last: Expr = frame.last
    every: Bool = TRUE
    for bound in band.first_row:
        value = bound_expr(bound, ZERO, NK)
        first, every = x.maximum(first, value), x.both(every, x.at_most(value, frame.first))
    for bound in band.last_row:
        value = bound_expr(bound, ZERO, NK)
        last, every = x.minimum(last, x.sub(value, ONE)), x.both(every, x.less(frame.last, value))
    some = x.at_most(first, last) if band.first_row or band.last_row else TRUE
    for residue in band.row_residues:
        start = x.mul(number_expr(residue.phase), Int(residue.unit))
        period, width = Int(residue.period * residue.unit), Int(residue.width * residue.unit)
        # Rows to the end of the next run, then to its start; and how far into a run the first row lies.
        to_end = x.mod(x.sub(x.add(start, x.sub(width, ONE)), first), period)
        some = x.both(some, x.less(to_end, x.add(x.sub(last, first), width)))
        into = x.mod(x.sub(frame.first, start), period)
        every = x.both(every, x.less(x.add(into, x.sub(frame.last, frame.first)), width))
    return scalars("first", first), scalars("last", last), some, every


def bound_at(scalars: Scalars, bound: Bound, row: Expr) -> Expr:
    """The bound's value at `row`, as a column; rows of one tile share the unit that they all lie in."""
    frame = scalars.frame
    shared = row == frame.last and bound.base is Base.ROW and bound.unit % scalars.row_tile == 0 and bound.shift == 0
    return x.sub(bound_expr(bound, frame.first if shared else row, NK), frame.origin)


def lower_bound(scalars: Scalars, band: Band, row: Expr) -> Expr:
    value = scalars.frame.begin
    for bound in band.lower:
        value = scalars.maximum(value, bound_at(scalars, bound, row))
    return value


def upper_bound(scalars: Scalars, band: Band, row: Expr) -> Expr:
    value = scalars.frame.end
    for bound in band.upper:
        value = x.minimum(value, bound_at(scalars, bound, row))
    return scalars.maximum(value, ZERO)


def maybe_live(scalars: Scalars, band: Band) -> tuple[Interval, Bool]:
    """Tokens live for some row; and whether any row is in the band at all."""
    first, last, some, _ = rows_within(scalars, band)
    return Interval(
        scalars("lo", lower_bound(scalars, band, first)), scalars("hi", upper_bound(scalars, band, last)), band.origin
    ), some


def surely_live(scalars: Scalars, band: Band) -> tuple[Interval, Bool]:
    """Tokens live for every row, as far as bounds tell; and whether all rows are in the band."""
    _, _, _, every = rows_within(scalars, band)
    frame = scalars.frame
    start, stop = lower_bound(scalars, band, frame.last), upper_bound(scalars, band, frame.first)
    tokens = Interval(scalars("lo", start), scalars("hi", stop), band.origin)
    return tokens, FALSE if band.lists or band.inputs else every


def band_predicate(band: Band, lists: tuple[Draws, ...], inputs: tuple[InputTest, ...], frame: Frame) -> Bool:
    """The band's test on a pair (i, j) of positions, 0 <= j < nk; `lists` and `inputs` are those of the program."""
    row, column = frame.row, frame.column
    result: Bool = TRUE
    for bound in band.lower:
        result = x.both(result, x.at_most(bound_expr(bound, row, NK), column))
    for bound in band.upper:
        result = x.both(result, x.less(column, bound_expr(bound, row, NK)))
    for bound in band.first_row:
        result = x.both(result, x.at_most(bound_expr(bound, row, NK), row))
    for bound in band.last_row:
        result = x.both(result, x.less(row, bound_expr(bound, row, NK)))
    for residue in band.row_residues:
        result = x.both(result, _in_residue(residue, x.floor_div(row, Int(residue.unit), nonneg=row == Var("j"))))
    for c in band.congruences:
        block = x.floor_div(column, Int(c.unit), nonneg=column == Var("j"))
        if c.moving:
            block = x.sub(block, x.floor_div(row, Int(c.unit), nonneg=row == Var("j")))
        result = x.both(result, _in_residue(c, block))
    for test in band.lists:
        drawn: Bool = Listed(lists.index(test.draws))
        result = x.both(result, x.negate(drawn) if test.negated else drawn)
    for asked in band.inputs:
        picked: Bool = Picked(inputs.index(plain(asked)), Extent.PAIR)
        result = x.both(result, x.negate(picked) if asked.negated else picked)
    return result


def _in_residue(c: Congruence, block: Expr) -> Bool:
    return x.less(x.mod(x.sub(block, number_expr(c.phase)), Int(c.period)), Int(c.width))

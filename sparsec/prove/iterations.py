"""The loops of a tile program -> when they visit the tile at hand: at some iteration, and at the one that has to.

`any_iteration` is for what kernels compute at every iteration, whatever tile it comes to.

Invariant: which iteration comes to the tile is only ever guessed; whatever the guess, `certain` holds at no tile that
the segment does not visit.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.expr import nodes as x
from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.scalars import Interval
from sparsec.ir.tiles.program import Segment
from sparsec.prove.formulas import LinearScope
from sparsec.prove.linear import Condition, Linear, every, some
from sparsec.prove.tile_setting import TileSetting

_ITERATIONS = 4 * POSITION_LIMIT


@dataclass(frozen=True, slots=True, eq=False)
class Iteration:
    """An iteration of a segment, and whether it is one of its loop that visits the tile at hand."""

    number: Linear
    visits: Condition


def possible(at: TileSetting, segment: Segment) -> Iteration:
    """Some iteration: the segment visits the tile iff the iteration's unknowns can be chosen so that this one does."""
    if segment.contiguous:
        return certain(at, segment)
    if segment.listed is not None:
        per_block = at.program.lists[segment.listed].block // at.width
        slot, part = at.space.unknown("slot", 0, _ITERATIONS), at.space.unknown("part", 0, per_block - 1)
        entry = at.space.unknown("entry", -1, _ITERATIONS)
        drawn = some((at.space.less(entry, Linear(0)), at.space.flag("list", segment.listed)))
        elsewhere = at.space.equal(entry, at.space.divided(at.tile, per_block)[0])
        iteration = slot * per_block + part
        return Iteration(iteration, every((_visits(at, segment, iteration, entry=entry), elsewhere, drawn)))
    _, width, skipped = _division(at, segment)
    run, slot = at.space.unknown("run", -_ITERATIONS, _ITERATIONS), at.space.unknown("in run", 0, width - 1)
    iteration = run * width + slot - skipped
    return Iteration(iteration, _visits(at, segment, iteration))


def certain(at: TileSetting, segment: Segment) -> Iteration:
    """The one iteration that can visit the tile, solved for it."""
    space = at.space
    if segment.contiguous:
        iteration = at.tile - at.scope.having(n=Linear(0)).value(segment.tile)
        return Iteration(iteration, _visits(at, segment, iteration))
    if segment.listed is not None:
        per_block = at.program.lists[segment.listed].block // at.width
        block, part = space.divided(at.tile, per_block)
        # A drawn block is in some slot of the table, and every slot is one of the loop's iterations.
        iteration = space.unknown("slot", 0, at.program.lists[segment.listed].width - 1) * per_block + part
        return Iteration(
            iteration, every((space.flag("list", segment.listed), _visits(at, segment, iteration, entry=block)))
        )
    token, width, skipped = _division(at, segment)
    run, slot = space.unknown("run", -_ITERATIONS, _ITERATIONS), space.unknown("in run", 0, width - 1)
    scope = at.scope.having(n=run * width + slot - skipped)
    if token is None:
        found = scope.value(segment.tile)
        step = dict(found.terms).get(run.terms[0][0], 1)
        turn, rest = space.divided(at.tile - _without(found, run, slot), step)
    else:
        place, size = scope.value(token.left), scope.value(token.right).constant
        step = dict(place.terms).get(run.terms[0][0], 1)
        turn = space.divided((at.tile * size).plus(size - 1) - _without(place, run, slot), step)[0]
        solved = at.scope.having(n=turn * width - skipped)
        rest = at.tile - solved.value(token)
    part = space.maximum(Linear(0), space.minimum(rest, Linear(width - 1)))
    iteration = turn * width + part - skipped
    return Iteration(iteration, every((space.equal(part, rest), _visits(at, segment, iteration))))


def any_iteration(at: TileSetting, segment: Segment) -> tuple[LinearScope, Condition]:
    """Any iteration: the names that the segment's test reads there, and whether the iteration is one of the loop."""
    names = {"n": at.space.unknown("iteration", 0, _ITERATIONS)}
    if segment.listed is not None:
        names["entry"] = at.space.unknown("entry", -1, POSITION_LIMIT // at.program.lists[segment.listed].block)
    tile = at.scope.having(**names).value(segment.tile)
    return at.scope.having(**names, tile=tile), in_loop(at, segment, names["n"])


def _visits(at: TileSetting, segment: Segment, iteration: Linear, **names: Linear) -> Condition:
    span = at.spans.get(segment)
    ours = in_loop(at, segment, iteration) if span is None else in_span(at, span)
    scope = at.scope.having(n=iteration, tile=at.tile, **names)
    return every((ours, at.space.equal(scope.value(segment.tile), at.tile), scope.truth(segment.when)))


def in_loop(at: TileSetting, segment: Segment, iteration: Linear) -> Condition:
    return at.space.within(iteration, Linear(0), at.scope.value(segment.count))


def in_span(at: TileSetting, span: Interval) -> Condition:
    return at.space.within(at.tile, at.scope.value(span.start), at.scope.value(span.stop))


def _without(value: Linear, *unknowns: Linear) -> Linear:
    left = {unknown.terms[0][0] for unknown in unknowns if unknown.terms}
    return Linear(value.constant, tuple((u, f) for u, f in value.terms if u not in left))


def _division(at: TileSetting, segment: Segment) -> tuple[x.FloorDiv | None, int, Linear]:
    """How the loop's iterations fall into runs: the division of a token by the tile if there is one, the iterations of
    a run, and how far iteration 0 is into the run it belongs to."""
    token, width, skipped = None, 1, Linear(0)
    start, second = at.scope.having(n=Linear(0)), at.scope.having(n=Linear(1))
    for node in _nodes(segment.tile):
        if isinstance(node, x.FloorDiv) and "n" in names_in(node.left):
            if second.value(node.left) - start.value(node.left) == Linear(1):
                width, skipped = start.value(node.right).constant, start.value(node.left)
            else:
                token = node
    return token, width, skipped


def _nodes(expr: x.Expr) -> list[x.Expr]:
    match expr:
        case x.Int() | x.Var():
            return [expr]
        case x.Select(_, a, b):
            return [expr, *_nodes(a), *_nodes(b)]
        case _:
            return [expr, *_nodes(expr.left), *_nodes(expr.right)]

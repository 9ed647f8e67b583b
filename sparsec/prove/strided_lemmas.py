"""The loops through strided tiles -> their spans, where it is shown that a loop's tiles are those of its span.

How many tiles of a residue lie before a tile takes divisions to say, and a program says it twice for each of its loops.
What follows from them is shown once, whatever the numbers are: an iteration whose tile lies in the span is one of the
loop's, and no other is. Invariant: the span that a segment has is used where it is proved, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sparsec.ir.expr import nodes as x
from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.scalars import Interval
from sparsec.ir.tiles.program import Segment
from sparsec.prove.iterations import in_loop, in_span, possible
from sparsec.prove.linear import Condition, every, never, some
from sparsec.prove.solve import Solver
from sparsec.prove.tile_setting import TileSetting, freed

_SECONDS, _ATTEMPTS = 1.0, 4


def with_spans(at: TileSetting, solver: Solver) -> TileSetting:
    """The setting, with those segments' spans that the solver shows to be right."""
    return replace(
        at,
        spans={
            segment: segment.span
            for segment in (*at.program.full, *at.program.masked)
            if segment.span is not None
            and all(solver.ask(wrong, _SECONDS, _ATTEMPTS) is False for wrong in _wrong(at, segment, segment.span))
        },
    )


def _wrong(at: TileSetting, segment: Segment, span: Interval) -> Iterator[tuple[Condition, ...]]:
    """That the span ends before it starts, and that, whatever numbers the lets are, an iteration whose tile lies in the
    span is none of the loop's, or one whose tile lies outside is."""
    yield at.assumed, _ends_early(at, span)
    free = freed(at, _read(at, segment) | names_in(span.start) | names_in(span.stop))
    number = possible(free, segment).number
    here = free.space.equal(free.scope.having(n=number).value(segment.tile), free.tile)
    inside, looped = in_span(free, span), in_loop(free, segment, number)
    differ = some((every((inside, never(looped))), every((looped, never(inside)))))
    yield never(_ends_early(free, span)), here, differ


def _read(at: TileSetting, segment: Segment) -> frozenset[str]:
    """The names that the numbers of tiles before the span's stop and before its start read: the loop's count is the
    difference of the two."""
    match _definition(at, segment.count):
        case x.Sub(before_stop, before_start):
            return names_in(before_stop) | names_in(_definition(at, before_start))
        case count:
            return names_in(count)


def _definition(at: TileSetting, expr: x.Expr) -> x.Expr:
    """What a let stands for."""
    return at.scope.lets.get(expr.name, expr) if isinstance(expr, x.Var) else expr


def _ends_early(at: TileSetting, span: Interval) -> Condition:
    return at.space.less(at.scope.value(span.stop), at.scope.value(span.start))

"""A tile program in its setting -> its obligations: what the program promises, each with a query for where it fails.

Invariant: every promise of the docstring of `ir.tiles.program` has its obligation.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparsec.ir.expr import nodes as x
from sparsec.ir.expr import simplify
from sparsec.ir.tiles.program import Segment, TileProgram
from sparsec.prove.formulas import LinearScope
from sparsec.prove.iterations import any_iteration, certain, possible
from sparsec.prove.linear import YES, Condition, Linear, every, never, some
from sparsec.prove.machine_integers import integers_in, unsigned_in
from sparsec.prove.obligations import Obligation, Query
from sparsec.prove.range_lemmas import Impossible, RangeLemmas
from sparsec.prove.tile_setting import ProgramKind, TileSetting


def tile_obligations(at: TileSetting) -> tuple[Obligation, ...]:
    """The promises of `ir.tiles.program.TileProgram`, beside its predicate's meaning."""
    ranges = RangeLemmas(at)
    return (
        Obligation("coverage", lambda: _uncovered(at), lambda impossible: ranges.covered(_live(at), impossible)),
        Obligation("disjointness", lambda: _twice(at), lambda impossible: _shown_apart(ranges, impossible)),
        Obligation("fullness", lambda: _not_full(at)),
        Obligation("bounds", lambda: _outside(at), lambda impossible: ranges.bounded(_vain(at), impossible)),
        Obligation("counts", lambda: _negative(at)),
        Obligation("int32", lambda: _wide(at)),
        Obligation("signs", lambda: _negative_quotients(at)),
        *((Obligation("gathers", lambda: _gathered_twice(at)),) if at.program.gathers else ()),
    )


def reach_obligations(at: TileSetting) -> tuple[Obligation, ...]:
    """What a program promises of the reach of its gathers, in a setting that has none of its loops."""
    return (
        Obligation("reach", lambda: _out_of_reach(at)),
        Obligation("int32", lambda: _wide(at)),
        Obligation("signs", lambda: _negative_quotients(at)),
    )


def _segments(at: TileSetting) -> tuple[Segment, ...]:
    return (*at.program.full, *at.program.masked)


def _alternatives(test: x.Bool) -> tuple[x.Bool, ...]:
    match test:
        case x.Or(left, right):
            return (*_alternatives(left), *_alternatives(right))
    return (test,)


def _uncovered(at: TileSetting) -> Query:
    """A live pair lies in a tile that no segment visits."""
    unvisited = (never(certain(at, segment).visits) for segment in _segments(at))
    return Query((at.assumed, at.present, *unvisited), _live(at))


def _live(at: TileSetting) -> tuple[Condition, ...]:
    return tuple(map(at.scope.truth, _alternatives(at.program.live)))


def _shown_apart(ranges: RangeLemmas, impossible: Impossible) -> bool:
    """Whether no tile is visited twice whatever the ends of ranges are, in order."""
    if not ranges.apply:
        return False
    twice = _twice(ranges.free)
    return impossible(Query((*twice.given, *ranges.facts(impossible)), twice.cases))


def _twice(at: TileSetting) -> Query:
    """Two segments visit the tile, or one does at two iterations."""
    found: list[Condition] = []
    earlier: list[Condition] = []
    for segment in _segments(at):
        iteration = possible(at, segment)
        found.append(every((iteration.visits, some(earlier))))
        earlier.append(iteration.visits)
        if not segment.contiguous:
            again = possible(at, segment)
            parts = [iteration.visits, again.visits, never(at.space.equal(iteration.number, again.number))]
            if segment.listed is not None:  # a table lists no block twice
                per_block = at.program.lists[segment.listed].block // at.width
                parts.append(
                    at.space.equal(*(at.space.divided(each.number, per_block)[0] for each in (iteration, again)))
                )
            found.append(every(parts))
    return Query((at.assumed,), tuple(found))


def _not_full(at: TileSetting) -> Query:
    """A pair of a tile that a full segment visits is not live."""
    dead = never(every((at.present, at.live)))
    return Query((at.assumed, dead), tuple(possible(at, segment).visits for segment in at.program.full))


def gathered(program: TileProgram) -> tuple[x.Bool, ...]:
    """Of each gather, the condition of its pairs."""
    return tuple(simplify.both(x.Picked(gather.test, x.Extent.PAIR), gather.live) for gather in program.gathers)


def _gathered_twice(at: TileSetting) -> Query:
    """A pair of a gather is live, or comes in an earlier gather."""
    found, earlier = [], [at.live]
    for condition in map(at.scope.truth, gathered(at.program)):
        found.append(every((condition, some(earlier))))
        earlier.append(condition)
    return Query((at.assumed, at.present), tuple(found))


def _out_of_reach(at: TileSetting) -> Query:
    """A pair of a gather lies outside its reach."""
    place = at.tile if at.kind is ProgramKind.TRANSPOSED else at.column
    found = []
    for gather, condition in zip(at.program.gathers, gathered(at.program), strict=True):
        if gather.reach is not None:
            start, stop = (at.scope.value(end) for end in (gather.reach.start, gather.reach.stop))
            found.append(every((at.present, at.scope.truth(condition), never(at.space.within(place, start, stop)))))
    return Query((at.assumed,), tuple(found))


def _negative(at: TileSetting) -> Query:
    """A segment's count is negative, or its list has no entry for an iteration."""
    found = []
    for segment in _segments(at):
        count = at.scope.value(segment.count)
        found.append(at.space.less(count, Linear(0)))
        if segment.listed is not None:
            found.append(at.space.less(Linear(entries(at.program, segment.listed, at.width)), count))
    return Query((at.assumed,), tuple(found))


def entries(program: TileProgram, listed: int, width: int) -> int:
    """Tiles of `width` columns in one row of the list's table."""
    spec = program.lists[listed]
    return spec.width * (spec.block // width)


def _outside(at: TileSetting) -> Query:
    """A visited tile has no column that exists."""
    return Query((at.assumed, _vain(at)), tuple(possible(at, segment).visits for segment in _segments(at)))


def _vain(at: TileSetting) -> Condition:
    """The tile has no column that exists."""
    first = at.tile * at.width
    return never(every((at.space.less(first, at.end), at.space.less(at.begin, first.plus(at.width)))))


def _wide(at: TileSetting) -> Query:
    """What is computed leaves int32, or a part of it does, for columns past the end of a tile too."""
    found: list[Condition] = []
    seen: set[tuple[x.Expr, LinearScope]] = set()
    for tree, scope, reached in _computed(at, at.space.within(at.tile * at.width, Linear(0), at.end)):
        for node in integers_in(tree):
            if (node, scope) not in seen:
                seen.add((node, scope))
                inside = at.space.within(scope.value(node), Linear(-(2**31)), Linear(2**31))
                found.append(every((reached, never(inside))))
    return Query((at.assumed,), tuple(found))


def _negative_quotients(at: TileSetting) -> Query:
    """A division that is printed for values from 0 on divides a lesser one."""
    found = []
    for tree, scope, reached in _computed(at, at.present):
        for chosen, divided in unsigned_in(tree):
            below = at.space.less(scope.value(divided), Linear(0))
            found.append(every((reached, *map(scope.truth, chosen), below)))
    return Query((at.assumed,), tuple(found))


def _computed(at: TileSetting, paired: Condition) -> Iterator[tuple[x.Tree, LinearScope, Condition]]:
    """What the program's kernels compute, and when: at every iteration of a loop, of tiles that it leaves out too, and
    of pairs where `paired` holds."""
    for let in at.program.lets:
        yield let.value, at.scope, YES
    for segment in _segments(at):
        yield segment.count, at.scope, YES
        scope, reached = any_iteration(at, segment)
        for tree in (segment.tile, first_column(at.width), segment.when):
            yield tree, scope, reached
    for gather in at.program.gathers:
        if gather.reach is not None:
            yield gather.reach.start, at.scope, YES
            yield gather.reach.stop, at.scope, YES
    for test in (at.program.live, *gathered(at.program)):
        yield test, at.scope, paired


def first_column(width: int) -> x.Expr:
    """Of the tile at hand."""
    return simplify.mul(x.Var("tile"), x.Int(width))

"""The ranges that a tile program puts in order -> shorter proofs of what its loops do with them.

A program has the ranges of tiles to visit and those that are full (`ir.tiles.program.Ranges`), sorts and merges them,
and loops over what comes out. The lemmas show first what the ranges hold, then what the loops visit whatever numbers
the ranges' ends are, given no more of these than facts about their order, which are shown too. Invariant: lemmas only
ever prove. The program says where its ranges are; that what is assumed of them holds is asked of the solver, and where
it says no, nothing is proved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise

from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.nodes import TRUE, Expr
from sparsec.ir.expr.scalars import Interval
from sparsec.ir.tiles.program import Segment
from sparsec.prove.iterations import certain, possible
from sparsec.prove.linear import Condition, every, never, some
from sparsec.prove.obligations import Query
from sparsec.prove.tile_setting import ProgramKind, TileSetting, freed

Impossible = Callable[[Query], bool]
"""Whether the solver shows soon that the query's conditions never hold together."""
Broken = Callable[[TileSetting], Condition]
"""Whether something does not hold of the ends of ranges in a setting."""


@dataclass(frozen=True)
class RangeLemmas:
    """Of the setting of a tile program."""

    at: TileSetting

    @property
    def visited(self) -> tuple[Interval, ...]:
        return self.at.program.ranges.visited

    @property
    def full(self) -> tuple[Interval, ...]:
        return self.at.program.ranges.full

    @property
    def all(self) -> tuple[Interval, ...]:
        return (*self.visited, *self.full)

    @property
    def apply(self) -> bool:
        """Whether there are ranges to sort: only transposed programs have them in no known order."""
        return self.at.kind is ProgramKind.TRANSPOSED and bool(self.all)

    @cached_property
    def free(self) -> TileSetting:
        """The setting with any numbers for the ends of ranges."""
        return freed(self.at, [name for each in self.all for name in names_in(each.start) | names_in(each.stop)])

    def facts(self, impossible: Impossible) -> tuple[Condition, ...]:
        """What holds of the ends: that ranges end after they begin, that they come in order, where they do, and that
        the tile lies in a range to be visited if it lies in a full one."""
        chain = [end for each in self.full for end in (each.start, each.stop)]
        ends = ((each.start, each.stop) for each in self.all)
        order = [partial(_less, pair) for pair in dict.fromkeys((*ends, *pairwise(chain)))]
        in_turn = [partial(_less, pair) for pair in pairwise(each.start for each in self.visited)]
        found: list[Broken] = []
        groups: tuple[Sequence[Broken], ...] = (order, in_turn, (self._astray,))
        for group in groups:
            if self._never(group, impossible):
                found += group
            elif group is order:
                found += [broken for broken in group if self._never((broken,), impossible)]
        return tuple(never(broken(self.free)) for broken in found)

    def _never(self, group: Sequence[Broken], impossible: Impossible) -> bool:
        return impossible(Query((self.at.assumed,), tuple(broken(self.at) for broken in group)))

    def _astray(self, at: TileSetting) -> Condition:
        """The tile is in a full range alone."""
        return every((some(within(at, self.full)), *map(never, within(at, self.visited))))

    def covered(self, live: tuple[Condition, ...], impossible: Impossible) -> bool:
        """Whether live pairs lie in ranges or in tiles of other segments, and all tiles of ranges are visited."""
        if not self.apply:
            return False
        at, free = self.at, self.free
        outside = map(never, within(at, self.visited))
        unvisited = (never(certain(at, segment).visits) for segment in segments_of(at, ranges=False))
        if not impossible(Query((at.assumed, at.present, *outside, *unvisited), live)):
            return False
        skipped = (never(certain(free, segment).visits) for segment in segments_of(at, ranges=True))
        return impossible(Query((*self.facts(impossible), *skipped), within(free, self.visited)))

    def bounded(self, vain: Condition, impossible: Impossible) -> bool:
        """Whether all tiles that are visited lie in ranges or are those of other segments, none of which is `vain`."""
        if not self.apply:
            return False
        at, free = self.at, self.free
        others = (possible(at, segment).visits for segment in segments_of(at, ranges=False))
        if not impossible(Query((at.assumed, vain), (*within(at, self.all), *others))):
            return False
        outside = map(never, within(free, self.all))
        visited = tuple(certain(free, segment).visits for segment in segments_of(at, ranges=True))
        return impossible(Query((*self.facts(impossible), *outside), visited))


def _less(pair: tuple[Expr, Expr], at: TileSetting) -> Condition:
    """The second is less than the first."""
    return at.space.less(at.scope.value(pair[1]), at.scope.value(pair[0]))


def within(at: TileSetting, ranges: tuple[Interval, ...]) -> tuple[Condition, ...]:
    """For each range, whether the tile lies in it."""
    return tuple(at.space.within(at.tile, at.scope.value(each.start), at.scope.value(each.stop)) for each in ranges)


def segments_of(at: TileSetting, *, ranges: bool) -> tuple[Segment, ...]:
    """The segments that visit all tiles of ranges, or those that visit others: strided, listed and tested ones."""
    segments = (*at.program.full, *at.program.masked)
    return tuple(segment for segment in segments if (segment.contiguous and segment.when == TRUE) == ranges)

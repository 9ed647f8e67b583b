"""The ranges that a tile program puts in order -> shorter proofs of what its loops do with them.

A program names the ranges of tiles it has to visit (`from0` .. `to0`, ...) and those that are full, sorts and merges
them, and loops over what comes out. A cut shows first what the ranges hold, then what the loops visit whatever numbers
the ranges are, given no more of them than facts about their order, which are shown too. Invariant: a cut only ever
proves. The names say where to cut; that what is assumed of them holds is asked of the solver, and where it says no,
nothing is proved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise

from sparsec.ir.expr.nodes import TRUE, names_in
from sparsec.ir.tiles.program import Piece
from sparsec.prove.linear import Condition, every, never, some
from sparsec.prove.questions import Failure
from sparsec.prove.settings import Kind, Setting, freed
from sparsec.prove.visiting import certain, possible

Impossible = Callable[[Failure], bool]
"""Whether the solver shows soon that the failure has no case."""
Broken = Callable[[Setting], Condition]
"""Whether something does not hold of the ends of ranges in a setting."""

_RANGE_END = re.compile(r"(full_)?(from|to)(\d+)")


@dataclass(frozen=True)
class Cut:
    """Of the setting of a tile program."""

    at: Setting

    @cached_property
    def named(self) -> tuple[tuple[str, str], ...]:
        """The names of both ends of each range, those to be visited first; only transposed programs sort theirs."""
        return (*self._ends(""), *self._ends("full_")) if self.at.kind is Kind.TRANSPOSED else ()

    def _ends(self, kind: str) -> tuple[tuple[str, str], ...]:
        """Of the ranges that loops run through; those of strided tiles have such names too."""
        lets = self.at.scope.lets
        found = sorted(int(m[3]) for m in map(_RANGE_END.fullmatch, lets) if m and (m[1] or "", m[2]) == (kind, "from"))
        ends = ((f"{kind}from{n}", f"{kind}to{n}") for n in found)
        return tuple((first, last) for first, last in ends if {first, last} <= self._run_through)

    @cached_property
    def _run_through(self) -> set[str]:
        """The names that the loops through ranges read."""
        read: set[str] = set()
        new = {
            name for piece in pieces_of(self.at, ranges=True) for name in names_in(piece.tile) | names_in(piece.count)
        }
        while new:
            read |= new
            new = {name for let in new & self.at.scope.lets.keys() for name in names_in(self.at.scope.lets[let])} - read
        return read

    @cached_property
    def free(self) -> Setting:
        """The setting with any numbers for the ends of ranges."""
        return freed(self.at, [end for ends in self.named for end in ends])

    def facts(self, impossible: Impossible) -> tuple[Condition, ...]:
        """What holds of the ends: that ranges end after they begin, that they come in order, where they do, and that
        the tile lies in a range to be visited if it lies in a full one."""
        chain = [end for ends in self._ends("full_") for end in ends]
        starts = [first for first, _ in self._ends("")]
        order = [partial(self._less, pair) for pair in dict.fromkeys((*self.named, *pairwise(chain)))]
        in_turn = [partial(self._less, pair) for pair in pairwise(starts)]
        found: list[Broken] = []
        groups: tuple[Sequence[Broken], ...] = (order, in_turn, (self._astray,))
        for group in groups:
            if self._never(group, impossible):
                found += group
            elif group is order:
                found += [broken for broken in group if self._never((broken,), impossible)]
        return tuple(never(broken(self.free)) for broken in found)

    def _never(self, group: Sequence[Broken], impossible: Impossible) -> bool:
        return impossible(Failure((self.at.assumed,), tuple(broken(self.at) for broken in group)))

    @staticmethod
    def _less(pair: tuple[str, str], at: Setting) -> Condition:
        """The second is less than the first."""
        return at.space.less(at.scope.name(pair[1]), at.scope.name(pair[0]))

    def _astray(self, at: Setting) -> Condition:
        """The tile is in a full range alone."""
        return every((some(self.within(at, ("full_",))), *map(never, self.within(at, ("",)))))

    def within(self, at: Setting, kinds: tuple[str, ...]) -> tuple[Condition, ...]:
        """For each range of these kinds, whether the tile lies in it."""
        ranges = (ends for kind in kinds for ends in self._ends(kind))
        return tuple(at.space.within(at.tile, at.scope.name(first), at.scope.name(last)) for first, last in ranges)


def pieces_of(at: Setting, *, ranges: bool) -> tuple[Piece, ...]:
    """The pieces that visit all tiles of ranges, or those that visit others: strided, listed and tested ones."""
    pieces = (*at.program.full, *at.program.masked)
    return tuple(piece for piece in pieces if (piece.contiguous and piece.when == TRUE) == ranges)


def covered(cut: Cut, live: tuple[Condition, ...], impossible: Impossible) -> bool:
    """Whether live pairs lie in ranges or in tiles of other pieces, and all tiles of ranges are visited."""
    if not cut.named:
        return False
    at, free = cut.at, cut.free
    outside = map(never, cut.within(at, ("",)))
    unvisited = (never(certain(at, piece).visits) for piece in pieces_of(at, ranges=False))
    if not impossible(Failure((at.assumed, at.present, *outside, *unvisited), live)):
        return False
    skipped = (never(certain(free, piece).visits) for piece in pieces_of(at, ranges=True))
    return impossible(Failure((*cut.facts(impossible), *skipped), cut.within(free, ("",))))


def bounded(cut: Cut, vain: Condition, impossible: Impossible) -> bool:
    """Whether all tiles that are visited lie in ranges or are those of other pieces, none of which is `vain`."""
    if not cut.named:
        return False
    at, free = cut.at, cut.free
    others = (possible(at, piece).visits for piece in pieces_of(at, ranges=False))
    inside = (*cut.within(at, ("", "full_")), *others)
    if not impossible(Failure((at.assumed, vain), inside)):
        return False
    outside = map(never, cut.within(free, ("", "full_")))
    visited = tuple(certain(free, piece).visits for piece in pieces_of(at, ranges=True))
    return impossible(Failure((*cut.facts(impossible), *outside), visited))

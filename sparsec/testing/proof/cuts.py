"""The ranges that a tile program puts in order -> shorter proofs of what its loops do with them.

A program names the ranges of tiles it has to visit (`from0` .. `to0`, ...) and those that are full, sorts and merges
them, and loops over what comes out. A cut shows first what the ranges hold, then what the loops visit whatever numbers
the ranges are, given no more of them than their order, which is shown too. Invariant: a cut only ever proves. The names
say where to cut; that what is assumed of them holds is asked of the solver, and where it says no, nothing is proved.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from sparsec.ir.tiles import Piece
from sparsec.testing.proof.linear import Condition, never
from sparsec.testing.proof.questions import Failure
from sparsec.testing.proof.settings import Kind, Setting
from sparsec.testing.proof.stated import Scope
from sparsec.testing.proof.visiting import certain, possible

Impossible = Callable[[Failure], bool]
"""Whether the solver shows soon that the failure has no case."""

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
        lets = self.at.scope.lets
        found = sorted(int(m[3]) for m in map(_RANGE_END.fullmatch, lets) if m and (m[1] or "", m[2]) == (kind, "from"))
        ends = ((f"{kind}from{n}", f"{kind}to{n}") for n in found)
        return tuple((first, last) for first, last in ends if last in lets)

    @cached_property
    def free(self) -> Setting:
        """The setting with any numbers for the ends of ranges."""
        space, scope = self.at.space, self.at.scope
        numbers = {end: space.unknown("end", *space.range_of(scope.name(end))) for ends in self.named for end in ends}
        return replace(self.at, scope=Scope(space, self.at.named | numbers, scope.lets, scope.listed))

    def facts(self, impossible: Impossible) -> tuple[Condition, ...]:
        """What holds of the ends: that ranges end after they begin, and full ones come in order."""
        chain = [end for ends in self._ends("full_") for end in ends]
        order = dict.fromkeys((*self.named, *pairwise(chain)))
        wrong = {pair: self._less(self.at, pair[1], pair[0]) for pair in order}
        if not impossible(Failure((self.at.assumed,), tuple(wrong.values()))):
            order = {pair: None for pair in order if impossible(Failure((self.at.assumed,), (wrong[pair],)))}
        return tuple(never(self._less(self.free, last, first)) for first, last in order)

    @staticmethod
    def _less(at: Setting, left: str, right: str) -> Condition:
        return at.space.less(at.scope.name(left), at.scope.name(right))

    def within(self, at: Setting, kinds: tuple[str, ...]) -> tuple[Condition, ...]:
        """For each range of these kinds, whether the tile lies in it."""
        ranges = (ends for kind in kinds for ends in self._ends(kind))
        return tuple(at.space.within(at.tile, at.scope.name(first), at.scope.name(last)) for first, last in ranges)


def pieces_of(at: Setting, *, contiguous: bool) -> tuple[Piece, ...]:
    pieces = (*at.program.full, *at.program.masked)
    return tuple(piece for piece in pieces if piece.contiguous == contiguous)


def covered(cut: Cut, live: tuple[Condition, ...], impossible: Impossible) -> bool:
    """Whether live pairs lie in ranges or in strided or listed tiles, and all tiles of ranges are visited."""
    if not cut.named:
        return False
    at, free = cut.at, cut.free
    outside = map(never, cut.within(at, ("",)))
    unvisited = (never(certain(at, piece).visits) for piece in pieces_of(at, contiguous=False))
    if not impossible(Failure((at.assumed, at.present, *outside, *unvisited), live)):
        return False
    skipped = (never(certain(free, piece).visits) for piece in pieces_of(at, contiguous=True))
    return impossible(Failure((*cut.facts(impossible), *skipped), cut.within(free, ("",))))


def bounded(cut: Cut, vain: Condition, impossible: Impossible) -> bool:
    """Whether all tiles that are visited lie in ranges or are strided or listed ones, none of which is `vain`."""
    if not cut.named:
        return False
    at, free = cut.at, cut.free
    strided = (possible(at, piece).visits for piece in pieces_of(at, contiguous=False))
    inside = (*cut.within(at, ("", "full_")), *strided)
    if not impossible(Failure((at.assumed, vain), inside)):
        return False
    outside = map(never, cut.within(free, ("", "full_")))
    visited = tuple(certain(free, piece).visits for piece in pieces_of(at, contiguous=True))
    return impossible(Failure((*cut.facts(impossible), *outside), visited))

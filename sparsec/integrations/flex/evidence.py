"""A square of pairs, seen and unseen -> the largest terms of each kind that it contains.

Invariant: no pair that is unseen is in a candidate; pairs that do not matter may be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsec.sema import model
from sparsec.sema.model import Edge, Term

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer[Any]]

PERIODS = 3
"""A stride is believed if that many of its periods fit into the square; a chunk, if two do."""
RESIDUES = 64
"""Strides, or dilations, looked at, those of the smallest periods."""
CHUNKS = 8
"""Chunks looked at further, those with the most pairs."""


@dataclass(frozen=True)
class Square:
    """Pairs (i, j), 0 <= i, j < n: which matter, and which of these are seen."""

    matters: Bools
    seen: Bools

    @property
    def size(self) -> int:
        return len(self.seen)

    @cached_property
    def i(self) -> Ints:
        return np.arange(self.size)[:, None]

    @cached_property
    def j(self) -> Ints:
        return np.arange(self.size)[None, :]

    @cached_property
    def sums(self) -> tuple[Sums, Sums, Sums]:
        """Of the pairs that matter: all, those that are seen, and those that are not."""
        return Sums(self.matters), Sums(self.matters & self.seen), Sums(self.matters & ~self.seen)


@dataclass(frozen=True)
class Candidate:
    """A term inside the set: by distance, by column or by row of tiles of `unit` tokens, or chunks.

    of: the distances (from -(tiles - 1) on), columns or rows that it has, bool; of a chunk none. run: the first and
    past the last of them, where they are one run. period, phase: where they are residues.
    """

    axis: str
    unit: int
    blocks: bool
    of: Bools | None = None
    run: tuple[int, int] | None = None
    period: int = 0
    phase: int = 0
    back: int = 0

    def pairs(self, square: Square) -> Bools:
        """bool [n, n]."""
        i, j = square.i // self.unit, square.j // self.unit
        if self.of is None:
            return np.asarray((i - j >= 0) & (i - j <= self.back))
        if self.axis == "distance":
            found: Bools = self.of[i - j + len(self.of) // 2]
        else:
            found = np.broadcast_to(self.of[j if self.axis == "column" else i], square.seen.shape)
        return found

    def within(self, first: int, stop: int) -> Candidate:
        """Of a run, no more than from `first` to `stop`; an end that is open stays so, and a start at 0 too."""
        assert self.run is not None and self.of is not None
        zero = len(self.of) // 2 if self.axis == "distance" else 0
        low, high = self.run
        if low > 0:
            low = max(low, first if low > zero else min(first, zero))
        high = high if high == len(self.of) else min(high, stop)
        of = np.zeros_like(self.of)
        of[low:high] = True
        return Candidate(self.axis, self.unit, self.blocks, of, (low, high))

    @property
    def term(self) -> Term:
        if self.of is None:
            return model.Chunk(self.unit, self.back)
        if self.run is None:
            kind = model.Dilated if self.axis == "distance" else model.Stride
            return kind(self.period, self.phase, self.blocks)
        low, high = self.run
        if self.axis == "distance":
            middle = len(self.of) // 2
            return _distances(
                None if low == 0 else low - middle, None if high == len(self.of) else high - middle, self.blocks
            )
        start, stop = None if low == 0 else Edge(low, False), None if high == len(self.of) else Edge(high, False)
        if self.axis == "column":
            if start is None and stop is not None:
                return model.Sink(stop.at, self.blocks)
            return model.Columns(start, stop, self.blocks)
        return model.Rows(start, stop, self.blocks)


def _distances(low: int | None, high: int | None, blocks: bool) -> Term:
    """The pairs whose distance i - j, or qb - kb, is from `low` on and below `high`; None: without end."""
    if high is None:
        return model.Full() if low is None else _from(low, blocks)
    if low is None:
        return model.Complement(_from(high, blocks))
    if high <= 0:
        return model.Difference(model.Window(1, -low, blocks), model.Window(1, -high, blocks))
    if low <= 0:
        return model.Window(high, -low, blocks)
    return model.Difference(model.Window(high, 0, blocks), model.Window(low, 0, blocks))


def _from(low: int, blocks: bool) -> Term:
    if low == 0 and not blocks:
        return model.Causal()
    if low > 0:
        tail: Term = model.Causal() if not blocks else model.Union((model.Causal(), model.Window(1, 0, True)))
        return model.Difference(tail, model.Window(low, 0, blocks))
    return model.Union((model.Causal(), model.Window(1, -low, blocks)))


class Sums:
    """How many of some pairs are in each tile of a square, for tiles of any size."""

    def __init__(self, pairs: Bools) -> None:
        self.pairs, self.size = pairs, len(pairs)
        self._along: dict[tuple[str, int], Ints] = {}

    @cached_property
    def _before(self) -> Ints:
        """Of those above and to the left of a corner."""
        found = np.zeros((self.size + 1, self.size + 1), np.int32)
        np.cumsum(np.cumsum(self.pairs, 1, np.int32), 0, np.int32, out=found[1:, 1:])
        return found

    def tiles(self, unit: int) -> Ints:
        """[tiles, tiles]."""
        if unit == 1:
            return self.pairs.astype(np.int32)
        edges = np.minimum(np.arange(0, self.size + unit, unit), self.size)
        at = self._before[np.ix_(edges, edges)]
        return np.asarray(at[1:, 1:] - at[:-1, 1:] - at[1:, :-1] + at[:-1, :-1])

    def within(self, candidate: Candidate) -> int:
        """How many are in a candidate."""
        if candidate.of is None:
            tiles = self.tiles(candidate.unit)
            return sum(int(tiles.trace(-each)) for each in range(candidate.back + 1))
        return int(self.along(candidate.axis, candidate.unit)[candidate.of].sum())

    def along(self, axis: str, unit: int) -> Ints:
        """By distance of tiles, from the most negative on, by column or by row of tiles."""
        if (axis, unit) not in self._along:
            self._along[axis, unit] = self._summed(axis, unit)
        return self._along[axis, unit]

    def _summed(self, axis: str, unit: int) -> Ints:
        if axis != "distance":
            sums = self.pairs.sum(0 if axis == "column" else 1)
            return np.asarray(np.add.reduceat(sums, np.arange(0, self.size, unit)))
        tiles = self.tiles(unit)
        count = len(tiles)
        # Row i of [count, 2 count], last key first, moves i places to the right as rows lose a place.
        wide = np.pad(tiles[:, ::-1], ((0, 0), (0, count))).ravel()[:-count]
        return np.asarray(wide.reshape(count, 2 * count - 1).sum(0))


def candidates(square: Square, block: int | None) -> Iterator[Candidate]:
    """Those in tokens, and chunks; with a block size those in blocks of it alone."""
    matters, seen, unseen = square.sums
    unit = 1 if block is None else block
    for axis in ("distance", "column", "row"):
        here = matters.along(axis, unit) > 0
        inside = unseen.along(axis, unit) == 0
        for run in _runs(inside & here, here):
            of = np.zeros_like(inside)
            of[slice(*run)] = True
            yield Candidate(axis, unit, block is not None, of, run)
        if axis != "row":
            yield from _residues(axis, unit, block is not None, inside, here)
    if block is None:
        yield from _chunks(unseen, seen)


def _runs(inside: Bools, here: Bools) -> Iterator[tuple[int, int]]:
    """Runs of places that are inside; one that reaches the last place that matters goes to the end."""
    there = here.nonzero()[0]
    if not len(there):
        return
    edges = np.diff(np.concatenate(([0], inside.astype(np.int8), [0])))
    for low, high in zip((edges == 1).nonzero()[0], (edges == -1).nonzero()[0], strict=True):
        yield int(low if low > there[0] or not here[0] else 0), int(len(inside) if high == there[-1] + 1 else high)


def _residues(axis: str, unit: int, blocks: bool, inside: Bools, here: Bools) -> Iterator[Candidate]:
    """Strides and dilations whose places are all inside; those of a multiple of a period that holds are left out."""
    count = len(inside)
    shift = count // 2 if axis == "distance" else 0
    tiles = count - shift
    known: dict[int, list[int]] = {}
    place, left = np.arange(count) - shift, RESIDUES
    for period in range(2, tiles // PERIODS + 1):
        inside_all = np.bincount(place % period, here & ~inside, period) == 0
        for smaller, phases in known.items():
            if period % smaller == 0:
                for phase in phases:
                    inside_all[phase::smaller] = False
        for phase in inside_all.nonzero()[0].tolist()[:left]:
            left -= 1
            known.setdefault(period, []).append(phase)
            yield Candidate(axis, unit, blocks, place % period == phase, None, period, phase)
        if not left:
            return


def _chunks(unseen: Sums, seen: Sums) -> Iterator[Candidate]:
    found: list[tuple[int, int, int]] = []
    for unit in range(2, unseen.size // 2 + 1):
        missing = unseen.tiles(unit)
        count, back = len(missing), -1
        while back + 1 < count - 1 and not missing.trace(-(back + 1)):
            back += 1
        if back >= 0:
            of_tiles = seen.tiles(unit)
            found.append((sum(int(of_tiles.trace(-each)) for each in range(back + 1)), unit, back))
    for _, unit, back in sorted(found, key=lambda each: (-each[0], each[1]))[:CHUNKS]:
        yield Candidate("chunk", unit, False, back=back)

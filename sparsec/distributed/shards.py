"""A sequence and so many ranks -> which positions each rank holds, with about as much work for every rank.

Invariant: chunks[r] are the half-open ranges of rank r, ascending; together they hold each position once. Every rank
holds as many positions as any other, but for two blocks at most a chunk; what a rank computes depends on its arguments
alone, so that all ranks find the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sparsec.distributed.needs import Ints, Range

EVEN = 1.05
"""The most work of a rank over the mean with which no more chunks are tried."""
CHUNKS = (1, 2, 4, 8, 16)
"""Chunks of a rank that are tried in turn."""

LEAST_BLOCK = 64
"""Positions of which a chunk has a multiple, where there are enough."""
BLOCKS = 8
"""Blocks that a chunk has at least, where there are enough positions: chunks differ by a block."""

Chunks = tuple[tuple[Range, ...], ...]
Work = Callable[[Ints], Ints]
"""Of each position how much work there is for the queries before it."""


@dataclass(frozen=True, slots=True)
class Shards:
    """`imbalance`: the most work of a rank over the mean."""

    length: int
    chunks: Chunks
    imbalance: float

    @property
    def ranks(self) -> int:
        return len(self.chunks)

    def tokens(self, rank: int) -> int:
        return sum(stop - start for start, stop in self.chunks[rank])


def by_work(length: int, ranks: int, block: int, work: Work) -> Shards:
    """The fewest chunks a rank with which no rank has more than EVEN times the mean work; else the evenest found."""
    found: list[Shards] = []
    for chunks in CHUNKS:
        if chunks > 1 and chunks * ranks > length:
            break
        edges = _edges(length, ranks * chunks, block)
        for assigned in (_folded(ranks, chunks), _greedy(ranks, chunks, _amounts(work, edges))):
            found.append(_shards(length, edges, assigned, work))
            if found[-1].imbalance <= EVEN:
                return found[-1]
    return min(found, key=lambda each: each.imbalance)


def contiguous(length: int, ranks: int, block: int, work: Work) -> Shards:
    """One chunk a rank, in order."""
    return _shards(length, _edges(length, ranks, block), _folded(ranks, 1), work)


def zigzag(length: int, ranks: int, block: int, work: Work) -> Shards:
    """Two chunks a rank: one from the start on, one from the end back."""
    return _shards(length, _edges(length, 2 * ranks, block), _folded(ranks, 2), work)


def zigzag_of_documents(ends: Sequence[int], ranks: int) -> Shards:
    """Two chunks of each document a rank, as `zigzag` has of a sequence. ends: from 0 on, with lengths that are
    multiples of twice the ranks. `imbalance` is not known."""
    chunks = []
    for rank in range(ranks):
        own = list[Range]()
        for start, stop in pairwise(ends):
            each = (stop - start) // (2 * ranks)
            own += [(start + n * each, start + (n + 1) * each) for n in (rank, 2 * ranks - 1 - rank)]
        chunks.append(_joined(own))
    return Shards(ends[-1], tuple(chunks), 1.0)


def again(shards: Shards, work: Work) -> Shards:
    """The same chunks, with another pattern's work."""
    totals = [sum(_amounts(work, np.array(chunk, np.int64))[0] for chunk in of_rank) for of_rank in shards.chunks]
    mean = sum(totals) / len(totals)
    return Shards(shards.length, shards.chunks, max(totals) / mean if mean else 1.0)


def cut(chunks: Sequence[Range], parts: int) -> list[tuple[Range, ...]]:
    """The chunks' positions in so many parts, one after another, of about as many positions each."""
    ends = np.cumsum([stop - start for start, stop in chunks])
    found = []
    for n in range(parts):
        first, last = (int(ends[-1]) * each // parts for each in (n, n + 1))
        inside = []
        for (start, stop), end in zip(chunks, ends.tolist(), strict=True):
            offset = stop - end  # from a place among the chunks' positions to the position
            if max(start, first + offset) < min(stop, last + offset):
                inside.append((max(start, first + offset), min(stop, last + offset)))
        found.append(tuple(inside))
    return found


def _edges(length: int, parts: int, block: int) -> Ints:
    """parts + 1 positions, multiples of the block but for the last, of a smaller one for want of blocks in a part."""
    while block > 1 and length < BLOCKS * parts * block:
        block //= 2
    blocks = -(-length // block)
    return np.minimum(np.arange(parts + 1, dtype=np.int64) * blocks // parts * block, length)


def _folded(ranks: int, chunks: int) -> list[list[int]]:
    """To and fro: the first goes to rank 0, 1, ..., the second to the last rank, the one before, ..."""
    return [[n * ranks + (ranks - 1 - rank if n % 2 else rank) for n in range(chunks)] for rank in range(ranks)]


def _greedy(ranks: int, chunks: int, amounts: Sequence[int]) -> list[list[int]]:
    """The chunk with the most work goes to the rank with the least so far that has room (Graham 1969)."""
    held: list[list[int]] = [[] for _ in range(ranks)]
    least = [(0, rank) for rank in range(ranks)]
    for part in sorted(range(ranks * chunks), key=lambda part: (-amounts[part], part)):
        amount, rank = heapq.heappop(least)
        held[rank].append(part)
        if len(held[rank]) < chunks:
            heapq.heappush(least, (amount + amounts[part], rank))
    return [sorted(parts) for parts in held]


def _amounts(work: Work, edges: Ints) -> list[int]:
    return [int(each) for each in np.diff(work(edges))]


def _shards(length: int, edges: Ints, assigned: list[list[int]], work: Work) -> Shards:
    amounts = _amounts(work, edges)
    totals = [sum(amounts[part] for part in parts) for parts in assigned]
    mean = sum(totals) / len(totals)
    chunks = tuple(_joined([(int(edges[part]), int(edges[part + 1])) for part in parts]) for parts in assigned)
    return Shards(length, chunks, max(totals) / mean if mean else 1.0)


def _joined(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Ascending ranges without those that are empty, and with neighbours as one."""
    found: list[Range] = []
    for start, stop in ranges:
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], stop
        elif start < stop:
            found.append((start, stop))
    return tuple(found)

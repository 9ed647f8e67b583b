"""A pattern and ranks -> which rank's KV cache holds a key, and the module that attends to the keys of one rank.

Runs of so many positions go to the ranks in turn: rank `j // run % ranks` holds key j. The set of a rank's keys is a
residue, so that its part of the pattern has a closed form, a cache layout and kernels as any pattern has.
Invariant: every key has one holder, which follows from the pattern, the number of ranks and the key alone.
"""

from __future__ import annotations

from functools import lru_cache

from sparsec.distributed.needs import Ints
from sparsec.ir.bands.normalise import TooManyBands
from sparsec.pipeline import Lowered
from sparsec.plan.kv.layout import CacheLayout
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.within import module_like, without_sink
from sparsec.sema.among import intersected
from sparsec.sema.model import ResolvedPattern, Stride, Term, Union
from sparsec.sema.terms import leaves

TOKENS = 1 << 17
"""Tokens of the sequence for which the slots of ranks are compared."""
LOOKED_AT = 8
"""Ranks whose slots are compared, spread evenly over all of them."""
LONGEST = 128
"""Positions of a run that is not a block."""
EVEN = 1.05
"""The most slots of a rank over the mean with which no other run is tried."""


def holders_of(keys: Ints, run: int, ranks: int) -> Ints:
    """The rank of each key."""
    return keys // run % ranks


def part_of_rank(attn: SparseAttention, run: int, rank: int, ranks: int) -> SparseAttention:
    """The module of the keys that one rank holds; the learned sink counts on rank 0 alone."""
    pattern = held_part(attn.lowered.pattern, run, rank, ranks)
    return module_like(attn, pattern if rank == 0 else without_sink(pattern))


@lru_cache(maxsize=64)
def run_length(pattern: ResolvedPattern, ranks: int) -> int:
    """Of the runs of positions: a block, if the ranks then have about as many slots each; else what makes them most
    even. Raises TooManyBands."""
    found: list[tuple[int, int]] = []
    for run in _runs(pattern, ranks):
        try:
            slots = [_slots(pattern, run, rank, ranks) for rank in range(0, ranks, -(-ranks // LOOKED_AT))]
        except TooManyBands:
            if not found and run == _runs(pattern, ranks)[-1]:
                raise
            continue
        found.append((max(slots), run))
        if max(slots) * ranks <= EVEN * _layout(pattern).slots(TOKENS):
            return run
    return min(found)[1]


def _runs(pattern: ResolvedPattern, ranks: int) -> tuple[int, ...]:
    """Those that are tried: blocks; equal parts of a block, for patterns that leave blocks out; single keys and the
    periods of strides over tokens, for patterns that leave keys out."""
    strides = {
        leaf.period for term in pattern.terms for leaf in leaves(term) if isinstance(leaf, Stride) and not leaf.blocks
    }
    within = [pattern.block // ranks] if pattern.block % ranks == 0 else []
    finer = [run for run in (*within, 1, *sorted(strides)) if run <= LONGEST]
    return tuple(dict.fromkeys((pattern.block, *finer)))


def _slots(pattern: ResolvedPattern, run: int, rank: int, ranks: int) -> int:
    return _layout(held_part(pattern, run, rank, ranks)).slots(TOKENS)


def _layout(pattern: ResolvedPattern) -> CacheLayout:
    return Lowered(pattern).layout


def held_part(pattern: ResolvedPattern, run: int, rank: int, ranks: int) -> ResolvedPattern:
    """The pairs of the pattern whose key one rank holds."""
    return pattern if ranks == 1 else intersected(pattern, _held(pattern.block, run, rank, ranks))


def _held(block: int, run: int, rank: int, ranks: int) -> Term:
    """The keys of a rank."""
    if run == block:
        return Stride(ranks, rank, blocks=True)
    keys = tuple(Stride(run * ranks, rank * run + n, blocks=False) for n in range(run))
    return keys[0] if run == 1 else Union(keys)

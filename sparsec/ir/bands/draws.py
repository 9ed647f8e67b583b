"""What a random term draws for a block of queries: a pure function of its numbers, the same on every machine.

Invariant: draws of query block qb are mix(seed, lane, qb, t) % (qb + 1), so no block after the query's own.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1


def drawn_blocks(count: int, seed: int, lane: int, query_block: int) -> tuple[int, ...]:
    """The key blocks drawn for one query block, -1 in the place of a repeated one; none for a negative block."""
    found: list[int] = []
    for t in range(count if query_block >= 0 else 0):
        block = split_mix(seed, lane, query_block, t) % (query_block + 1)
        found.append(-1 if block in found else block)
    return tuple(found)


def split_mix(seed: int, lane: int, query_block: int, t: int) -> int:
    """The SplitMix64 finaliser (Steele, Lea and Flood 2014) of the draw's counter, as `random` defines it."""
    z = seed * 0x9E3779B97F4A7C15 + lane * 0xBF58476D1CE4E5B9 + query_block * 0x94D049BB133111EB + t + 1
    z &= _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)

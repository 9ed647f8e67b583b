"""Regions of a layer's KV groups -> which pages of a request are needed, how many at a time, which prefix is cached.

A request's tokens lie in pages of `size` tokens; `whole` of them are full, and all tokens that are computed lie in
these. Invariant: a page counts as dead only when each of its tokens has been written, so none is written after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain, islice

from sparsec.ir.bands.liveness import Region
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.kv.pages import dead_pages, distinct

Needed = tuple[Region, ...]
"""What some KV group of a layer may ask for; equal for layers whose pages die at the same time."""

_LOOKED_AT = 4096
"""At how many lengths, at most, `most_held` counts pages."""


def needed_by(layout: CacheLayout) -> Needed:
    """The regions of all KV groups, each once, in one order."""
    return tuple(sorted(distinct(tuple(region for group in layout.groups for region in group)), key=repr))


@lru_cache(maxsize=4096)  # requests of one pattern pass the same lengths
def dead_of(needed: Needed, whole: int, size: int) -> tuple[range, ...]:
    """The pages, of the first `whole`, that no query after them can need, in ascending order."""
    found = dead_pages(CacheLayout((needed,), ()), whole * size + 1, size)
    return tuple(range(each.start, min(each.stop, whole)) for each in found if each.start < whole)


def newly_dead(needed: Needed, before: int, whole: int, size: int) -> list[range]:
    """The pages that are dead with `whole` full ones, and were not with `before`."""
    alive, n, found = _live(needed, before, whole, size), 0, list[range]()
    for each in dead_of(needed, whole, size):
        while n < len(alive) and alive[n].stop <= each.start:
            n += 1
        for other in islice(alive, n, None):
            if other.start >= each.stop:
                break
            found.append(range(max(each.start, other.start), min(each.stop, other.stop)))
    return found


def _live(needed: Needed, whole: int, pages: int, size: int) -> list[range]:
    """The pages, of the first `pages`, that are not dead with `whole` full ones."""
    gone = dead_of(needed, whole, size)
    starts, stops = (0, *(each.stop for each in gone)), (*(each.start for each in gone), pages)
    return [range(start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]


def live_pages(needed: Needed, whole: int, size: int) -> Iterator[int]:
    """The pages, of the first `whole`, that queries after them may need, in ascending order."""
    return chain.from_iterable(_live(needed, whole, whole, size))


@lru_cache
def most_held(needed: Needed, size: int, in_flight: int, longest: int) -> int:
    """The pages that a request of up to `longest` tokens may hold at one time, at most.

    in_flight: the most tokens that are written before pages of those before them are freed.
    """
    step = max(1, -(-longest // (size * _LOOKED_AT)))
    most = 0
    for whole in range(0, -(-longest // size), step):
        tokens = min(longest, (whole + step) * size - 1 + in_flight)
        most = max(most, -(-tokens // size) - sum(map(len, dead_of(needed, whole, size))))
    return most


def longest_hit(needed: Needed, pages: int, size: int, every: int, cached: Callable[[int], bool]) -> int:
    """The most pages, a multiple of `every` and at most `pages`, of which all that are needed after them are cached."""
    hit = pages // every * every
    while hit > 0:
        missing = next((page for page in live_pages(needed, hit, size) if not cached(page)), None)
        if missing is None:
            return hit
        hit = missing // every * every  # of fewer pages, too, this one is needed
    return 0

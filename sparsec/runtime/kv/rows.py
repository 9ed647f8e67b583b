"""`KVCache.release` and `KVCache.admit`: sequences that end, and sequences that begin in their rows.

Invariant: a released row holds no token and no marked key; an admitted one holds those of the sequence that it goes on
from, or none.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from itertools import chain
from typing import TYPE_CHECKING

import torch

from sparsec.diagnostics.arguments import instance, integer
from sparsec.diagnostics.model import CallError
from sparsec.runtime.kv.growth import resize, room_after
from sparsec.runtime.kv.keep import list_marked, room_of
from sparsec.runtime.kv.lists import BASE, CAPACITY, COUNT, KeptLists, relaid
from sparsec.runtime.kv.live import RELEASED

if TYPE_CHECKING:
    from sparsec.runtime.kv.cache import KVCache


def release(cache: KVCache, row: int | Sequence[int]) -> None:
    rows = [integer("row", each, 0, cache.batch_size - 1) for each in (row if isinstance(row, Sized) else [row])]
    gone = set(cache.released)
    for each in rows:
        if each in gone:
            raise CallError(f"expected the row of a sequence in use, got {each}, which is released")
        gone.add(each)
    cache.state[:RELEASED, rows], cache.state[RELEASED, rows] = 0, 1
    for each in rows:  # one after the other: an index of several rows would have to travel to the device
        cache.lengths_tensor[each].zero_()
        cache.live[each].zero_()
    if cache.kept is not None:
        cache.kept = _without(cache.kept, rows, laid_anew=cache.room is None)


def _without(kept: KeptLists, rows: list[int], *, laid_anew: bool) -> KeptLists:
    """The lists with none in those rows, and no room for any if they are `laid_anew`."""
    for row in rows:
        kept.lists[row, :, COUNT].zero_()
        kept.record[:, row] = 0
    if not laid_anew:
        return kept
    capacity = kept.lists[..., CAPACITY].to("cpu", torch.int64)
    capacity[rows] = 0
    return relaid(kept, capacity)


def admit(cache: KVCache, row: int | None, sequence: KVCache | None) -> int:
    free = cache.released
    if row is None and not free:
        raise CallError(f"expected a released row, got a cache whose {cache.batch_size} sequences are all in use")
    found = free[0] if row is None else integer("row", row, 0, cache.batch_size - 1)
    if found not in free:
        raise CallError(f"expected a released row, got {found}, whose sequence is in use; release({found}) ends it")
    if sequence is not None:
        _put(cache, found, sequence)
    cache.state[RELEASED, found] = 0
    cache.live[found].fill_(1)
    if cache.kept is not None:
        cache.kept.spare = 0
    return found


def _put(cache: KVCache, row: int, given: KVCache) -> None:
    """Copies a sequence into a released row. Raises CallError, and changes nothing, if it does not fit."""
    length = _checked(cache, given)
    if length > cache.max_len:
        resize(cache, room_after(cache.max_len, length))
    if given.kept is None and cache.kept is not None:
        given = given.fork()
        list_marked(given)
    elif given.kept is not None and cache.kept is None:
        list_marked(cache)
    if given.kept is not None and cache.kept is not None:
        cache.kept = _with_lists(cache.kept, row, given.kept, fixed=cache.room is not None)
    before, after = (each.layout.places(each.max_len, each.rollback) for each in (given, cache))
    for (base, size), (target, room) in zip(chain(*before), chain(*after), strict=True):
        held = min(size, room, length)
        cache.keys[row, target : target + held] = given.keys[0, base : base + held]
        cache.values[row, target : target + held] = given.values[0, base : base + held]
    for mark, old in zip(cache.marks, given.marks, strict=True):
        if mark.shape[-1] > 1:
            known = old.shape[-1] - given.max_len + length - 1  # a place more where they are counts
            mark[row, :, :known] = old[0, :, :known]
    cache.state[:RELEASED, row] = given.state[:RELEASED, 0]
    cache.lengths_tensor[row].fill_(length)


def _checked(cache: KVCache, given: KVCache) -> int:
    """Its tokens."""
    if instance("sequence", given, type(cache)).kernel != cache.kernel:
        raise CallError("expected a sequence of a cache that the same module made, got one of another pattern or dtype")
    if given.kv_dtype != cache.kv_dtype:
        raise CallError(f"expected a sequence stored as {cache.kv_dtype}, got one stored as {given.kv_dtype}")
    if given.batch_size != 1 or given.released:
        raise CallError(f"expected a cache of one sequence in use, got {given.batch_size}, {given.released} released")
    if given.rollback != cache.rollback or given.keys.device != cache.keys.device:
        raise CallError(
            f"expected a sequence with rollback {cache.rollback} on {cache.keys.device}, got rollback {given.rollback} "
            f"on {given.keys.device}"
        )
    length = given.length
    if length > cache.max_len and not cache.grows:
        raise CallError(f"expected a sequence of at most {cache.max_len} tokens, got {length}")
    return length


def _with_lists(kept: KeptLists, row: int, given: KeptLists, *, fixed: bool) -> KeptLists:
    """The lists with those of the only sequence of `given` in a row without any. Raises CallError, and changes nothing,
    where they are of a fixed size, and too small."""
    count = given.lists[0, :, COUNT].to("cpu", torch.int64)
    capacity = kept.lists[..., CAPACITY].to("cpu", torch.int64)
    if not fixed:
        capacity[row] = room_of(count)
        kept = relaid(kept, capacity)
    elif bool((count > capacity[row]).any()):
        raise CallError(
            f"expected a sequence with at most {capacity[row].tolist()} marked keys in each KV group, for which "
            f"keep(room=n) made room, got {count.tolist()}"
        )
    bases = kept.lists[row, :, BASE].tolist(), given.lists[0, :, BASE].tolist(), count.tolist()
    for to, start, keys in zip(*bases, strict=True):
        kept.keys[to : to + keys] = given.keys[start : start + keys]
        kept.values[to : to + keys] = given.values[start : start + keys]
        kept.entries[:, to : to + keys] = given.entries[:, start : start + keys]
    kept.lists[row, :, COUNT] = given.lists[0, :, COUNT]
    kept.record[:, row] = given.record[:, 0]
    kept.by_head |= given.by_head
    return kept

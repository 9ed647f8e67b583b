"""A KV cache -> the same with room for longer sequences.

Invariant: a region that has more slots in the longer cache has not wrapped around in the shorter one, for a ring is
short of its reach only where it has a slot for every key; so a key keeps its number within its region.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.runtime.devices import captured
from sparsec.runtime.kv.arena import arena, places_table, slots_for
from sparsec.runtime.kv.live import NOW
from sparsec.runtime.kv.ops import cache_tables

if TYPE_CHECKING:
    from sparsec.runtime.kv.cache import KVCache

FIRST = 64
"""Tokens that a cache which grows has room for when it is made, and beyond what doubling its room does not give."""


def room_after(max_len: int, needed: int) -> int:
    """The room of a cache of `max_len` tokens that needs more."""
    room = 2 * max_len if needed <= 2 * max_len else needed + FIRST
    return max(needed, min(room, POSITION_LIMIT - 1))


def grow_for(cache: KVCache, new: int, counts: Tensor | None) -> None:
    """Before a call of `new` tokens, `counts` of them its own. A captured call is left as it is: its cache has to have
    the room of all its replays."""
    if _needed(cache.state[NOW], new, counts) <= cache.max_len or captured(cache.keys.device):
        return
    needed = _needed(torch.tensor(cache.lengths), new, counts)  # by what the device says
    if needed > cache.max_len:
        resize(cache, room_after(cache.max_len, needed))


def _needed(lengths: Tensor, new: int, counts: Tensor | None) -> int:
    return int((lengths + (new if counts is None or not counts.is_cpu else counts)).max())


def resize(cache: KVCache, max_len: int) -> None:
    """Gives the cache room for sequences of `max_len` tokens; it is empty where that is less than before. Raises
    CallError, and changes nothing, for more slots than a cache may have."""
    layout, rollback, keys, values = cache.layout, cache.rollback, cache.keys, cache.values
    before, after = layout.places(cache.max_len, rollback), layout.places(max_len, rollback)
    slots = slots_for(layout, max_len, rollback)
    lists = cache_tables(cache.kernel, max_len, keys.device)
    if after != before:
        keys, values = (
            arena((cache.batch_size, slots, old.shape[2]), old.dtype, old.device) for old in (cache.keys, cache.values)
        )
        for (base, size), (target, room) in zip(chain(*before), chain(*after), strict=True):
            held = min(size, room)
            keys[:, target : target + held] = cache.keys[:, base : base + held]
            values[:, target : target + held] = cache.values[:, base : base + held]
        cache.places = places_table(layout, max_len, rollback).to(keys.device)
    more = 0, max_len - cache.max_len
    cache.marks = tuple(mark if mark.shape[-1] == 1 else pad(mark, more) for mark in cache.marks)
    cache.keys, cache.values, cache.lists, cache.max_len = keys, values, lists, max_len

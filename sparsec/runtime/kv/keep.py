"""`KVCache.keep`: marks taken away, the keys that nothing needs any more dropped, and their memory given back.

Invariant: what a later query may attend to, by the marks that are left and the other terms, is there afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsec.diagnostics.arguments import instance, integer
from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.band import Asks
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.bands.kept import WORD, KeptMarks
from sparsec.ir.bands.liveness import Region
from sparsec.ir.expr.evaluate import evaluate
from sparsec.plan.kv.cached import store_classes
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.launch import CachedLaunch
from sparsec.runtime.devices import captured
from sparsec.runtime.inputs.remembered import count_marks, marked, positions_kept
from sparsec.runtime.kernel import registered
from sparsec.runtime.kv.arena import arena, places_table
from sparsec.runtime.kv.lists import (
    CAPACITY,
    COUNT,
    DROPPED_AT,
    KeptLists,
    dense_words,
    has_any,
    relaid,
    room_for,
    signed,
    words_of,
)
from sparsec.runtime.kv.live import RELEASED
from sparsec.sema.model import InputDecl, InputKind

if TYPE_CHECKING:
    from sparsec.runtime.kv.cache import KVCache

ROOM_SHARE, ROOM_LEAST = 16, 8
"""Without a given room a list has room for a 16th of its entries, and 8, beyond these."""
GROWTH_SHARE = 8


@dataclass(frozen=True, slots=True)
class TokenMarks:
    """Of an input of kind tokens, of the keys that a cache has: bool [B, H, length]."""

    ordinal: int
    there: Tensor


def keep(cache: KVCache, name: str, marks: Tensor, room: int | None) -> None:
    loaded = registered(cache.kernel, cache.keys.device)
    declared = loaded.launch.declared
    number = token_input(declared, instance("name", name, str))
    room = None if room is None else integer("room", room, 0)
    of = loaded.kept.plan.kept
    assert of is not None, "kernels over lists say what these have"
    lengths = torch.tensor(cache.lengths)
    marks = _checked(cache, marks, loaded.launch.heads, loaded.launch.kv_heads, int(lengths.max()))
    there = marks_of_all(cache, of, declared, lengths)
    left = [each.there & marks if each.ordinal == number else each.there for each in there]
    _check_new(cache, of, number, marks, there, lengths)
    leave_marks(cache, there, left, lengths, room)


def leave_marks(
    cache: KVCache, there: tuple[TokenMarks, ...], left: list[Tensor], lengths: Tensor, room: int | None
) -> None:
    """Has a cache whose marks are `there` have those that are `left`, and no key that nothing needs any more."""
    loaded = registered(cache.kernel, cache.keys.device)
    declared, plan = loaded.launch.declared, loaded.kept.plan
    of = plan.kept
    assert of is not None, "kernels over lists say what these have"
    share, groups = of.share, left[0].shape[1] // of.share
    words = words_of(tuple(left), share, groups)
    needed = needed_for(of, words, lengths.to(words.device))
    needed &= cache.holds(torch.arange(words.shape[2], device=words.device))
    record = _record(cache, of, lengths)
    apart = any(bool((each.view(len(each), groups, share, -1) != each[:, ::share, None]).any()) for each in left)
    record[3] = record[3] | int(apart)
    lists = _compacted(cache, of, words, needed, record, room)
    if cache.kept is None:
        _lay_out_anew(cache, plan, lengths)
    _forget(cache, plan, declared, there, left)
    cache.kept, cache.room, lists.spare = lists, room, room or 0


def list_marked(cache: KVCache) -> None:
    """Lets a cache without lists have them, of all keys that are marked."""
    loaded = registered(cache.kernel, cache.keys.device)
    of, lengths = loaded.kept.plan.kept, torch.tensor(cache.lengths)
    assert of is not None, "kernels over lists say what these have"
    there = marks_there(cache, of, loaded.launch.declared, lengths)
    leave_marks(cache, there, [each.there for each in there], lengths, None)


def make_room(cache: KVCache, new: int) -> None:
    """Before a call of `new` keys: the lists of a cache that grow get room for as many more each.

    Where the cache does not grow, the kernels see to it that there is room, and a captured call changes nothing of what
    the host knows. Raises CallError for a captured call on a cache that grows.
    """
    kept = cache.kept
    assert kept is not None
    if captured(kept.keys.device):
        if cache.room is None:
            raise CallError(
                "expected a cache whose lists do not grow in a CUDA graph capture, got one after keep() without room=n"
            )
        return
    if kept.spare < new and cache.room is None:
        lists, released = kept.lists.to("cpu", torch.int64), cache.state[RELEASED, :, None] != 0
        count = lists[..., COUNT]
        kept.spare = int((lists[..., CAPACITY] - count).masked_fill(released, POSITION_LIMIT).min())
        if kept.spare < new:
            capacity = count + count // GROWTH_SHARE + new + ROOM_LEAST
            cache.kept = kept = relaid(kept, capacity.masked_fill(released, 0))
            kept.spare = new + ROOM_LEAST
    kept.sure = kept.spare >= new
    if kept.sure:
        kept.spare -= new


def token_input(declared: tuple[InputDecl, ...], name: str) -> int:
    known = ", ".join(input_.name for input_ in declared if input_.kind is InputKind.TOKENS)
    for n, input_ in enumerate(declared):
        if input_.name == name and input_.kind is InputKind.TOKENS:
            return n
    raise CallError(f"expected the name of an input of kind tokens ({known or 'there is none'}), got {name!r}")


def _checked(cache: KVCache, marks: Tensor, heads: int, kv_heads: int, length: int) -> Tensor:
    """The marks of each head, on the cache's device."""
    instance("marks", marks, Tensor)
    of_heads = marks[:, None] if marks.dim() == 2 else marks
    shape = tuple(of_heads.shape)
    fits = len(shape) == 3 and shape[0] in (1, cache.batch_size) and shape[1] in (1, kv_heads, heads)
    if marks.dtype != torch.bool or not fits or shape[2] != length:
        wanted = [cache.batch_size, f"1, {kv_heads} or {heads}", length]
        raise CallError(f"expected marks bool {wanted}, got {marks.dtype} {list(marks.shape)}")
    of_heads = of_heads.to(cache.keys.device)
    return of_heads.repeat_interleave(heads // shape[1], 1).expand(cache.batch_size, heads, length)


def marks_there(
    cache: KVCache, of: KeptMarks, declared: tuple[InputDecl, ...], lengths: Tensor
) -> tuple[TokenMarks, ...]:
    length, device = int(lengths.max()), cache.keys.device
    present = (torch.arange(length) < lengths[:, None])[:, None].to(device)
    by_position = positions_kept(declared, cache.marks)
    found = []
    words = None if cache.kept is None else dense_words(cache.kept, length)[0]
    for n, ordinal in enumerate(of.ordinals):
        counts = by_position[ordinal]
        if counts.shape[-1] > 1:
            marks = marked(counts, length)
        else:
            assert words is not None
            bits = torch.arange(n * of.share, (n + 1) * of.share, device=device)
            marks = (words[..., bits // WORD] >> bits % WORD & 1).bool().movedim(-1, 2).flatten(1, 2)
        found.append(TokenMarks(ordinal, marks & present))
    return tuple(found)


def marks_of_all(
    cache: KVCache, of: KeptMarks, declared: tuple[InputDecl, ...], lengths: Tensor
) -> tuple[TokenMarks, ...]:
    """The same, of keys that other ranks hold too."""
    there = marks_there(cache, of, declared, lengths)
    own = cache.holds(torch.arange(int(lengths.max()), device=cache.keys.device))
    return tuple(TokenMarks(each.ordinal, cache.of_all_ranks(each.there & own)) for each in there)


def _check_new(
    cache: KVCache, of: KeptMarks, number: int, marks: Tensor, there: tuple[TokenMarks, ...], lengths: Tensor
) -> None:
    """Raises CallError for a mark that was not there, of a key that has not been dropped."""
    n = of.ordinals.index(number)
    new = marks & ~there[n].there
    if cache.kept is not None:
        position = torch.arange(marks.shape[-1], device=marks.device)
        for head in range(marks.shape[1]):
            bit, needed = 1 << of.bit(n, head), torch.zeros_like(new[:, head])
            for need in of.needs[head // of.share]:
                if need.marks & bit:
                    needed |= seen_from(need.region, position, lengths.to(marks.device)[:, None])
            new[:, head] &= needed | (position >= lengths.to(marks.device)[:, None])
    new = cache.of_all_ranks(new & cache.holds(torch.arange(new.shape[-1], device=new.device)))
    if bool(new.any()):
        b, h, j = new.nonzero()[0].tolist()
        raise CallError(
            f"expected marks that were there before, got a new one of key {j} for head {h} of sequence {b}; "
            "nothing was dropped"
        )


def needed_for(of: KeptMarks, words: Tensor, lengths: Tensor) -> Tensor:
    """bool [B, G, length]: the keys that a later query may see for their marks."""
    position = torch.arange(words.shape[2], device=words.device)
    found = torch.zeros(words.shape[:3], dtype=torch.bool, device=words.device)
    for g, needs in enumerate(of.needs):
        for need in needs:
            found[:, g] |= has_any(words[:, g], need.marks) & seen_from(need.region, position, lengths[:, None])
    return found


def seen_from(region: Region, position: Tensor, lengths: Tensor) -> Tensor:
    """Whether a query from `lengths` on may see the positions in the region."""
    inside = position >= region.start
    if region.stop is not None:
        inside = inside & (position < region.stop)
    if (c := region.residue) is not None:
        assert isinstance(c.phase, int)
        inside = inside & ((position // c.unit - c.phase) % c.period < c.width)
    return inside & (True if region.reach is None else position + region.reach > lengths)


def _record(cache: KVCache, of: KeptMarks, lengths: Tensor) -> Tensor:
    if cache.kept is None:
        record = torch.stack([cache.state[1], lengths, torch.zeros_like(lengths), torch.zeros_like(lengths)])
    else:
        record = cache.kept.record.clone()
    if any(need.region.reach is not None for needs in of.needs for need in needs):
        record[DROPPED_AT] = lengths
    return record


def room_of(count: Tensor) -> Tensor:
    """The entries that lists of `count` keys get where nobody says how many."""
    return count + count // ROOM_SHARE + ROOM_LEAST


def _compacted(
    cache: KVCache, of: KeptMarks, words: Tensor, needed: Tensor, record: Tensor, room: int | None
) -> KeptLists:
    count = needed.sum(-1).cpu()
    capacity = room_of(count).masked_fill(cache.state[RELEASED, :, None] != 0, 0) if room is None else count + room
    base = capacity.flatten().cumsum(0).reshape(capacity.shape) - capacity
    lists = torch.stack([base, capacity, count], -1).to(torch.int32).to(cache.keys.device)
    found = room_for(of, int(capacity.sum()), cache.keys, cache.values, lists, record)
    b, g, j = needed.nonzero(as_tuple=True)
    nth = needed.cumsum(-1)[b, g, j] - 1
    target = base.to(b.device)[b, g] + nth
    found.keys[target], found.values[target] = held_at(cache, b, g, j, needed.shape[2])
    found.entries[0, target] = j.to(torch.int32)
    found.entries[1:, target] = signed(words[b, g, j]).T
    return found


def held_at(cache: KVCache, b: Tensor, g: Tensor, j: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The keys and values of positions j, below `length`, in groups g of sequences b; it has them all."""
    if cache.kept is None:
        slot = _slots(cache.layout, cache.places, length, stored=True)[g, j]
        return cache.keys[b, slot], cache.values[b, slot]
    entry = dense_words(cache.kept, length)[1][b, g, j]
    return cache.kept.keys[entry], cache.kept.values[entry]


def _lay_out_anew(cache: KVCache, plan: CachedLaunch, lengths: Tensor) -> None:
    """Moves the keys that are not for their marks alone to the regions of the layout beside the lists."""
    layout, device = plan.layout, cache.keys.device
    slots = layout.slots(cache.max_len, cache.rollback)
    places = places_table(layout, cache.max_len, cache.rollback).to(device)
    keys, values = (
        arena((cache.batch_size, slots, old.shape[2]), old.dtype, device) for old in (cache.keys, cache.values)
    )
    old = _slots(cache.layout, cache.places, int(lengths.max()), stored=True)
    for b, length in enumerate(lengths.tolist()):
        new = _slots(layout, places, length, stored=False)
        g, j = ((new >= 0) & (old[:, :length] >= 0)).nonzero(as_tuple=True)
        keys[b, new[g, j]] = cache.keys[b, old[g, j]]
        values[b, new[g, j]] = cache.values[b, old[g, j]]
    cache.keys, cache.values, cache.places, cache.layout = keys, values, places, layout
    cache.state[1] = cache.state[0]


def _slots(layout: CacheLayout, places: Tensor, length: int, *, stored: bool) -> Tensor:
    """int64 [G, length]: where each key of a group lies or, before it is `stored`, where it goes in a sequence of that
    length; negative where it does not."""
    found = torch.empty((len(layout.groups), length), dtype=torch.int64, device=places.device)
    position = torch.arange(length, device=places.device)
    for of in store_classes(layout):
        for n, group in enumerate(of.groups):
            names: dict[str, int | Tensor] = {name: values[n] for name, values in of.constants}
            names |= {"j": position, "stop": length}
            for r, (base, slots) in enumerate(places[group].tolist()):
                names |= {f"base{r}": base, f"capacity{r}": slots}
            found[group] = evaluate(of.slots.slot if stored else of.slots.kept, names, {})
    return found


def _forget(
    cache: KVCache,
    plan: CachedLaunch,
    declared: tuple[InputDecl, ...],
    there: tuple[TokenMarks, ...],
    left: list[Tensor],
) -> None:
    """Leaves of the marks by position those that kernels look up."""
    asked = {test.ordinal for test in plan.chunks.inputs if test.asks is Asks.MARKED}
    kept, numbers = list(cache.marks), list(positions_kept(declared, cache.marks))
    for each, marks in zip(there, left, strict=True):
        n = numbers.index(each.ordinal)
        if each.ordinal not in asked:
            kept[n] = cache.marks[n][..., :1].clone()
        else:
            kept[n] = cache.marks[n].clone()
            count_marks(kept[n], marks)
    cache.marks = tuple(kept)

"""`KVCache.merge`: groups of marked keys -> one key each, their mean, that weighs as much as they do together.

Invariant: a merged key stands for the same tokens however often keys are merged: its key and value are the means over
these, and its weight is the logarithm of the sum of exp(weight) over these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsec.diagnostics.arguments import instance, integer
from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.kept import KeptMarks
from sparsec.plan.kv.layout import CacheLayout
from sparsec.runtime.inputs.remembered import positions_kept
from sparsec.runtime.kernel import registered
from sparsec.runtime.kv.keep import held_at, leave_marks, marks_of_all, needed_for, seen_from, token_input
from sparsec.runtime.kv.lists import DROPPED_AT, dense_words, has_any, words_of
from sparsec.runtime.kv.stored import from_stored, to_stored

if TYPE_CHECKING:
    from sparsec.runtime.kv.cache import KVCache


@dataclass(frozen=True, slots=True)
class _Groups:
    """Keys that become one. b, g, j: sequence, KV group and position of each of them. number: its group of keys. last:
    by number, which of these keys comes last."""

    b: Tensor
    g: Tensor
    j: Tensor
    number: Tensor
    last: Tensor


def merge(cache: KVCache, name: str, groups: Tensor, room: int | None) -> None:
    loaded = registered(cache.kernel, cache.keys.device)
    declared, bias = loaded.launch.declared, loaded.launch.score.bias
    number = token_input(declared, instance("name", name, str))
    room = None if room is None else integer("room", room, 0)
    if bias is None:
        raise CallError("expected a pattern with key_bias, which says how much a merged key weighs, got one without")
    loaded.kept  # noqa: B018  # it raises where there are no such kernels
    plan = cache.plan_of_all
    of = plan.kept
    assert of is not None, "kernels over lists say what these have"
    if of.apart:
        raise CallError(
            f"expected marked keys that the pattern sees alike, got `{of.apart[0]}`, which tells them apart"
        )
    lengths = torch.tensor(cache.lengths)
    found = _grouped(_labels(cache, groups, loaded.launch.kv_heads, int(lengths.max())), lengths)
    there = marks_of_all(cache, of, declared, lengths)
    words = words_of(tuple(each.there for each in there), of.share, loaded.launch.kv_heads)
    _check_alike(name, found, of, plan.layout, words, lengths.to(words.device), of.ordinals.index(number))
    weights = positions_kept(declared, cache.marks)[bias]
    merged = _merged(cache, found, _weights(found, weights, of.share), words.shape[2])
    goes = torch.ones_like(found.j, dtype=torch.bool)
    goes[found.last] = False
    left = []
    for each in there:
        stays = each.there.clone()
        _of_groups(stays, of.share)[found.b[goes], found.g[goes], :, found.j[goes]] = False
        left.append(stays)
    leave_marks(cache, there, left, lengths, room)
    _put(cache, found, merged, bias, of.share)


def _of_groups(of_heads: Tensor, share: int) -> Tensor:
    """A view [B, G, share, N] of [B, H, N]."""
    batch, heads, length = of_heads.shape
    return of_heads.view(batch, heads // share, share, length)


def _labels(cache: KVCache, groups: Tensor, kv_heads: int, length: int) -> Tensor:
    instance("groups", groups, Tensor)
    labels = groups[:, None] if groups.dim() == 2 else groups
    shape = tuple(labels.shape)
    fits = len(shape) == 3 and shape[0] in (1, cache.batch_size) and shape[1] in (1, kv_heads) and shape[2] == length
    if labels.dtype not in (torch.int32, torch.int64) or not fits:
        wanted = [cache.batch_size, f"1 or {kv_heads}", length]
        raise CallError(f"expected groups int32 or int64 {wanted}, got {groups.dtype} {list(groups.shape)}")
    return labels.to(cache.keys.device, torch.int64).expand(cache.batch_size, kv_heads, length)


def _grouped(labels: Tensor, lengths: Tensor) -> _Groups:
    """The labelled keys of each sequence, of `lengths` keys."""
    inside = torch.arange(labels.shape[2]) < lengths[:, None, None]
    b, g, j = ((labels >= 0) & inside.to(labels.device)).nonzero(as_tuple=True)
    own = torch.stack([b, g, labels[b, g, j]])
    number: Tensor = own.unique(dim=1, return_inverse=True)[1]  # type: ignore[no-untyped-call]  # torch leaves it untyped
    count = int(number.max()) + 1 if len(number) else 0
    nth = torch.arange(len(number), device=number.device)
    last = torch.zeros(count, dtype=torch.int64, device=number.device).scatter_reduce_(0, number, nth, "amax")
    return _Groups(b, g, j, number, last)


def _check_alike(
    name: str, found: _Groups, of: KeptMarks, layout: CacheLayout, words: Tensor, lengths: Tensor, nth: int
) -> None:
    """Raises CallError unless the keys of a group have the same marks, one of the nth input, `name`, among them, and
    are seen for these alone and by the same terms. layout: of what is seen anyway. words: [B, G, length, words]."""
    b, g, j = found.b, found.g, found.j
    named = (1 << of.share) - 1 << nth * of.share
    marked = has_any(words[b, g, j], named) & needed_for(of, words, lengths)[b, g, j]
    _raise_at(~marked, found, f"expected groups of keys that `{name}` marks and a later query may see, got another")
    first = found.last[found.number]
    other = (words[b, g, j] != words[b[first], g[first], j[first]]).any(-1)
    apart, beside = torch.zeros_like(marked), torch.zeros_like(marked)
    for group, needs in enumerate(of.needs):
        of_group = g == group
        for need in needs:
            seen = seen_from(need.region, j, lengths[b])
            apart |= of_group & (seen != seen[first])
        for region in layout.groups[group]:
            beside |= of_group & seen_from(region, j, lengths[b])
    _raise_at(
        other, found, "expected groups of keys with the same marks, got one with others than the last of its group"
    )
    _raise_at(apart, found, "expected groups of keys that the same terms see, got one that is seen by others")
    _raise_at(
        beside, found, "expected groups of keys that later queries see for their marks alone, got one they see anyway"
    )


def _raise_at(wrong: Tensor, found: _Groups, message: str) -> None:
    if bool(wrong.any()):
        n = int(wrong.nonzero()[0])
        at = f"key {int(found.j[n])} for KV group {int(found.g[n])} of sequence {int(found.b[n])}"
        raise CallError(f"{message}, {at}; nothing was merged")


def _weights(found: _Groups, weights: Tensor, share: int) -> Tensor:
    """float32, of each key. Raises CallError where the heads of a KV group do not have it in common."""
    of_heads = _of_groups(weights, share)[found.b, found.g, :, found.j]
    _raise_at(
        (of_heads != of_heads[:, :1]).any(1),
        found,
        "expected weights that the heads of a KV group have in common, got several",
    )
    return of_heads.select(1, 0)


@dataclass(frozen=True, slots=True)
class _Merged:
    """Of each group of keys."""

    keys: Tensor
    values: Tensor
    weights: Tensor


def _merged(cache: KVCache, found: _Groups, weights: Tensor, length: int) -> _Merged:
    own = cache.holds(found.j)
    keys, values = held_at(cache, found.b[own], found.g[own], found.j[own], length)
    wide, kv_dtype = torch.float64 if keys.dtype == torch.float64 else torch.float32, keys.dtype
    count, number = len(found.last), found.number
    most = weights.new_full((count,), -torch.inf).scatter_reduce_(0, number, weights, "amax")
    shares = (weights - most.nan_to_num(neginf=0)[number]).exp().to(wide)
    sums = shares.new_zeros(count).index_add_(0, number, shares)
    shares = torch.where(shares > 0, shares / sums[number], 0)[:, None]
    means = []
    for each in (from_stored(keys, wide), from_stored(values, wide)):
        parts = torch.where(shares[own] > 0, each * shares[own], 0)  # a key of no weight may hold anything
        sums_of_keys = parts.new_zeros((count, each.shape[1])).index_add_(0, number[own], parts)
        means.append(to_stored(cache.of_all_ranks(sums_of_keys), kv_dtype))
    return _Merged(means[0], means[1], (most.nan_to_num(neginf=0).to(wide) + sums.log()).to(torch.float32))


def _put(cache: KVCache, found: _Groups, merged: _Merged, bias: int, share: int) -> None:
    """Puts merged keys in the place of the last of each group, which alone is still in its list."""
    kept = cache.kept
    assert kept is not None
    b, g, j = (each[found.last] for each in (found.b, found.g, found.j))
    own = cache.holds(j)
    entry = dense_words(kept, max(cache.lengths))[1][b[own], g[own], j[own]]
    kept.keys[entry], kept.values[entry] = merged.keys[own], merged.values[own]
    kept.record[DROPPED_AT, b.cpu()] = torch.tensor(cache.lengths)[b.cpu()]
    declared = registered(cache.kernel, cache.keys.device).launch.declared
    weights = positions_kept(declared, cache.marks)[bias].clone()
    _of_groups(weights, share)[b, g, :, j] = merged.weights[:, None].expand(-1, share)
    place = list(positions_kept(declared, cache.marks)).index(bias)
    cache.marks = (*cache.marks[:place], weights, *cache.marks[place + 1 :])

"""`RankCache`: the keys and values of a KV cache that one rank holds, of a sequence that several ranks hold together.

Invariant: the ranks of `group` hold each key that a later query may need once, and have taken in as many tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from sparsec.backends.room import check_room
from sparsec.diagnostics.model import CallError
from sparsec.distributed.holders import part_of_rank, run_length
from sparsec.distributed.inputs import check_whole
from sparsec.distributed.merging import merged_over_ranks, sum_over_ranks
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.launch import CachedLaunch
from sparsec.runtime.call_tensors import counts_of
from sparsec.runtime.inputs.checks import InputTensors, flat_inputs
from sparsec.runtime.inputs.remembered import remember
from sparsec.runtime.kernel import registered
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.live import NOW, RELEASED, without_released
from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import InputKind
from sparsec.sema.shapes import Sizes


class RankCache(KVCache):
    """Made by `new_cache` of `SparseAttention.parallel`, and filled by calling that with `cache=`.

    Every rank has to do the same with its own: `keep` and `merge` take the marks and groups of all keys, and say the
    same on every rank. What a `KVCache` says of its memory (`layout`, `keys`, `nbytes`) is of
    this rank's part; lengths, and what `truncate` can take back, are of the whole sequences.
    Further attributes: `of_all` (the layout of one process with all keys), `run` (positions that a rank holds in a row:
    key j is rank `j // run % ranks`'s), `module` (attention to this rank's keys), `of` (the module that it is a part
    of), and `group`.
    """

    of: str
    module: SparseAttention
    run: int
    group: ProcessGroup
    of_all: CacheLayout

    @classmethod
    def sharing(
        cls, part: KVCache, attn: SparseAttention, module: SparseAttention, run: int, group: ProcessGroup
    ) -> RankCache:
        """A cache of `module`, as one rank's part of a cache of `attn`."""
        found = cls.__new__(cls)
        found.__dict__ |= part.__dict__
        found.of, found.of_all = attn.kernel_digest, attn.layout
        found.module, found.run, found.group = module, run, group
        return found

    @property
    def layouts(self) -> tuple[CacheLayout, CacheLayout]:
        """Of the whole sequences, so that every rank says the same: a rank's part has what these have."""
        return self.of_all if self.kept is None else self.plan_of_all.layout, self.of_all

    @property
    def plan_of_all(self) -> CachedLaunch:
        return registered(self.of, self.keys.device).kept.plan

    def holds(self, position: Tensor) -> Tensor:
        return position // self.run % dist.get_world_size(self.group) == dist.get_rank(self.group)

    def of_all_ranks(self, own: Tensor) -> Tensor:
        return sum_over_ranks(own, self.group)


def rank_cache(
    attn: SparseAttention,
    group: ProcessGroup,
    batch_size: int,
    max_len: int | None,
    rollback: int,
    device: torch.device | str | None,
) -> RankCache:
    """An empty one. Raises CallError, and DiagnosticError for a pattern that no cache serves."""
    attn.layout  # noqa: B018  # it raises
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    run = run_length(attn.lowered.pattern, ranks)
    module = part_of_rank(attn, run, rank, ranks)
    made = module.new_cache(batch_size, max_len, rollback=rollback, device=device)
    return RankCache.sharing(made, attn, module, run, group)


def tokens_of_all(cache: KVCache, replicated: bool | None) -> bool:
    """Whether a call's tokens are those of every rank, and not shares of a prompt. Raises CallError."""
    begun = bool(cache.state[NOW].any())
    if replicated is False and begun:
        raise CallError("expected tokens that every rank gives for a cache with tokens, got replicated=False")
    return begun or bool(replicated)


def check_without_cache(lengths: object, replicated: object) -> None:
    """Raises CallError for what is a cache's alone."""
    if lengths is not None or replicated is not None:
        raise CallError("expected lengths and replicated with a cache alone, got them without one")


def begin_prompt(
    cache: RankCache,
    q: Tensor,
    k: Tensor,
    given: Mapping[str, InputTensors],
    lengths: Tensor | Sequence[int] | None,
    tokens: int,
) -> list[int]:
    """Before a prompt of so many tokens: makes room, and stores what inputs say of its keys. Returns how many tokens
    each sequence has. Raises CallError, with nothing written."""
    counts = torch.full((len(q),), tokens, dtype=torch.int32)
    if lengths is not None:
        counts = counts_of(lengths, len(q), q.device).cpu()
    own = without_released(counts.tolist(), cache.state[RELEASED].tolist(), asked=lengths is not None)
    if min(own) < 0 or max(own) > tokens:
        raise CallError(f"expected lengths from 0 to {tokens} for {len(q)} sequences, got {own}")
    cache.check_call(cache.kernel, q, k)
    if cache.kept is not None:
        raise CallError("expected a cache without lists of `keep` for a prompt in shares; make another by new_cache")
    declared = cache.module.inputs
    check_whole(declared, set(own), tokens)
    sizes = Sizes(len(q), cache.module.heads, cache.module.kv_heads, q.shape[2], tokens, tokens, None)
    flat = flat_inputs(declared, given, sizes, q) if declared else []
    cache.make_room(tokens, torch.tensor(own, dtype=torch.int32))
    check_room([0] * len(own), own, cache.max_len)
    if cache.marks:
        remember(declared, flat, cache.marks, cache.lengths_tensor, torch.tensor(own, dtype=torch.int32))
    return own


def count_tokens(cache: RankCache, counts: Sequence[int]) -> None:
    """After `begin_prompt`, and the storing of the keys."""
    cache.state[NOW] = cache.state[NOW + 1] = torch.tensor(counts)
    cache.lengths_tensor.copy_(cache.state[NOW])


def attended_by_all(
    cache: RankCache,
    sink: Tensor | None,
    qkv: tuple[Tensor, Tensor, Tensor],
    lengths: Tensor | Sequence[int] | None,
    inputs: Mapping[str, InputTensors] | None,
) -> tuple[Tensor, Tensor]:
    """Output and LSE of tokens that every rank has, and stores those that it holds of."""
    own = {} if cache.module.sink is None or sink is None else {"sink": sink.detach()}
    inputs = _own_marks(cache, lengths, inputs, qkv[1].shape[2])
    more = {"cache": cache, "lengths": lengths, "inputs": inputs, "return_lse": True}
    out, lse = torch.func.functional_call(cache.module, own, qkv, more)
    return merged_over_ranks(out, lse, cache.group)


def _own_marks(
    cache: RankCache,
    lengths: Tensor | Sequence[int] | None,
    inputs: Mapping[str, InputTensors] | None,
    new: int,
) -> Mapping[str, InputTensors] | None:
    """The inputs with marks of this rank's keys alone, so that its lists get no others. Where the lists have a room,
    the marks stay as they are: then all ranks find at the same call that it is too small."""
    if cache.kept is None or cache.room is not None or inputs is None:
        return inputs
    batch, device = cache.batch_size, cache.keys.device
    counts = torch.full((batch,), new, device=device) if lengths is None else counts_of(lengths, batch, device)
    place = torch.arange(new, device=device) - (new - counts.to(device))[:, None] + cache.lengths_tensor[:, None]
    own = cache.holds(place)
    found = dict(inputs)
    for decl in cache.module.inputs:
        marks = inputs.get(decl.name)
        if decl.kind is InputKind.TOKENS and isinstance(marks, Tensor) and marks.dtype == torch.bool:
            if marks.dim() == 2 and marks.shape[-1] == new:
                found[decl.name] = marks & own
            elif marks.dim() == 3 and marks.shape[-1] == new:
                found[decl.name] = marks & own[:, None]
    return found

"""Attention over a sequence that ranks hold, by heads: two all-to-alls, between which each rank has all tokens of some
heads (DeepSpeed-Ulysses, Jacobs et al. 2023); within a part of a sequence, such ranks share that part's tokens.

Invariant: ranks hold tokens in order, and heads in order; of fewer KV groups than ranks, neighbours have the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from sparsec.analysis.cost import ITEM_BYTES
from sparsec.diagnostics.arguments import instance
from sparsec.diagnostics.model import CallError
from sparsec.distributed.exchange import exchange_of
from sparsec.distributed.head_inputs import of_all_tokens, of_own_heads
from sparsec.distributed.held import HeldTokens, RankPlan, packed
from sparsec.distributed.inputs import Given, InputTensors, check_kinds, check_whole, inputs_by_name
from sparsec.distributed.merging import heads_of_ranks
from sparsec.distributed.rank_attention import RankAttention
from sparsec.distributed.rank_cache import RankCache, check_without_cache, tokens_of_all
from sparsec.distributed.report import TrafficReport
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.ops import refuse_derivatives
from sparsec.runtime.module import SparseAttention

if TYPE_CHECKING:
    from sparsec.distributed.planning import Plan

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class HeadPlan(RankPlan):
    """Ranks of the group of `held` that hold the tokens of a sequence, or of one part of it, and share its heads.

    work: of each query head. inner: the plan of the parts, where the ranks hold one part of several (None: the whole).
    """

    has_documents: bool
    work: tuple[int, ...]
    inner: Plan | None = None
    documents: tuple[int, ...] = ()

    def for_documents(self, cu_seqlens: Tensor | Sequence[int]) -> HeadPlan:
        """As `Plan.for_documents`."""
        if self.inner is not None:
            return replace(self, inner=self.inner.for_documents(cu_seqlens))
        return replace(self, documents=packed(cu_seqlens, self.held.length, self.has_documents))

    @cached_property
    def spans(self) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """The query heads, and the KV groups, of each rank."""
        ranks, at = self.held.sharing, self.geometry
        own = max(at.kv_heads // ranks, 1)
        first = [rank * at.kv_heads // ranks for rank in range(ranks)]
        heads = tuple((rank * at.heads // ranks, (rank + 1) * at.heads // ranks) for rank in range(ranks))
        return heads, tuple((group, group + own) for group in first)

    def report(self) -> TrafficReport:
        """Bytes that each rank sends in a forward pass: queries, keys and values, and outputs back; of the ranks that
        share heads. `by_group`: of keys and values alone."""
        at, item = self.geometry, ITEM_BYTES[self.geometry.dtype]
        tokens = np.array(self.held.sharers)
        ranks = len(tokens)
        heads = at.heads // ranks
        groups = self.spans[1]
        of_rank = heads * at.head_dim + (groups[0][1] - groups[0][0]) * (at.head_dim + at.value_dim)
        sent = tokens * (ranks - 1) * of_rank + (tokens.sum() - tokens) * heads * at.value_dim
        others = [sum(first <= group < last for first, last in groups) for group in range(at.kv_heads)]
        own = [sum(int(tokens[r]) for r, (a, b) in enumerate(groups) if a <= group < b) for group in range(at.kv_heads)]
        by_group = [(int(tokens.sum()) * others[g] - own[g]) * at.slot_bytes for g in range(at.kv_heads)]
        work = [sum(self.work[a:b]) for a, b in self.spans[0]]
        most = int(tokens.max())
        return TrafficReport(
            tokens=tuple(tokens.tolist()),
            chunks=len(self.chunks),
            sent=tuple((sent * item).tolist()),
            received=tuple(
                int((tokens.sum() - n) * of_rank + n * (ranks - 1) * heads * at.value_dim) * item for n in tokens
            ),
            by_group=tuple(by_group),
            all_gather=most * (ranks - 1) * at.kv_heads * at.slot_bytes,
            ulysses=int(sent.max()) * item,
            peers=ranks - 1,
            imbalance=max(work) / max(sum(work) / len(work), 1),
        )

    def over(self, attn: SparseAttention, *, overlap: bool = False) -> HeadParallelAttention:
        """`attn` on this rank's part of a sequence. Raises CallError."""
        if overlap:
            raise CallError("expected no overlap where heads are dealt out, got overlap=True")
        return HeadParallelAttention(attn, self)


class HeadParallelAttention(RankAttention):
    """Made by `SparseAttention.parallel`; `attn`, whose parameters are this module's too, and `plan`."""

    def __init__(self, attn: SparseAttention, plan: HeadPlan) -> None:
        super().__init__()
        plan.held.check_made_of(attn, plan.made_from)
        check_kinds(attn.inputs, attn.lowered.pattern.documents)
        if attn.documents and not (plan.documents or plan.inner is not None):
            raise CallError("expected a plan for documents, since the pattern has some: plan.for_documents(cu_seqlens)")
        self.attn, self.plan = attn, plan
        part = attn.shard(plan.held.share, plan.held.sharing)
        self._part = (part if plan.inner is None else plan.inner.over(part),)  # in a tuple: its parameters are of attn

    def new_cache(
        self,
        batch_size: int = 1,
        max_len: int | None = None,
        *,
        rollback: int = 0,
        device: torch.device | str | None = None,
    ) -> KVCache:
        """An empty cache for this rank's heads, and of the keys that it holds of them, as of
        `ParallelAttention.new_cache`."""
        (part,) = self._part
        return part.new_cache(batch_size, max_len, rollback=rollback, device=device)

    def _attended(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        inputs: Mapping[str, InputTensors] | None,
        cache: KVCache | None,
        lengths: Tensor | Sequence[int] | None,
        replicated: bool | None,
        with_lse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        plan = self.plan
        queries, groups = plan.spans
        more: dict[str, Any] = {"return_lse": True}
        if cache is not None:
            instance("cache", cache, KVCache if plan.inner is None else RankCache)
        shares = cache is None or not tokens_of_all(cache, replicated)
        if cache is not None:
            refuse_derivatives(q, k, v, self.attn.sink)
            more |= {"cache": cache, "lengths": lengths}
            if plan.inner is not None:
                more["replicated"] = not shares
        else:
            check_without_cache(lengths, replicated)
        if shares:
            plan.held.check_tokens(q, k, v)
        self.attn._tensors.check(q, k, v)  # before heads are dealt out, so that no rank waits for one that refuses
        if shares:
            own = [_deal(each, spans, plan.held) for each, spans in ((q, queries), (k, groups), (v, groups))]
        else:
            mine = [slice(*spans[plan.held.share]) for spans in (queries, groups, groups)]
            own = [each[:, span] for each, span in zip((q, k, v), mine, strict=True)]
        if self.attn.inputs:
            more["inputs"] = self._inputs(inputs_by_name(self.attn.inputs, inputs), cache, lengths, shares)
        elif inputs:
            inputs_by_name((), inputs)
        if plan.documents:
            more["cu_seqlens"] = torch.tensor(plan.documents, dtype=torch.int32, device=q.device)
        (part,) = self._part
        first, last = queries[plan.held.share]
        sink = {} if self.attn.sink is None else {"sink": self.attn.sink[first:last]}
        if plan.inner is not None:
            sink = {f"attn.{name}": each for name, each in sink.items()}
        out, lse = torch.func.functional_call(part, sink, tuple(own), more)
        if not shares:
            return heads_of_ranks(out, lse, plan.held.sharing_group)
        out = _deal_back(out, queries, plan.held)
        return out, _deal_back(lse.unsqueeze(-1), queries, plan.held).squeeze(-1) if with_lse else None

    def _inputs(
        self,
        given: Mapping[str, InputTensors],
        cache: KVCache | None,
        lengths: Tensor | Sequence[int] | None,
        shares: bool,
    ) -> Given:
        """Those of this rank's heads and, of shares of a sequence, of all tokens that it then has. Raises CallError."""
        plan, declared, at = self.plan, self.attn.inputs, self.plan.geometry
        if shares:
            whole = ((0, plan.held.length),) if plan.inner is None else plan.inner.chunks
            given = of_all_tokens(declared, given, plan.held, whole)
            if cache is not None and lengths is not None and plan.inner is None:
                counts = set(torch.as_tensor(lengths).tolist())
                check_whole(declared, counts, plan.held.length)
        queries, groups = plan.spans
        return of_own_heads(
            declared, given, (at.heads, at.kv_heads), (queries[plan.held.share], groups[plan.held.share])
        )


def _deal(x: Tensor, spans: tuple[Span, ...], held: HeldTokens) -> Tensor:
    """[B, heads, this rank's tokens, D] -> [B, its span of heads, the tokens of all, D]."""
    return _Deal.apply(x, spans, held)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves it untyped


def _deal_back(x: Tensor, spans: tuple[Span, ...], held: HeldTokens) -> Tensor:
    """The other way; of a head that several ranks have, the sum."""
    return _DealBack.apply(x, spans, held)  # type: ignore[no-any-return, no-untyped-call]  # likewise


class _Deal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, spans: tuple[Span, ...], held: HeldTokens) -> Tensor:
        ctx.spans, ctx.held = spans, held
        return _to_heads(x, spans, held)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _to_tokens(gradients[0], ctx.spans, ctx.held), None, None


class _DealBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, spans: tuple[Span, ...], held: HeldTokens) -> Tensor:
        ctx.spans, ctx.held = spans, held
        return _to_tokens(x, spans, held)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _to_heads(gradients[0], ctx.spans, ctx.held), None, None


def _to_heads(x: Tensor, spans: tuple[Span, ...], held: HeldTokens) -> Tensor:
    batch, _, _, dim = x.shape
    rows = x.permute(2, 0, 1, 3)
    heads = spans[held.share][1] - spans[held.share][0]
    shapes = [(tokens, batch, heads, dim) for tokens in held.sharers]
    return torch.cat(_swap([rows[:, :, first:last] for first, last in spans], shapes, held.sharing_group)).permute(
        1, 2, 0, 3
    )


def _to_tokens(x: Tensor, spans: tuple[Span, ...], held: HeldTokens) -> Tensor:
    batch, _, _, dim = x.shape
    parts = x.permute(2, 0, 1, 3).split(list(held.sharers))  # type: ignore[no-untyped-call]  # torch leaves it untyped
    tokens = held.sharers[held.share]
    came = _swap(parts, [(tokens, batch, last - first, dim) for first, last in spans], held.sharing_group)
    whole = x.new_zeros((tokens, batch, spans[-1][1], dim))
    for part, (first, last) in zip(came, spans, strict=True):
        whole[:, :, first:last] += part
    return whole.permute(1, 2, 0, 3)


def _swap(parts: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], group: ProcessGroup) -> list[Tensor]:
    """Sends parts[r] to rank r, and gives what came, of shape shapes[r] from rank r."""
    sent = torch.cat([part.reshape(-1) for part in parts])
    counts = [int(np.prod(shape)) for shape in shapes]
    came = sent.new_empty(sum(counts))
    with exchange_of("heads", group):
        dist.all_to_all_single(came, sent, counts, [part.numel() for part in parts], group)
    return [each.view(shape) for each, shape in zip(torch.split(came, counts), shapes, strict=True)]

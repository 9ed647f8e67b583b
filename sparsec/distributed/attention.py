"""`ParallelAttention`: a compiled pattern on one rank's part of a sequence, whose other parts other ranks hold.

Invariant: outputs, log-sum-exps and gradients are those of one process with the whole sequence, but for rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Literal, assert_never

import torch
from torch import Tensor

from sparsec.diagnostics.arguments import instance
from sparsec.diagnostics.model import CallError
from sparsec.distributed.exchange import OnTheWay, exchanged, unflat
from sparsec.distributed.inputs import (
    Given,
    HeldPiece,
    InputTensors,
    check_kinds,
    of_piece,
    of_sequences,
    with_keys_of_all,
)
from sparsec.distributed.merging import merged_by_lse
from sparsec.distributed.needs import Piece
from sparsec.distributed.packing import FAR, PackedRows, over_far_keys, over_near_keys
from sparsec.distributed.planning import Plan
from sparsec.distributed.prompt import store_shares
from sparsec.distributed.rank_attention import RankAttention
from sparsec.distributed.rank_cache import (
    RankCache,
    attended_by_all,
    begin_prompt,
    check_without_cache,
    count_tokens,
    rank_cache,
    tokens_of_all,
)
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.ops import refuse_derivatives
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.within import by_keys, from_a_key, without_documents
from sparsec.sema.model import Documents


class ParallelAttention(RankAttention):
    """Made by `SparseAttention.parallel`; `attn`, whose parameters are this module's too, and `plan`.

    overlap: whether the keys of a chunk are attended to by its own queries while those of other ranks are on their way;
    the two results are then joined by their LSE.
    """

    def __init__(self, attn: SparseAttention, plan: Plan, *, overlap: bool = False) -> None:
        super().__init__()
        plan = instance("plan", plan, Plan)
        plan.held.check_made_of(attn, plan.made_from)
        self.attn, self.plan = attn, plan
        self._documents = attn.lowered.pattern.documents
        check_kinds(attn.inputs, self._documents)
        if attn.documents and not plan.traffic.documents:
            raise CallError("expected a plan for documents, since the pattern has some: plan.for_documents(cu_seqlens)")
        if overlap and attn.documents:
            raise CallError("expected no overlap for a pattern with documents, got overlap=True")
        self._by_keys = by_keys(attn) if overlap else None  # no submodule: its parameters are those of attn
        self._variants: dict[tuple[int | str, ...], SparseAttention] = {}  # of the same parameters
        self._module("")

    def of_plan(self, plan: Plan) -> ParallelAttention:
        """The same by another plan of the pattern, with the kernels that this one has."""
        plan.held.check_made_of(self.attn, plan.made_from)
        found = copy(self)
        found.plan = plan
        return found

    def new_cache(
        self,
        batch_size: int = 1,
        max_len: int | None = None,
        *,
        rollback: int = 0,
        device: torch.device | str | None = None,
    ) -> RankCache:
        """This rank's part of an empty cache: as of `SparseAttention.new_cache`, of which every rank has about an equal
        share. Every rank has to call it. Plans of other lengths on the same ranks may use it too. Raises likewise."""
        return rank_cache(self.attn, self.plan.held.group, batch_size, max_len, rollback, device)

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
    ) -> tuple[Tensor, Tensor]:
        if cache is not None:
            return self._over_cache(q, k, v, inputs, cache, lengths, replicated)
        check_without_cache(lengths, replicated)
        plan = self.plan
        plan.held.check_tokens(q, k, v)
        if self._documents is not Documents.NONE and q.shape[0] != 1:
            raise CallError(f"expected batch 1 with documents, got {q.shape[0]}")
        return self._of_shares(q, k, v, with_keys_of_all(self.attn.inputs, inputs, plan), plan)

    def _over_cache(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        inputs: Mapping[str, InputTensors] | None,
        cache: KVCache,
        lengths: Tensor | Sequence[int] | None,
        replicated: bool | None,
    ) -> tuple[Tensor, Tensor]:
        attn, plan = self.attn, self.plan
        cache = instance("cache", cache, RankCache)
        if cache.of != attn.kernel_digest or cache.group is not plan.held.group:
            raise CallError("expected a cache of this module's new_cache on the plan's ranks, got one of others")
        refuse_derivatives(q, k, v, attn.sink)
        if tokens_of_all(cache, replicated):
            return attended_by_all(cache, attn.sink, (q, k, v), lengths, inputs)
        plan.held.check_tokens(q, k, v)
        given = with_keys_of_all(attn.inputs, inputs, plan)
        counts = begin_prompt(cache, q, k, given, lengths, plan.held.length)
        out, lse = _nothing(q, v)
        for count in sorted(set(counts) - {0}):
            rows = [row for row, own in enumerate(counts) if own == count]
            of_rows = q[rows], k[rows], v[rows]
            traffic = replace(plan.traffic, first=plan.held.length - count)
            own = of_sequences(attn.inputs, given, rows)
            out[rows], lse[rows] = self._of_shares(*of_rows, own, replace(plan, traffic=traffic))
            store_shares(cache, *of_rows[1:], rows, traffic, count)
        count_tokens(cache, counts)
        return out, lse

    def _of_shares(self, q: Tensor, k: Tensor, v: Tensor, given: Given, plan: Plan) -> tuple[Tensor, Tensor]:
        """The output and LSE of this rank's tokens; of those before the plan's first 0 and -inf."""
        at = int((plan.positions < plan.traffic.first).sum())
        found = [_nothing(q[:, :, :at], v)] if at else []
        if self._by_keys is None and plan.packed is not None:
            found += self._over_packed(q, k, v, plan, plan.packed, at)
        else:
            found += self._over_spread(q, k, v, given, plan, at)
        return torch.cat([each[0] for each in found], dim=2), torch.cat([each[1] for each in found], dim=2)

    def _over_spread(
        self, q: Tensor, k: Tensor, v: Tensor, given: Given, plan: Plan, at: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Of each piece, its queries from `at` on, over keys that lie as in the sequence."""
        coming: list[OnTheWay] = []
        flat = exchanged(k, v, plan.rows, plan.held.group, coming if self._by_keys else None)
        keys, values = (
            unflat(rows, len(like), like.shape[1], plan.last_key, like.shape[3])
            for rows, like in zip(flat, (k, v), strict=True)
        )
        calls = []
        for piece in plan.traffic.pieces(plan.held.rank):
            rows = piece.queries[1] - piece.queries[0]
            seen = piece.origin, min(piece.keys[1], plan.last_key)
            part = keys[:, :, slice(*seen)], values[:, :, slice(*seen)]
            held = HeldPiece(piece.queries, (at, at + rows), seen, plan.chunks, plan.held.length)
            inputs = of_piece(self.attn.inputs, given, held)
            calls.append((q.narrow(2, at, rows), *part, piece, piece.origin, inputs))
            at += rows
        if self._by_keys is None:
            return [self._attend(self._module(""), *call) for call in calls]
        near, far = self._by_keys
        first = [self._attend(near, *call) for call in calls]
        coming[0].wait()
        return [merged_by_lse([each, self._attend(far, *call)]) for each, call in zip(first, calls, strict=True)]

    def _over_packed(
        self, q: Tensor, k: Tensor, v: Tensor, plan: Plan, packed: PackedRows, at: int
    ) -> list[tuple[Tensor, Tensor]]:
        """The same, over keys that lie one after another."""
        packed = packed.on(q.device)
        flat, dims = exchanged(k, v, packed.rows, plan.held.group), (k.shape[3], v.shape[3])

        def picked(rows: Tensor, groups: int) -> tuple[Tensor, Tensor]:
            of_each = zip(flat, dims, strict=True)
            tokens = len(rows) // groups
            keys, values = (unflat(each.index_select(0, rows), len(q), groups, tokens, dim) for each, dim in of_each)
            return keys, values

        found = []
        for piece, rows, of_far, marks in zip(packed.pieces, packed.near, packed.far, packed.marks, strict=True):
            queries = q.narrow(2, at, piece.piece.queries[1] - piece.piece.queries[0])
            at += queries.shape[2]
            kernel = self._module("" if piece.near[0] == piece.piece.origin else "near")
            keys, values = picked(rows, k.shape[1])
            out, lse = self._attend(kernel, queries, keys, values, piece.piece, piece.near[0], {})
            done, outs = 0, list[tuple[Tensor, Tensor]]()
            for far, own, marked in zip(piece.far, of_far, marks, strict=True):
                first, last = far.heads
                if done < first:
                    outs.append((out[:, done:first], lse[:, done:first]))
                groups = far.groups[1] - far.groups[0]
                module, inputs = self._far_module(last - first, groups), {FAR: marked}
                more = {"q_offset": 0, "return_lse": True, "inputs": inputs}
                there = module(queries[:, first:last], *picked(own, groups), **more)
                outs.append(merged_by_lse([(out[:, first:last], lse[:, first:last]), there]))
                done = last
            outs.append((out[:, done:], lse[:, done:]))
            found.append((torch.cat([each[0] for each in outs], 1), torch.cat([each[1] for each in outs], 1)))
        return found

    def _module(self, of: Literal["", "near"]) -> SparseAttention:
        """What attends within one document, to all keys or to near ones."""
        if (of,) not in self._variants:
            attn = over_near_keys(self.attn) if of else self.attn
            self._variants[of,] = _within_documents(attn, self._documents)
        return self._variants[of,]

    def _far_module(self, heads: int, groups: int) -> SparseAttention:
        if (heads, groups) not in self._variants:
            self._variants[heads, groups] = over_far_keys(self.attn, heads, groups)
        return self._variants[heads, groups]

    def _attend(
        self,
        kernel: SparseAttention,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        piece: Piece,
        first: int,
        inputs: dict[str, InputTensors],
    ) -> tuple[Tensor, Tensor]:
        """`first`: the position of the first key."""
        own: dict[str, Tensor] = {} if self.attn.sink is None or kernel.sink is None else {"sink": self.attn.sink}
        if self._documents is Documents.SEPARATE:
            begin = max(piece.keys[0] - first, 0)
            inputs = {**inputs, kernel.inputs[-1].name: torch.tensor([begin], device=q.device)}
        if self._by_keys is not None:
            ends = (end - first for end in piece.queries)
            named = zip(kernel.inputs[-2:], ends, strict=True)
            inputs = {**inputs, **{decl.name: torch.tensor([end], device=q.device) for decl, end in named}}
        more = {
            "q_offset": piece.queries[0] - first,
            "return_lse": True,
            "inputs": inputs or None,
        }
        return torch.func.functional_call(kernel, own, (q, k, v), more)  # type: ignore[no-any-return]  # of a module's call


def _nothing(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Output and LSE of queries that see no key."""
    wide = torch.promote_types(q.dtype, torch.float32)
    return q.new_zeros((*q.shape[:3], v.shape[3])), q.new_full(q.shape[:3], -torch.inf, dtype=wide)


def _within_documents(attn: SparseAttention, documents: Documents) -> SparseAttention:
    """What attends within one document."""
    match documents:
        case Documents.NONE:
            return attn
        case Documents.SEPARATE:
            return from_a_key(attn)
        case Documents.RESTART:
            return without_documents(attn)
        case _:
            assert_never(documents)

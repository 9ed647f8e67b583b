"""`ParallelAttention`: a compiled pattern on one rank's part of a sequence, whose other parts other ranks hold.

Invariant: outputs, log-sum-exps and gradients are those of one process with the whole sequence, but for rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, assert_never, overload

import torch
from torch import Tensor, nn

from sparsec.diagnostics.arguments import instance
from sparsec.diagnostics.model import CallError
from sparsec.distributed.exchange import OnTheWay, exchanged
from sparsec.distributed.inputs import InputTensors, check_kinds, of_piece, with_keys_of_all
from sparsec.distributed.needs import Piece
from sparsec.distributed.planning import Plan
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.within import by_keys, from_a_key, without_documents
from sparsec.sema.model import Documents


class ParallelAttention(nn.Module):
    """Made by `SparseAttention.parallel`; `attn`, whose parameters are this module's too, and `plan`.

    overlap: whether the keys of a chunk are attended to by its own queries while those of other ranks are on their way;
    the two results are then joined by their LSE.
    """

    def __init__(self, attn: SparseAttention, plan: Plan, *, overlap: bool = False) -> None:
        super().__init__()
        plan = instance("plan", plan, Plan)
        plan.held.check_made_of(attn, plan.made_from)
        check_kinds(attn.inputs)
        self.attn, self.plan = attn, plan
        self._documents = attn.lowered.pattern.documents
        if attn.documents and not plan.traffic.documents:
            raise CallError("expected a plan for documents, since the pattern has some: plan.for_documents(cu_seqlens)")
        if overlap and attn.documents:
            raise CallError("expected no overlap for a pattern with documents, got overlap=True")
        self._by_keys = by_keys(attn) if overlap else None  # no submodule: its parameters are those of attn
        self._kernel = (_within_documents(attn, self._documents),)  # in a tuple: its parameters are those of attn

    @overload
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        return_lse: Literal[False] = False,
        inputs: Mapping[str, InputTensors] | None = None,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        return_lse: Literal[True],
        inputs: Mapping[str, InputTensors] | None = None,
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        return_lse: bool = False,
        inputs: Mapping[str, InputTensors] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attends with this rank's queries, to keys of all ranks. Every rank of the plan has to make the same calls.

        q: [B, heads, tokens, head_dim], k: [B, kv_heads, tokens, head_dim], v: [B, kv_heads, tokens, value_dim]: the
        plan's tokens of this rank (`Plan.shard`); with documents B is 1.
        inputs: as of `SparseAttention`, but that what speaks of queries, or of keys, is given for this rank's tokens;
        lists name absolute positions.
        Returns this rank's output [B, heads, tokens, value_dim], and with `return_lse` its natural-log LSE, float32
        [B, heads, tokens]. Gradients of k and v come back from the ranks that needed them; that of a learned sink is
        of this rank's queries. Raises CallError, and ExchangeError if another rank has died or stalls.
        """
        plan = self.plan
        plan.held.check_tokens(q, k, v)
        if self._documents is not Documents.NONE and q.shape[0] != 1:
            raise CallError(f"expected batch 1 with documents, got {q.shape[0]}")
        given = with_keys_of_all(self.attn.inputs, inputs, plan)
        coming: list[OnTheWay] = []
        keys, values = exchanged(k, v, plan.rows, plan.held.group, coming if self._by_keys else None)
        calls, at = [], 0
        for piece in plan.traffic.pieces(plan.held.rank):
            rows = piece.queries[1] - piece.queries[0]
            stop = min(piece.keys[1], plan.last_key)
            part = keys[:, :, piece.origin : stop], values[:, :, piece.origin : stop]
            mine = of_piece(self.attn.inputs, given, (at, at + rows), stop)
            calls.append((q.narrow(2, at, rows), *part, piece, mine))
            at += rows
        if self._by_keys is None:
            (kernel,) = self._kernel
            outs = [self._attend(kernel, *call) for call in calls]
        else:
            near, far = self._by_keys
            first = [self._attend(near, *call) for call in calls]
            coming[0].wait()
            outs = [merged_by_lse(each, self._attend(far, *call)) for each, call in zip(first, calls, strict=True)]
        out = torch.cat([each[0] for each in outs], dim=2)
        return (out, torch.cat([each[1] for each in outs], dim=2)) if return_lse else out

    def _attend(
        self, kernel: SparseAttention, q: Tensor, k: Tensor, v: Tensor, piece: Piece, inputs: dict[str, InputTensors]
    ) -> tuple[Tensor, Tensor]:
        own: dict[str, Tensor] = {} if self.attn.sink is None or kernel.sink is None else {"sink": self.attn.sink}
        if self._documents is Documents.SEPARATE:
            inputs = {**inputs, kernel.inputs[-1].name: torch.tensor([piece.keys[0]], device=q.device)}
        if self._by_keys is not None:
            ends = zip(kernel.inputs[-2:], piece.queries, strict=True)
            inputs = {**inputs, **{decl.name: torch.tensor([end], device=q.device) for decl, end in ends}}
        more = {
            "q_offset": piece.queries[0] - piece.origin,
            "return_lse": True,
            "inputs": inputs or None,
        }
        return torch.func.functional_call(kernel, own, (q, k, v), more)  # type: ignore[no-any-return]  # of a module's call


def merged_by_lse(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Outputs and log-sum-exps of queries over two sets of keys -> those over both. Differentiable."""
    lses = torch.stack([one[1], other[1]])
    nothing = lses.isinf()
    finite = lses.masked_fill(nothing, torch.finfo(lses.dtype).min)
    lse = finite.logsumexp(0).masked_fill(nothing.all(0), -torch.inf)
    shares = finite.softmax(0).masked_fill(nothing, 0.0).unsqueeze(-1)
    wide = torch.promote_types(one[0].dtype, torch.float32)
    out = one[0].to(wide) * shares[0] + other[0].to(wide) * shares[1]
    return out.to(one[0].dtype), lse


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

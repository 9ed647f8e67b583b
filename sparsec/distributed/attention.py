"""`ParallelAttention`: a compiled pattern on one rank's part of a sequence, whose other parts other ranks hold.

Invariant: outputs, log-sum-exps and gradients are those of one process with the whole sequence, but for rounding.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from sparsec.diagnostics.arguments import instance
from sparsec.diagnostics.model import CallError
from sparsec.distributed.exchange import exchanged
from sparsec.distributed.planning import Plan
from sparsec.runtime.module import SparseAttention


class ParallelAttention(nn.Module):
    """Made by `SparseAttention.parallel`; `attn`, whose parameters are this module's too, and `plan`."""

    def __init__(self, attn: SparseAttention, plan: Plan) -> None:
        super().__init__()
        instance("plan", plan, Plan)
        wanted = plan.geometry
        given = attn.heads, attn.kv_heads, attn.head_dim, attn.value_dim
        if given != (wanted.heads, wanted.kv_heads, wanted.head_dim, wanted.value_dim):
            raise CallError(f"expected the heads and dimensions of the plan's pattern, got {given}")
        if attn.inputs:
            raise CallError(f"expected a pattern without inputs, got {', '.join(each.name for each in attn.inputs)}")
        self.attn, self.plan = attn, plan

    @overload
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[True]) -> tuple[Tensor, Tensor]: ...
    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Attends with this rank's queries, to keys of all ranks. Every rank of the plan has to make the same calls.

        q: [B, heads, tokens, head_dim], k: [B, kv_heads, tokens, head_dim], v: [B, kv_heads, tokens, value_dim]: the
        plan's tokens of this rank (`Plan.shard`). Returns this rank's output [B, heads, tokens, value_dim], and with
        `return_lse` its natural-log LSE, float32 [B, heads, tokens]. Gradients of k and v come back from the ranks
        that needed them. Raises CallError, and ExchangeError if another rank has died or stalls.
        """
        tokens = self.plan.tokens
        for name, each in (("q", q), ("k", k), ("v", v)):
            if each.ndim != 4 or each.shape[2] != tokens:
                raise CallError(f"expected {name} with this rank's {tokens} tokens along dimension 2, got {each.shape}")
        full_k, full_v = exchanged(k, v, self.plan.rows, self.plan.group)
        outs, at = [], 0
        for start, stop in self.plan.chunks:
            rows = q.narrow(2, at, stop - start)
            at += stop - start
            outs.append(self.attn(rows, full_k, full_v, q_offset=start, return_lse=True))
        out = torch.cat([each[0] for each in outs], dim=2)
        return (out, torch.cat([each[1] for each in outs], dim=2)) if return_lse else out

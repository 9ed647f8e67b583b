"""The mass of keys on the `torch` target: soft-max weights tile by tile, added up over the rows.

Invariant: memory stays within a chunk of columns for one tile of rows; two runs give the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.torch.kernel import Scores, columns_of, kept
from sparsec.backends.torch.tiles import query_blocks, shares
from sparsec.plan.kernel import KernelPlan


@dataclass(frozen=True, slots=True)
class TorchMass:
    """See `backends.base.MassKernel`."""

    plan: KernelPlan

    def build(self) -> None:
        """There is nothing to build."""

    def mass(
        self,
        q: Tensor,
        k: Tensor,
        lse: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...] = (),
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> Tensor:
        score = Scores.of(self.plan, q, scale, key_bias)
        log_sum = lse.to(score.wide).masked_fill(lse == -math.inf, math.inf)  # weights of an empty row are 0
        mass = torch.zeros((*q.shape[:2], k.shape[2]), dtype=score.wide, device=q.device)
        for heads, sequence in shares(self.plan, self.plan.classes, q, k, q_offset, cu_seqlens, inputs):
            keys_of = k[sequence.batch]
            for rows, blocks in query_blocks(heads, sequence):
                at = (sequence.batch, heads.heads, rows)
                queries, sums = q[at].to(score.wide), log_sum[at][..., None]
                for block in blocks:
                    bias = score.bias_of(at, block)
                    keys = kept(columns_of(keys_of, heads.groups, block), bias)
                    scores, _ = score.of_block(queries, keys, block, heads, bias)
                    weights = torch.exp(scores - sums)
                    if block.live is not None:  # a pair that is not live may have met a NaN
                        weights = weights.where(block.live, 0)
                    if not block.own:
                        weights = weights.sum(dim=-2)
                    for n, head in enumerate(heads.heads):
                        for b, of_sequence in enumerate(mass[sequence.batch, head]):
                            of_sequence.index_put_((block.columns,), weights[b, n], accumulate=True)
        return mass.to(torch.float32)

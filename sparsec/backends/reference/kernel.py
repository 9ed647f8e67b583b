"""The `reference` target: dense float64 attention by the pattern's checked meaning; differentiable, for small sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.reference.attention import attention
from sparsec.reference.mask import mask
from sparsec.sema.model import ResolvedPattern


@dataclass(frozen=True, slots=True)
class ReferenceKernel:
    """Refuses more than 2**28 pairs a head."""

    pattern: ResolvedPattern

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...] = (),
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
    ) -> tuple[Tensor, Tensor]:
        """See `backends.base.ForwardKernel`."""
        lengths = None if cu_seqlens is None else tuple(cu_seqlens.tolist())
        visible = mask(self.pattern, q.shape[2], k.shape[2], q_offset, cu_seqlens=lengths).to(q.device)
        score = replace(self.pattern.score, scale=scale)
        out, lse = attention(q, k, v, visible, score, sink=sink, q_offset=q_offset)
        return out.to(q.dtype), lse if q.dtype == torch.float64 else lse.float()

"""The `reference` target: dense float64 attention by the pattern's checked meaning; differentiable, for small sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sparsec.reference.attention import attention
from sparsec.reference.mask import mask
from sparsec.sema.model import Heads


@dataclass(frozen=True, slots=True)
class ReferenceKernel:
    """Refuses more than 2**28 pairs a head."""

    pattern: Heads

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, q_offset: int, scale: float | None, lists: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """See `runtime.kernel.Kernel`."""
        visible = mask(self.pattern, q.shape[2], k.shape[2], q_offset).to(q.device)
        out, lse = attention(q, k, v, visible, scale if scale is not None else 1 / math.sqrt(q.shape[-1]))
        return out.to(q.dtype), lse.float()

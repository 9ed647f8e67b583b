"""The `reference` target: dense float64 attention by the pattern's checked meaning; differentiable, for small sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.reference.attention import attention
from sparsec.reference.mask import mask
from sparsec.runtime.inputs.prepare import by_input
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.modifiers import KeyBias


@dataclass(frozen=True, slots=True)
class ReferenceKernel:
    """Refuses more than 2**28 pairs a head. `given`: the tensors of the pattern's inputs, all in order."""

    pattern: ResolvedPattern
    given: tuple[Tensor, ...] = ()

    def with_inputs(self, given: Sequence[Tensor]) -> ReferenceKernel:
        """See `backends.base.OracleKernel`."""
        return replace(self, given=tuple(given))

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
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `backends.base.ForwardKernel`."""
        out, lse = self._attention(q, k, v, q_offset, scale, sink, cu_seqlens)
        return out.to(q.dtype), lse if q.dtype == torch.float64 else lse.float()

    def mass(
        self,
        q: Tensor,
        k: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> Tensor:
        """See `backends.base.OracleKernel`: of values that are the rows of the identity, outputs are the weights."""
        n_k = k.shape[2]
        ones = torch.eye(n_k, dtype=torch.float64, device=k.device).expand(*k.shape[:2], n_k, n_k)
        weights, _ = self._attention(q, k, ones, q_offset, scale, sink, cu_seqlens)
        return weights.sum(dim=2).float()

    def _attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_offset: int,
        scale: float | None,
        sink: Tensor | None,
        cu_seqlens: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """In float64."""
        lengths = None if cu_seqlens is None else tuple(cu_seqlens.tolist())
        declared = self.pattern.inputs
        given = by_input(declared, self.given, Tensor.dim)
        named = {decl.name: pair for decl, pair in zip(declared, given, strict=True)}
        visible = mask(self.pattern, q.shape[2], k.shape[2], q_offset, cu_seqlens=lengths, inputs=named).to(q.device)
        score = replace(self.pattern.score, scale=scale)
        biased = score.get(KeyBias)
        bias = None if biased is None else given[biased.ordinal][0]
        return attention(q, k, v, visible, score, sink=sink, key_bias=bias, q_offset=q_offset)

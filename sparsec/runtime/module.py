"""`SparseAttention`: a compiled pattern as a torch module. It checks a call, and hands it to the kernel's operator."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from sparsec.diagnostics.model import CallError
from sparsec.plan.kernel import KernelPlan
from sparsec.runtime.kernel import registered
from sparsec.runtime.ops import forward

LENGTH_LIMIT = 1 << 30
"""Positions stay below this, so that kernels may reckon in 32 bits."""


class SparseAttention(nn.Module):
    """Attention with a compiled pattern; made by `sparsec.compile`.

    Attributes: `heads`, `kv_heads`, `head_dim`, `dtype`, `target` ("cpu", "triton", "torch" or "reference"), `scale`
    (None: 1/sqrt(head_dim)), `source` (the generated source; empty for "torch" and "reference") and `plan` (None for
    "reference"; without tile programs in a module that `sparsec.load_compiled` gives back).
    """

    def __init__(
        self,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        target: str,
        scale: float | None,
        kernel: str,
        source: str = "",
        plan: KernelPlan | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.dtype = heads, kv_heads, head_dim, dtype
        self.target, self.scale, self.source, self.plan = target, scale, source, plan
        self._kernel = kernel

    @overload
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, q_offset: int | None = None, return_lse: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, q_offset: int | None = None, return_lse: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, q_offset: int | None = None, return_lse: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attends.

        q: [B, heads, Nq, head_dim]; k, v: [B, kv_heads, Nk, head_dim]; all of `dtype`, on one device, any strides.
        q_offset: absolute position of the first query; Nk - Nq if left out (the last query sees the last key).
        Returns out, like q, and with `return_lse` also the natural-log LSE, float32 [B, heads, Nq]; a query that may
        attend to nothing has output 0 and LSE -inf. Raises CallError.
        """
        self._check(q, k, v)
        offset = k.shape[2] - q.shape[2] if q_offset is None else q_offset
        if abs(offset) + q.shape[2] >= LENGTH_LIMIT or k.shape[2] >= LENGTH_LIMIT:
            raise CallError(f"expected positions below {LENGTH_LIMIT}, got q_offset {offset}, {k.shape[2]} keys")
        if self.target == "reference":  # plain differentiable torch, with no operator between
            out, lse = registered(self._kernel).kernel.forward(q, k, v, q_offset=offset, scale=self.scale, lists=())
        else:
            out, lse = forward(q, k, v, None, None, self._kernel, offset, self.scale)
        return (out, lse) if return_lse else out

    def _check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        for name, tensor, heads in (("q", q, self.heads), ("k", k, self.kv_heads), ("v", v, self.kv_heads)):
            if tensor.dim() != 4 or tensor.shape[1] != heads or tensor.shape[3] != self.head_dim:
                length = "Nq" if name == "q" else "Nk"
                raise CallError(
                    f"expected {name} of shape [B, {heads}, {length}, {self.head_dim}], got {list(tensor.shape)}"
                )
            if tensor.dtype != self.dtype:
                raise CallError(f"expected {name} of dtype {self.dtype}, got {tensor.dtype}")
            if tensor.device != q.device:
                raise CallError(f"expected {name} on {q.device} like q, got {tensor.device}")
        if self.target == "cpu" and q.device.type != "cpu":
            raise CallError(f"expected CPU tensors for target 'cpu', got {q.device}")
        if not (q.shape[0] == k.shape[0] == v.shape[0]):
            raise CallError(f"expected one batch size, got q {q.shape[0]}, k {k.shape[0]}, v {v.shape[0]}")
        if k.shape[2] != v.shape[2]:
            raise CallError(f"expected as many values as keys, got {k.shape[2]} keys and {v.shape[2]} values")

    def extra_repr(self) -> str:
        return (
            f"heads={self.heads}, kv_heads={self.kv_heads}, head_dim={self.head_dim}, dtype={self.dtype}, "
            f"target={self.target!r}"
        )

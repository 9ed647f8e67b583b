"""`SparseAttention`: a compiled pattern as a torch module. It checks a call, and hands it to the kernel's operator."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from sparsec.diagnostics.model import CallError
from sparsec.plan.kernel import KernelPlan
from sparsec.runtime.kernel import ForwardKernel
from sparsec.runtime.ops import forward

LENGTH_LIMIT = 1 << 30
"""Positions stay below this, so that kernels may reckon in 32 bits."""


class SparseAttention(nn.Module):
    """Attention with a compiled pattern; made by `sparsec.compile`, from a registered kernel's digest or the reference.

    Attributes: `heads`, `kv_heads`, `head_dim`, `dtype`, `target` ("cpu", "triton", "torch" or "reference"), `scale`
    (None: 1/sqrt(head_dim)), `source` (the generated source; empty for "torch" and "reference") and `plan` (None for
    "reference"; without tile programs in a module that `sparsec.load_compiled` gives back), `documents` (whether a call
    needs cu_seqlens) and, for a pattern with `learned_sink`, the parameter `sink` ([heads], natural-log logits, zero at
    first).
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
        kernel: str | ForwardKernel,
        source: str = "",
        plan: KernelPlan | None = None,
        learned_sink: bool = False,
        documents: bool = False,
    ) -> None:
        super().__init__()
        self.sink = nn.Parameter(torch.zeros(heads)) if learned_sink else None
        self.documents = documents
        self.heads, self.kv_heads, self.head_dim, self.dtype = heads, kv_heads, head_dim, dtype
        self.target, self.scale, self.source, self.plan = target, scale, source, plan
        self._kernel = kernel

    @overload
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int | None = None,
        return_lse: Literal[False] = False,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int | None = None,
        return_lse: Literal[True],
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int | None = None,
        return_lse: bool = False,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attends.

        q: [B, heads, Nq, head_dim]; k, v: [B, kv_heads, Nk, head_dim]; all of `dtype`, on one device, any strides.
        Under autocast they are cast to `dtype`.
        q_offset: absolute position of the first query; Nk - Nq if left out (the last query sees the last key).
        cu_seqlens: int32 [documents + 1], from 0 to Nk without a decrease, for patterns with `documents` alone; B is
        then 1, and the sequences are packed end to end (Nq = Nk).
        Returns out, like q, and with `return_lse` also the natural-log LSE, float32 [B, heads, Nq]; a query that may
        attend to nothing has output 0 and LSE -inf (the sink, where there is one). Raises CallError.
        """
        if torch.is_autocast_enabled(q.device.type):
            q, k, v = q.to(self.dtype), k.to(self.dtype), v.to(self.dtype)
        self._check(q, k, v)
        self._check_documents(q, k, q_offset, cu_seqlens)
        offset = k.shape[2] - q.shape[2] if q_offset is None else q_offset
        if abs(offset) + q.shape[2] >= LENGTH_LIMIT or k.shape[2] >= LENGTH_LIMIT:
            raise CallError(f"expected positions below {LENGTH_LIMIT}, got q_offset {offset}, {k.shape[2]} keys")
        sink = None if self.sink is None else self.sink.float()
        if not isinstance(self._kernel, str):  # plain differentiable torch, with no operator between
            out, lse = self._kernel.forward(
                q, k, v, q_offset=offset, scale=self.scale, lists=(), sink=sink, cu_seqlens=cu_seqlens
            )
        else:
            out, lse = forward(q, k, v, sink, cu_seqlens, self._kernel, offset, self.scale)
        return (out, lse) if return_lse else out

    def _check_documents(self, q: Tensor, k: Tensor, q_offset: int | None, cu_seqlens: Tensor | None) -> None:
        if (cu_seqlens is not None) != self.documents:
            expected = "cu_seqlens, since the pattern has documents" if self.documents else "no cu_seqlens"
            raise CallError(f"expected {expected}, got {'none' if cu_seqlens is None else 'some'}")
        if cu_seqlens is None:
            return
        if cu_seqlens.dim() != 1 or cu_seqlens.dtype != torch.int32 or cu_seqlens.device != q.device:
            shape = f"{cu_seqlens.dtype} {list(cu_seqlens.shape)} on {cu_seqlens.device}"
            raise CallError(f"expected cu_seqlens int32 [documents + 1] on {q.device}, got {shape}")
        if q.shape[0] != 1 or q.shape[2] != k.shape[2] or q_offset not in (None, 0):
            got = f"batch {q.shape[0]}, {q.shape[2]} queries, {k.shape[2]} keys, q_offset {q_offset}"
            raise CallError(f"expected batch 1, as many queries as keys and no q_offset with documents, got {got}")

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

"""The tensors of a call -> the same, found to be what the kernels take.

Invariant: nothing is read from a device; every mistake is a CallError with the expected and the given value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsec.diagnostics.arguments import instance
from sparsec.diagnostics.model import CallError
from sparsec.runtime.request import DTYPES


@dataclass(frozen=True, slots=True)
class CallTensors:
    """What q, k and v of a module have to be."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    dtype: torch.dtype
    target: str
    on_cpu: bool

    def fit(self, q: Tensor, k: Tensor, v: Tensor) -> bool:
        """Whether the three are what `forward` asks for; a step of decoding is short enough to feel a slow answer."""
        if not (isinstance(q, Tensor) and isinstance(k, Tensor) and isinstance(v, Tensor)):
            return False
        of_q, of_k, of_v = q.shape, k.shape, v.shape
        if not len(of_q) == len(of_k) == len(of_v) == 4:
            return False
        (batch, heads, _, dim), (sequences, kv_heads, n_keys, key_dim) = of_q, of_k
        if not (heads == self.heads and kv_heads == self.kv_heads and dim == key_dim == self.head_dim):
            return False
        if not (batch == sequences and of_v == (sequences, kv_heads, n_keys, self.value_dim)):
            return False
        if not (q.dtype == k.dtype == v.dtype == self.dtype):
            return False
        if self.on_cpu or q.is_cpu:
            return q.is_cpu and k.is_cpu and v.is_cpu
        return q.device == k.device == v.device and not q.is_meta

    def fitted(self, q: object, k: object, v: object) -> tuple[Tensor, Tensor, Tensor]:
        """The three, under autocast cast to `dtype`. Raises CallError unless they fit."""
        if not (isinstance(q, Tensor) and isinstance(k, Tensor) and isinstance(v, Tensor)):
            raise CallError(f"expected q, k and v of type Tensor, got {', '.join(type(x).__name__ for x in (q, k, v))}")
        if q.is_meta:
            raise CallError("expected tensors on a CPU or a GPU, got q on meta, which holds no numbers")
        if torch.is_autocast_enabled(q.device.type):
            q, k, v = q.to(self.dtype), k.to(self.dtype), v.to(self.dtype)
        self.check(q, k, v)
        return q, k, v

    def check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Raises CallError unless they fit."""
        for name, tensor, heads, dim in (
            ("q", q, self.heads, self.head_dim),
            ("k", k, self.kv_heads, self.head_dim),
            ("v", v, self.kv_heads, self.value_dim),
        ):
            if tensor.dim() != 4 or tensor.shape[1] != heads or tensor.shape[3] != dim:
                length = "Nq" if name == "q" else "Nk"
                turned = tensor.dim() == 4 and tensor.shape[2:] == (heads, dim)
                hint = f", whose tokens come before its heads: give {name}.transpose(1, 2)" if turned else ""
                raise CallError(
                    f"expected {name} of shape [B, {heads}, {length}, {dim}], got {list(tensor.shape)}{hint}"
                )
            if tensor.dtype != self.dtype:
                known = name == "q" and tensor.dtype in DTYPES
                hint = f"; sparsec.compile(..., dtype={tensor.dtype}) makes a module for it" if known else ""
                raise CallError(f"expected {name} of dtype {self.dtype}, got {tensor.dtype}{hint}")
            if tensor.device != q.device:
                raise CallError(f"expected {name} on {q.device} like q, got {tensor.device}")
        if self.on_cpu and q.device.type != "cpu":
            raise CallError(f"expected CPU tensors for target {self.target!r}, got {q.device}")
        if not (q.shape[0] == k.shape[0] == v.shape[0]):
            raise CallError(f"expected one batch size, got q {q.shape[0]}, k {k.shape[0]}, v {v.shape[0]}")
        if k.shape[2] != v.shape[2]:
            raise CallError(f"expected as many values as keys, got {k.shape[2]} keys and {v.shape[2]} values")


def check_documents(q: Tensor, k: Tensor, q_offset: int | None, cu_seqlens: Tensor | None, *, wanted: bool) -> None:
    """Raises CallError unless cu_seqlens fits the call; `wanted`: whether the pattern has documents."""
    if (cu_seqlens is not None) != wanted:
        expected = "cu_seqlens, since the pattern has documents" if wanted else "no cu_seqlens"
        raise CallError(f"expected {expected}, got {'none' if cu_seqlens is None else 'some'}")
    if cu_seqlens is None:
        return
    instance("cu_seqlens", cu_seqlens, Tensor)
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype != torch.int32 or cu_seqlens.device != q.device:
        shape = f"{cu_seqlens.dtype} {list(cu_seqlens.shape)} on {cu_seqlens.device}"
        raise CallError(f"expected cu_seqlens int32 [documents + 1] on {q.device}, got {shape}")
    if q.shape[0] != 1 or q.shape[2] != k.shape[2] or q_offset not in (None, 0):
        got = f"batch {q.shape[0]}, {q.shape[2]} queries, {k.shape[2]} keys, q_offset {q_offset}"
        raise CallError(f"expected batch 1, as many queries as keys and no q_offset with documents, got {got}")


def counts_of(lengths: Tensor | Sequence[int], batch: int, device: torch.device) -> Tensor:
    """The `lengths` of a call with a cache as int32 [batch], on the CPU or on `device`. Raises CallError."""
    try:
        counts = torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError):
        counts = torch.empty(0)
    if counts.is_floating_point() or counts.is_complex():
        raise CallError(f"expected lengths of integers, got {lengths!r:.80}")
    if counts.shape != (batch,) or counts.device not in (torch.device("cpu"), device):
        where = "the CPU" if device.type == "cpu" else f"the CPU or {device}"
        raise CallError(f"expected lengths [{batch}] on {where}, got {list(counts.shape)} on {counts.device}")
    return counts.to(torch.int32)

"""The forward of one batch of requests over a paged cache -> what a model's layers attend through.

Invariant: nothing of a request is read but its live pages, where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sparsec.integrations.transformers.attention import LayerKernels


@dataclass(frozen=True, slots=True, eq=False)
class LayerBlocks:
    """Of a layer: keys [blocks, page_size, G, D], values [blocks, page_size, G, Dv], each request's blocks, int32
    [requests, most pages], and the slot of each new token, those of padding at the end negative."""

    keys: Tensor
    values: Tensor
    table: Tensor
    slots: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class BatchCall:
    """Stands where a `ModelCall` does: starts, lengths: as `SparseAttention.paged` takes them; tokens: those of all
    requests, which come first in the batch's one row."""

    kernels: tuple[LayerKernels, ...]
    layers: Mapping[int, LayerBlocks]
    starts: Tensor
    lengths: Tensor
    tokens: int

    @torch.compiler.disable(reason="views of one tensor are written")  # type: ignore[no-untyped-call, untyped-decorator]
    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        scaling: float | None,
        options: dict[str, Any],
    ) -> tuple[Tensor, None]:
        """query [1, H, N, D], key [1, G, N, D], value [1, G, N, Dv]; gives [1, N, H, Dv], 0 at padding."""
        index = module.layer_idx
        assert isinstance(index, int)
        here = self.layers[index]
        attn = self.kernels[index].of_module(module, query.dtype, query.device, scaling)
        q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
        attn.append_paged(k, v, here.keys, here.values, here.slots)
        out = query.new_zeros(1, q.shape[0], attn.heads, attn.value_dim)
        out[0, : self.tokens] = attn.paged(
            q[: self.tokens],
            here.keys,
            here.values,
            block_table=here.table,
            cu_seqlens_q=self.starts,
            seq_lens=self.lengths,
        )
        return out, None


@runtime_checkable
class Batched(Protocol):
    """A cache of several requests that says what the layers attend through in a forward; arguments: the decoder's."""

    def call(self, arguments: Mapping[str, Any]) -> BatchCall: ...

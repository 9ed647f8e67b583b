"""A program -> what TorchTitan takes for `inner_attention`: a Config whose modules attend by a layer's pattern.

It imports TorchTitan (tried with torchtitan 0.3.0). Its models pack documents and say where these end, for which a
pattern has `documents`. Invariant: a module attends as its pattern says, or refuses in one sentence.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchtitan.models.common.attention import VarlenAttention, VarlenMetadata
from torchtitan.protocols.module import Module

from sparsec.diagnostics.model import CallError
from sparsec.integrations.choice import AnyProgram, origin_of, patterns_of
from sparsec.program import Pattern
from sparsec.runtime.compile import compile
from sparsec.runtime.module import SparseAttention
from sparsec.sema.arguments import Given
from sparsec.sema.model import Documents


class SparseInnerAttention(Module):  # type: ignore[misc]  # it may not be installed
    """Attention of one layer, between its projections; it has no parameters."""

    @dataclass(kw_only=True, slots=True)
    class Config(VarlenAttention.Config):  # type: ignore[misc]  # likewise
        """pattern: the layer's. heads, kv_heads: of the layer on all ranks. It is a Config of variable lengths, so that
        models make the metadata of documents for it; its `window_size` stays as it is. target: of `sparsec.compile`.
        """

        pattern: Pattern
        heads: int
        kv_heads: int
        target: str | None = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        resolved = config.pattern.lowered(config.heads, config.kv_heads).pattern
        if resolved.documents is Documents.NONE:
            raise CallError("expected a pattern with `documents`, since TorchTitan packs them, got one without")
        if resolved.score.learned:
            raise CallError("expected a pattern without `learned_sink`, got one with it")
        if config.window_size != (-1, 0):
            raise CallError(f"expected window_size (-1, 0), since the pattern has windows, got {config.window_size}")
        self.config = config
        self._alike = len(set(resolved.terms)) == 1 and resolved.score.part(config.heads, slice(0, 1)) == (
            resolved.score
        )
        self._compiled: dict[tuple[object, ...], SparseAttention] = {}

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        attention_masks: VarlenMetadata,
        scale: float | None = None,
        out_transform: Any = None,
        **_: Any,
    ) -> Tensor:
        """q [B, tokens, heads, D]; k, v [B, tokens, KV heads, D]: this rank's heads -> [B, tokens, heads, D].

        attention_masks: where the documents of all B * tokens tokens end. out_transform: of output and LSE, both packed
        ([tokens, heads, D] and [heads, tokens]). Raises CallError.
        """
        if not isinstance(attention_masks, VarlenMetadata):
            raise CallError(f"expected the metadata of documents, got {type(attention_masks).__name__}")
        packed = [each.reshape(1, -1, *each.shape[2:]).transpose(1, 2) for each in (q, k, v)]
        attn = self._of(packed, scale)
        out, lse = attn(*packed, cu_seqlens=attention_masks.cu_seq_q.to(torch.int32), return_lse=True)
        found: Tensor = out[0].transpose(0, 1)
        if out_transform is not None:
            found = out_transform(found, lse[0])
        return found.reshape(*q.shape[:-1], v.shape[-1])

    def _of(self, qkv: list[Tensor], scale: float | None) -> SparseAttention:
        q, k, v = qkv
        own = q.shape[1], k.shape[1], q.shape[3], v.shape[3], q.dtype, q.device, scale
        if own not in self._compiled:
            config = self.config
            if own[:2] != (config.heads, config.kv_heads) and not self._alike:
                raise CallError(
                    f"expected all {config.heads} heads on a rank, since they have sets of their own, got {own[0]}"
                )
            made = compile(
                config.pattern,
                heads=own[0],
                kv_heads=own[1],
                head_dim=own[2],
                value_dim=own[3],
                dtype=q.dtype,
                device=q.device,
                target=config.target,
            )
            if scale is not None:
                made.scale = scale
            self._compiled[own] = made
        return self._compiled[own]


def with_patterns(
    config: Any, program: AnyProgram, name: str | None = None, *, target: str | None = None, **params: Given
) -> Any:
    """A copy of a model's Config whose layers attend by a program.

    program: a Program, a Pattern or Model of one, a path or source text; name: of a model or a pattern in it, whose
    layers are those of the config (None: its model if it has one, else its only pattern). params: of that.
    Raises CallError.
    """
    found = copy.deepcopy(config)
    patterns = patterns_of(origin_of(program, name, params), len(found.layers))
    for layer, pattern in zip(found.layers, patterns, strict=True):
        heads = layer.attention.n_heads
        groups = layer.attention.n_kv_heads or heads
        layer.attention.inner_attention = SparseInnerAttention.Config(
            pattern=pattern, heads=heads, kv_heads=groups, target=target
        )
    return found

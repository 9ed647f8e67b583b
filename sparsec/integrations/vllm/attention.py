"""The attention of vLLM's layers that have a pattern: what they run, and what they read of a step.

A layer's keys and values lie in vLLM's pages, [pages, KV heads, page size, 2 * head_dim], keys before values.
Invariant: a layer has its kernels, and a backend and a spec of pages of its own, from when its weights are loaded;
until then it attends to nothing.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from vllm.config import get_current_vllm_config, get_current_vllm_config_or_none
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.models.utils import extract_layer_index
from vllm.platforms import current_platform
from vllm.v1.attention.backend import AttentionImpl, AttentionMetadata, AttentionMetadataBuilder

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.integrations.vllm.fit import LayerAsks, check_config, check_served
from sparsec.integrations.vllm.live import Needed, needed_by
from sparsec.integrations.vllm.wanted import Wanted, wanted_by
from sparsec.program import Pattern
from sparsec.runtime.module import SparseAttention


def wanted_now() -> Wanted | None:
    """By the vLLM whose config is the current one; None where no pattern is asked for, or no config is there."""
    config = get_current_vllm_config_or_none()
    if config is None or config.model_config is None:
        return None
    model = config.model_config
    return wanted_by(config.additional_config, os.environ, model.hf_config, model.model)


@dataclass(frozen=True, slots=True)
class StepPages(AttentionMetadata):  # type: ignore[misc]  # vLLM is not typed here
    """Of the requests of a step: starts [requests + 1], lengths [requests], table [requests, pages], all int32."""

    tokens: int
    starts: Tensor
    lengths: Tensor
    table: Tensor


class StepPagesBuilder(AttentionMetadataBuilder):  # type: ignore[misc]  # vLLM is not typed here
    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> StepPages:
        common = common_attn_metadata
        if common.causal is not True:
            raise CallError("expected a step of causal attention, got one in both directions")
        return StepPages(
            common.num_actual_tokens, common.query_start_loc, common.seq_lens, common.block_table_tensor.contiguous()
        )


class SparseImpl(AttentionImpl):  # type: ignore[misc]  # vLLM is not typed here
    """Of one layer. Raises CallError where the layer, or vLLM, asks for what no pattern gives."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = "decoder",
        kv_sharing_target_layer_name: str | None = None,
        sinks: Tensor | None = None,
        **others: Any,
    ) -> None:
        self.num_heads, self.head_size, self.scale = num_heads, head_size, float(scale)
        self.num_kv_heads, self.kv_cache_dtype = num_kv_heads or num_heads, kv_cache_dtype
        self._sinks, self._config = sinks, get_current_vllm_config()
        self._attention: SparseAttention | None = None
        wanted = wanted_now()
        if wanted is None:
            raise CallError(
                "expected a model with a pattern for vLLM's backend CUSTOM, got none; see additional_config"
            )
        check_config(self._config)
        self._wanted = wanted
        self._asks = LayerAsks(
            self.scale,
            logits_soft_cap or None,
            None if alibi_slopes is None else tuple(alibi_slopes),
            sinks is not None,
            sliding_window,
            kv_cache_dtype,
            str(getattr(attn_type, "value", attn_type)),
            kv_sharing_target_layer_name,
            others,
        )
        self._asks.check()

    def process_weights_after_loading(self, act_dtype: torch.dtype) -> None:
        """Makes the layer's kernels, and gives the layer a backend whose pages are the pattern's."""
        config, layers = self._config, self._config.compilation_config.static_forward_context
        strange = [name for name, each in layers.items() if isinstance(each, AttentionLayerBase) and not _ours(each)]
        if strange:
            kind = type(layers[strange[0]]).__name__
            raise CallError(
                f"expected a model whose layers of attention all take a pattern, got {kind} at {strange[0]}"
            )
        name, layer = next((name, each) for name, each in layers.items() if getattr(each, "impl", None) is self)
        try:
            layers_of_model = config.model_config.hf_text_config.num_hidden_layers
            pattern = self._wanted.patterns(layers_of_model)[extract_layer_index(name)]
            check_served(pattern)
            ranks = self._ranks()
            score = pattern.resolve(ranks.heads, ranks.kv_heads).score.part(ranks.heads, ranks.part)
            self._asks.check_score(pattern, score, self.num_heads)
            if layer.kv_cache_torch_dtype != act_dtype or layer.use_mm_prefix:
                got = "bidirectional prefixes" if layer.use_mm_prefix else f"keys of {layer.kv_cache_torch_dtype}"
                raise CallError(f"expected causal attention to keys of {act_dtype}, got {got}")
        except CallError as error:
            raise CallError(f"{error}, at {name}") from error
        shape = LayerShape(self.head_size, layer.head_size_v, act_dtype, current_platform.device_type, self.scale)
        attention, needed = _kernels(pattern, ranks, shape)
        if self._sinks is not None:
            attention = copy.deepcopy(attention)
            assert attention.sink is not None
            attention.sink.data.copy_(self._sinks)
        self._attention = attention
        layer.attn_backend = layer.attn_backend.with_pages(needed, config)

    def _ranks(self) -> Ranks:
        rank, size = get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size()
        groups = self._config.model_config.get_total_num_kv_heads()
        kv_heads = groups if size > groups else self.num_kv_heads * size  # or ranks share a KV head
        return Ranks(rank, size, self.num_heads * size, kv_heads)

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Writes keys and values of a step's tokens to their pages. key: [tokens or more, KV heads, head_dim]."""
        if self._attention is not None and kv_cache.numel():
            tokens = len(slot_mapping)
            self._attention.append_paged(key[:tokens], value[:tokens], *self._pages(kv_cache), slot_mapping)

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: StepPages | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """query, output: [tokens or more, heads, head_dim]; the keys of the step are in their pages already."""
        if output_scale is not None or output_block_scale is not None:
            raise CallError("expected outputs that are not quantised, got scales of outputs")
        if attn_metadata is None or self._attention is None:  # the profile of an engine that has no pages yet
            return output.fill_(0)
        step = attn_metadata
        output[: step.tokens] = self._attention.paged(
            query[: step.tokens],
            *self._pages(kv_cache),
            block_table=step.table,
            cu_seqlens_q=step.starts,
            seq_lens=step.lengths,
        )
        return output

    def _pages(self, kv_cache: Tensor) -> tuple[Tensor, Tensor]:
        """Of keys and of values, [pages, page size, KV heads, dim]."""
        pages = kv_cache.transpose(1, 2)
        return pages[..., : self.head_size], pages[..., self.head_size :]


@dataclass(frozen=True, slots=True)
class Ranks:
    """This rank, of `size` tensor parallel ones, and the heads of all of them together."""

    rank: int
    size: int
    heads: int
    kv_heads: int

    @property
    def part(self) -> slice:
        """The query heads of this rank."""
        own = self.heads // self.size
        return slice(self.rank * own, (self.rank + 1) * own)


@dataclass(frozen=True, slots=True)
class LayerShape:
    head_dim: int
    value_dim: int
    dtype: torch.dtype
    device: str
    scale: float


@cache  # one for all layers that are alike
def _kernels(pattern: Pattern, ranks: Ranks, shape: LayerShape) -> tuple[SparseAttention, Needed]:
    """Of this rank's heads; and what all ranks' heads need, for one table of pages serves them all."""
    attention = sparsec.compile(
        pattern,
        heads=ranks.heads,
        kv_heads=ranks.kv_heads,
        head_dim=shape.head_dim,
        value_dim=shape.value_dim,
        dtype=shape.dtype,
        device=shape.device,
    )
    needed = needed_by(attention.layout)
    own = attention.shard(ranks.rank, ranks.size)
    own.scale = shape.scale
    _build(own, shape)
    return own, needed


def _build(attention: SparseAttention, shape: LayerShape) -> None:
    """Has the kernels built before the first request comes."""
    q = torch.zeros((1, attention.heads, shape.head_dim), dtype=shape.dtype, device=shape.device)
    k, v = (q.new_zeros((1, 16, attention.kv_heads, dim)) for dim in (shape.head_dim, shape.value_dim))
    one = torch.ones(1, dtype=torch.int32, device=shape.device)
    starts = torch.tensor([0, 1], dtype=torch.int32, device=shape.device)
    attention.paged(q, k, v, block_table=torch.zeros_like(one)[None], cu_seqlens_q=starts, seq_lens=one)


def _ours(layer: Any) -> bool:
    return isinstance(getattr(layer, "impl", None), SparseImpl)

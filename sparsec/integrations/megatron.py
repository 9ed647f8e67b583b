"""A program -> what Megatron-core takes for `core_attention`: a builder of modules that attend by a layer's pattern.

Nothing of Megatron is imported: a builder and its modules have the interface of its attention layers
(tried with megatron-core 0.16.1). Invariant: a module attends as its layer's pattern says, or refuses in one sentence.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from operator import sub
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sparsec.diagnostics.model import CallError
from sparsec.distributed import Plan, plan
from sparsec.distributed.attention import ParallelAttention
from sparsec.distributed.shards import zigzag_of_documents
from sparsec.integrations.choice import AnyProgram, origin_of, patterns_of
from sparsec.ir.bands.liveness import is_causal
from sparsec.program import Pattern
from sparsec.runtime.compile import compile
from sparsec.sema.arguments import Given

MASKS = ("causal", "no_mask")
"""Kinds of masks that say no more than a pattern does; a pattern under a causal one has to be causal."""
CAUSAL = ("causal", "padding_causal")
SELF = ("self", "self_attn")


class SparseCoreAttention(nn.Module):
    """Attention of one layer of Megatron-core, between its projections. `attn`: the heads of this tensor parallel rank.

    With context parallel ranks, which hold chunks from either end of the sequence, only the keys that the pattern
    needs travel.
    """

    def __init__(
        self,
        pattern: Pattern,
        *,
        config: Any,
        softmax_scale: float | None = None,
        pg_collection: Any = None,
        attn_mask_type: Any = None,
        target: str | None = None,
    ) -> None:
        """config: a TransformerConfig. attn_mask_type: that of calls without one. Raises CallError for what a pattern
        does not do."""
        super().__init__()
        _check_config(config)
        groups = config.num_query_groups or config.num_attention_heads
        whole = compile(
            pattern,
            heads=config.num_attention_heads,
            kv_heads=groups,
            head_dim=config.kv_channels,
            dtype=config.params_dtype,
            device=torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu",
            target=target,
        )
        if softmax_scale is not None:
            whole.scale = softmax_scale
        tensor, context = (
            _group(pg_collection, name, size)
            for name, size in (("tp", config.tensor_model_parallel_size), ("cp", config.context_parallel_size))
        )
        bands = pattern.lowered(config.num_attention_heads, groups).bands
        self.causal = all(is_causal(band) for head in bands for band in head)
        self.mask_type = attn_mask_type
        if _kind(attn_mask_type) in CAUSAL:
            self._check_causal(attn_mask_type)
        self.attn = whole if tensor is None else whole.shard(dist.get_rank(tensor), dist.get_world_size(tensor))
        self.context = context
        self._plans: dict[int, Plan] = {}
        self._by_documents: tuple[tuple[int, ...], ParallelAttention] | None = None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        /,
        *,
        attn_mask_type: Any = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: Any = None,
    ) -> Tensor:
        """query [tokens, B, heads, D], key and value [tokens, B, groups, D] -> [tokens, B, heads * D]; packed documents
        [tokens, heads, D], with their ends in packed_seq_params.cu_seqlens_q -> [tokens, heads * D]. Context parallel
        ranks have a chunk from either end of each document, and the ends of all ranks' documents.

        attention_mask: None, or bool [..., tokens, all tokens], True at j > i, which the pattern has anyway; with
        attn_mask_type no_mask also one that hides nothing. It is compared, and not read. Raises CallError.
        """
        if attention_bias is not None:
            raise CallError("expected no attention bias, got one; patterns have `alibi` and `key_bias`")
        packed = packed_seq_params is not None
        kind = _kind(attn_mask_type if attn_mask_type is not None else self.mask_type)
        if kind is not None and kind not in (*MASKS, *(("padding_causal", "padding") if packed else ())):
            raise CallError(f"expected an attention mask type of {', '.join(MASKS)}, which patterns say, got {kind}")
        if kind in CAUSAL:
            self._check_causal(kind)
        if attention_mask is not None:
            self._check_mask(attention_mask, kind, len(query))
        if packed:
            return self._packed(query, key, value, packed_seq_params)
        q, k, v = (each.permute(1, 2, 0, 3) for each in (query, key, value))
        attend = self.attn if self.context is None else self.attn.parallel(self._plan(len(query)))
        out: Tensor = attend(q, k, v)
        return out.permute(2, 0, 1, 3).flatten(2)

    def _check_causal(self, kind: Any) -> None:
        if not self.causal:
            raise CallError(f"expected a causal pattern for the mask type {_kind(kind)}, got one that looks ahead")

    def _check_mask(self, mask: Tensor, kind: Any, tokens: int) -> None:
        """Of this rank's queries, and all keys."""
        rows = torch.arange(tokens) if self.context is None else self._plan(tokens).positions
        length = tokens if self.context is None else tokens * dist.get_world_size(self.context)
        wanted, given = (tokens, length), tuple(mask.shape[-2:])
        if mask.dtype != torch.bool or given != wanted:
            got = f"{str(mask.dtype).removeprefix('torch.')} {list(mask.shape)}"
            raise CallError(f"expected a bool attention_mask [..., {tokens}, {length}], or none, got {got}")
        if kind == "no_mask" and not bool(mask.any()):
            return
        later = torch.arange(length, device=mask.device) > rows.to(mask.device)[:, None]
        if not self.causal or bool((mask != later).any()):
            raise CallError("expected an attention_mask that hides the later keys alone, or none, got another")

    def _packed(self, query: Tensor, key: Tensor, value: Tensor, packed: Any) -> Tensor:
        if packed.qkv_format != "thd" or getattr(packed, "cu_seqlens_q_padded", None) is not None:
            raise CallError(f"expected packed sequences without padding in format thd, got {packed.qkv_format}")
        if not self.attn.documents:
            raise CallError("expected a pattern with `documents` for packed sequences, got one without")
        q, k, v = (each.transpose(0, 1).unsqueeze(0) for each in (query, key, value))
        ends = packed.cu_seqlens_q.to(torch.int32)
        out: Tensor
        if self.context is None:
            out = self.attn(q, k, v, cu_seqlens=ends)
        else:
            out = self._of_documents(tuple(ends.tolist()), len(query), self.context)(q, k, v)
        return out[0].transpose(0, 1).flatten(1)

    def _of_documents(self, ends: tuple[int, ...], tokens: int, context: Any) -> ParallelAttention:
        """By documents of all ranks; this one has a chunk from either end of each."""
        if self._by_documents is None or self._by_documents[0] != ends:
            ranks = dist.get_world_size(context)
            if ends[-1] != tokens * ranks or any(length % (2 * ranks) for length in map(sub, ends[1:], ends)):
                raise CallError(
                    f"expected documents of {tokens * ranks} tokens together, of which each has a multiple of "
                    f"{2 * ranks}, got cu_seqlens_q {list(ends)!r:.80}"
                )
            dealt = plan(self.attn, context, ends[-1], balance=zigzag_of_documents(ends, ranks)).for_documents(ends)
            made = self._by_documents[1].of_plan(dealt) if self._by_documents else ParallelAttention(self.attn, dealt)
            self._by_documents = ends, made
        return self._by_documents[1]

    def _plan(self, tokens: int) -> Plan:
        """Of sequences of which this rank has so many: as Megatron deals them out."""
        if tokens not in self._plans:
            assert self.context is not None
            ranks, rank = dist.get_world_size(self.context), dist.get_rank(self.context)
            found = plan(self.attn, self.context, tokens * ranks, balance="zigzag")
            chunk, rest = divmod(tokens, 2)
            starts = rank * chunk, (2 * ranks - 1 - rank) * chunk
            if rest or found.positions.tolist() != [start + n for start in starts for n in range(chunk)]:
                raise CallError(f"expected chunks of whole blocks on each rank, got {tokens} tokens on {ranks} ranks")
            self._plans[tokens] = found
        return self._plans[tokens]


def core_attention(
    program: AnyProgram, name: str | None = None, *, target: str | None = None, **params: Given
) -> Callable[..., SparseCoreAttention]:
    """What stands for `core_attention` in `SelfAttentionSubmodules`.

    program: a Program, a Pattern or Model of one, a path or source text; name: of a model or a pattern in it, whose
    layers are those of the config (None: its model if it has one, else its only pattern). params: of that.
    Builders raise CallError.
    """
    chosen = origin_of(program, name, params)

    def build(*, config: Any, layer_number: int, **more: Any) -> SparseCoreAttention:
        pattern = patterns_of(chosen, config.num_layers)[layer_number - 1]
        kind = more.get("attention_type")
        if kind is not None and _kind(kind) not in SELF:
            raise CallError(f"expected attention_type self, got {_kind(kind)}")
        for key in ("k_channels", "v_channels"):
            if more.get(key) not in (None, config.kv_channels):
                raise CallError(f"expected {key} of config.kv_channels, {config.kv_channels}, got {more[key]}")
        own = {key: more[key] for key in ("softmax_scale", "pg_collection", "attn_mask_type") if key in more}
        return SparseCoreAttention(pattern, config=config, target=target, **own)

    return build


def with_core_attention(spec: Any, build: Callable[..., SparseCoreAttention]) -> Any:
    """A copy of a layer's ModuleSpec, such as those that its models of GPT have, with a builder of
    `core_attention` in it."""
    found = copy.deepcopy(spec)
    found.submodules.self_attention.submodules.core_attention = build
    return found


def _kind(given: Any) -> Any:
    """The name of a member of an enum; a name itself."""
    return getattr(given, "name", given)


def _check_config(config: Any) -> None:
    if config.attention_dropout:
        raise CallError(f"expected config.attention_dropout of 0, got {config.attention_dropout}")
    if getattr(config, "window_size", None) is not None:
        raise CallError(f"expected config.window_size None, since the pattern has windows, got {config.window_size}")
    kind = getattr(config, "softmax_type", "vanilla")
    if kind != "vanilla":
        raise CallError(f"expected config.softmax_type 'vanilla', got {kind!r}; patterns have `learned_sink`")


def _group(collection: Any, name: str, size: int) -> Any:
    """The ranks of one kind of parallelism; None where there is one rank."""
    if size == 1:
        return None
    group = getattr(collection, name, None)
    if group is None:
        raise CallError(f"expected a pg_collection with {name} for {size} ranks, got none")
    return group

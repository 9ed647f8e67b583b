"""What a model's attention layers call in place of their own attention, and the kernels that it runs.

Invariant: a layer attends through the `ModelCall` that the model's hook made of the whole model's call, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers.cache import SparseCache
from sparsec.integrations.transformers.lists import (
    LISTS,
    MASKED,
    Fed,
    Selector,
    from_first_token,
    given_lists,
    selected,
)
from sparsec.integrations.transformers.marks import CallMarks
from sparsec.integrations.transformers.modifiers import check_options
from sparsec.integrations.transformers.padding import Spans
from sparsec.integrations.transformers.ranks import SequenceRanks
from sparsec.integrations.transformers.selection import Selecting
from sparsec.integrations.transformers.trial import NoCall
from sparsec.program import Pattern
from sparsec.runtime.compile import compile
from sparsec.runtime.inputs.checks import InputTensors
from sparsec.runtime.module import SparseAttention
from sparsec.sema.inputs import input_names
from sparsec.sema.model import Score

IMPLEMENTATION = "sparsec"
"""The name of this attention among those of transformers."""


@dataclass(slots=True)
class LayerKernels:
    """A pattern for given head counts, compiled for each dtype, device and scale that a call brings.

    A copy, and what is loaded from a file, compiles its own.
    """

    pattern: Pattern
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    score: Score
    target: str | None
    fed: Fed | None = None
    """How the lists that the layers choose reach the pattern."""
    made: tuple[str, ...] = ()
    """The inputs whose marks are made here, and taken away when a prompt ends."""
    encodes: bool = False
    """Whether the model looks in both directions, and has no cache."""
    own_window: bool = False
    """Whether the pattern is the window, or the chunk, that a layer has of its own."""
    compiled: dict[tuple[torch.dtype, torch.device, float | None, bool], SparseAttention] = field(default_factory=dict)

    def of(
        self, dtype: torch.dtype, device: torch.device, scaling: float | None, *, packed: bool = False
    ) -> SparseAttention:
        """The module for inputs of `dtype` on `device`, whose scores are q.k * scaling (None: 1/sqrt(head_dim));
        packed: for sequences packed end to end."""
        scale = self._scale(scaling)
        found = self.compiled.get((dtype, device, scale, packed))
        if found is None:
            found = self.compiled[dtype, device, scale, packed] = self._compile(dtype, device, packed)
            found.scale = scale
        return found

    def of_module(
        self,
        module: nn.Module,
        dtype: torch.dtype,
        device: torch.device,
        scaling: float | None,
        *,
        packed: bool = False,
    ) -> SparseAttention:
        """As `of`, with the sinks of a layer's attention where the pattern has learned ones."""
        attn = self.of(dtype, device, scaling, packed=packed)
        if self.score.learned and attn.sink is not module.sinks:
            attn.sink = module.sinks  # type: ignore[assignment]  # the model's parameter, which it may have replaced
        return attn

    @property
    def selected(self) -> tuple[str, ...]:
        """The pattern's inputs that a selector gives: all but the model's own lists, and the marks that are made."""
        given = self.made if self.fed is None else (*self.made, self.fed.name)
        inputs = self.pattern.resolve(self.heads, self.kv_heads).inputs
        return tuple(name for name in input_names(inputs) if name not in given)

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "compiled"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in {**state, "compiled": {}}.items():
            setattr(self, name, value)

    def _scale(self, scaling: float | None) -> float | None:
        own = self.head_dim**-0.5 if self.score.scale is None else self.score.scale
        wanted = self.head_dim**-0.5 if scaling is None else float(scaling)
        if math.isclose(own, wanted, rel_tol=1e-6):
            return self.score.scale
        if self.score.scale is not None:
            raise CallError(f"expected a pattern with the model's scale {wanted}, got scale {own}")
        return wanted

    @torch.compiler.disable(reason="a pattern is compiled at the first call: call the model once before torch.compile")  # type: ignore[no-untyped-call, untyped-decorator]
    def _compile(self, dtype: torch.dtype, device: torch.device, packed: bool) -> SparseAttention:
        return compile(
            self.pattern.in_documents() if packed else self.pattern,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            value_dim=self.value_dim,
            dtype=dtype,
            device=device,
            target=self.target,
        )


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model.

    kernels: of each layer, None of one that does not attend. new: the columns that the call brings. cache: None without
    one. counts: with a cache, int32 [rows] on the CPU, the tokens of each row among the new columns (None: all). spans:
    without a cache, the tokens of each row (None: all, or padding that nobody sees). replace_window: whether the
    patterns stand for the model's own windows. attended: how often each layer has attended so far, with a cache.
    selector: what gives the inputs that the model does not. padding: with a cache, int [rows], the columns before each
    row's first token (None: none). marks: those that the file says how to make. selecting: which keys of a prompt stay,
    of a model that `compress` changed. ranks: those that hold a sequence together, and its length, of which the call
    brings this rank's tokens. packed: int32 [sequences + 1] on the model's device, where each of the sequences starts
    that one row holds, without a cache.
    """

    kernels: tuple[LayerKernels | None, ...]
    new: int
    cache: SparseCache | None
    counts: Tensor | None
    spans: Spans | None
    replace_window: bool
    attended: list[int]
    selector: Selector | None = None
    padding: Tensor | None = None
    marks: CallMarks | None = None
    selecting: Selecting | None = None
    ranks: tuple[SequenceRanks, int] | None = None
    packed: Tensor | None = None


class Witness(Protocol):
    """Stands where a `ModelCall` does, and sees what each layer asks of its attention."""

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        scaling: float | None,
        options: dict[str, Any],
    ) -> tuple[Tensor, None]: ...


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sparsec_call: ModelCall | Witness | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: query [B, H, N, D]; key, value [B, G, N, D]; returns [B, N, H, D]."""
    if sparsec_call is None:
        raise NoCall(
            "expected a model that a pattern was applied to, and that hands keyword arguments down to its attention; "
            "got neither, or one whose config alone names sparsec: call apply, or restore, on this model itself"
        )
    if not isinstance(sparsec_call, ModelCall):
        return sparsec_call.attend(module, query, key, value, attention_mask, scaling, kwargs)
    call, index = sparsec_call, module.layer_idx
    assert isinstance(index, int)
    kernels = call.kernels[index]
    assert kernels is not None, "a layer that attends has kernels"
    if dropout > 0:
        raise CallError(f"expected no dropout of attention weights, got {dropout}; set config.attention_dropout to 0")
    choosing = kernels.fed is not None and kwargs.get(kernels.fed.argument) is not None
    mask = None if attention_mask is None or choosing else attention_mask.shape
    replaced = call.replace_window or kernels.own_window
    check_asked(kernels.score, mask, kwargs, replace_window=replaced, encodes=kernels.encodes)
    device = query.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else query.dtype
    attn = kernels.of_module(module, dtype, device, scaling, packed=call.packed is not None)
    asked, fewer = query, call.new - query.shape[2]
    if key.shape[2] != call.new or fewer < 0:
        raise CallError(f"expected {call.new} queries and keys, got {query.shape[2]} and {key.shape[2]}")
    if fewer:  # the last ones alone, where a model needs no others
        query = nn.functional.pad(query, (0, 0, fewer, 0))
    lists = given_lists(kernels.fed, kwargs, fewer) if choosing and kernels.fed is not None else None
    if call.cache is not None:
        nth = call.attended[index]
        call.attended[index] = nth + 1
        layer = call.cache.layers[index]
        renewed = nth in layer.renewals
        inputs = _inputs(call, kernels, index, query, key, lists, call.padding, renewed=renewed)
        out = layer.attend(attn, nth, query, key, value, call.counts, inputs, drops=bool(kernels.made))
        if call.marks is not None and call.marks.everything and kernels.made:
            renewal = call.marks.end_prompt(kernels.made, attn, layer.kvs[nth], asked, key, value)
            if renewal is not None:
                layer.renewals[nth] = renewal
        if call.selecting is not None and call.selecting.reads:
            call.selecting.after(layer, index, module, attn, asked, key, value)
    elif call.ranks is not None:
        ranks, length = call.ranks
        out = ranks.attend(attn, length, query, key, value)
    elif call.packed is not None:
        out = attn(query, key, value, cu_seqlens=call.packed)
    elif call.spans is None:
        out = attn(query, key, value, inputs=_inputs(call, kernels, index, query, key, lists, None))
    else:
        out = _attend_spans(attn, index, query, key, value, call, lists)
    return out[:, :, fewer:].transpose(1, 2).contiguous(), None


def _inputs(
    call: ModelCall,
    kernels: LayerKernels,
    layer: int,
    q: Tensor,
    k: Tensor,
    lists: Tensor | None,
    padding: Tensor | None,
    *,
    renewed: bool = False,
) -> dict[str, InputTensors] | None:
    """The tensors of the pattern's inputs for one call of a layer's attention; `padding`: see `ModelCall`, `renewed`:
    `CallMarks.of_keys`."""
    wanted = kernels.selected if call.selector is not None else ()
    found = selected(call.selector, wanted, layer, q, k) if call.selector is not None and wanted else {}
    if call.marks is not None:
        found |= call.marks.of_keys(kernels.made, k, renewed=renewed)
    if call.selecting is not None:
        found |= call.selecting.every_key(k)
    if lists is not None and kernels.fed is not None:
        found[kernels.fed.name] = lists if padding is None else from_first_token(kernels.fed, lists, padding)
    return found or None


def _attend_spans(
    attn: SparseAttention, layer: int, q: Tensor, k: Tensor, v: Tensor, call: ModelCall, lists: Tensor | None
) -> Tensor:
    """Attention within the tokens of each row, which start at position 0; 0 at padding. Equal spans go together."""
    out = q.new_zeros((*q.shape[:3], v.shape[3]), dtype=attn.dtype)
    spans = call.spans
    assert spans is not None
    kernels = call.kernels[layer]
    assert kernels is not None, "a layer that attends has kernels"
    for first, stop in dict.fromkeys(spans):
        if first < stop:
            rows = [row for row, span in enumerate(spans) if span == (first, stop)]
            parts = [tensor[rows, :, first:stop] for tensor in (q, k, v)]
            own = lists if lists is None else lists[rows if len(lists) > 1 else [0], :, first:stop]
            before = None if first == 0 else torch.full((len(rows),), first)
            inputs = _inputs(call, kernels, layer, parts[0], parts[1], own, before)
            out[rows, :, first:stop] = attn(*parts, inputs=inputs)
    return out


def check_asked(
    score: Score,
    mask: Sequence[int] | None,
    options: Mapping[str, Any],
    *,
    replace_window: bool,
    encodes: bool = False,
) -> None:
    """Refuses what a model asks of its attention and a kernel does not do; `mask`: the shape of an attention mask;
    encodes: of a model that looks in both directions."""
    if mask is not None:
        raise CallError("expected an attention_mask [batch, tokens], got another: the pattern says who sees whom")
    if options.get("sliding_window") is not None and not replace_window:
        raise CallError(f"expected replace_window=True for a model with a window, got {options['sliding_window']}")
    check_options(score, options)
    if options.get("is_causal") is False and not encodes:
        raise CallError("expected a causal call, got is_causal=False")
    for name, given in options.items():
        if isinstance(given, Tensor | torch.Size) and name not in KNOWN_TENSORS and name not in LISTS:
            raise CallError(f"expected a model whose attention takes q, k and v alone, got {name} too")


KNOWN_TENSORS = frozenset(
    ("s_aux", "position_ids", "cache_position", "num_items_in_batch", "shift_labels", "token_type_ids")
)
"""Tensors that reach attention functions and change nothing in attention itself."""


def mask_for(*args: Any, use_vmap: bool = False, config: Any = None, **kwargs: Any) -> Tensor | None:
    """The mask function of transformers for this attention: none, for the model's hook has read the padding already.

    Models whose layers read it when they choose their keys get theirs.
    """
    if use_vmap:
        raise CallError("expected a model whose mask is causal, got one that adds pairs to it or takes pairs away")
    if MASKED not in (getattr(config, "layer_types", None) or ()):
        return None
    mask: Tensor = sdpa_mask(*args, config=config, **{**kwargs, "allow_is_causal_skip": False})
    return mask


AttentionInterface.register(IMPLEMENTATION, attend)
AttentionMaskInterface.register(IMPLEMENTATION, mask_for)

"""What a model asks of its attention, and the patterns of its layers -> the kernels of each layer, or a CallError.

Invariant: what the model's own attention does beside soft-max over causal pairs is in the pattern, or refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import nn

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers.attention import LayerKernels, check_asked
from sparsec.integrations.transformers.lists import fed
from sparsec.integrations.transformers.marks import Marks
from sparsec.integrations.transformers.modifiers import check_own_score
from sparsec.integrations.transformers.own import own_window
from sparsec.integrations.transformers.selection import KEPT
from sparsec.integrations.transformers.trial import Asked
from sparsec.ir.bands.liveness import is_causal
from sparsec.program import Pattern, parse
from sparsec.sema.model import Documents, Edge


def unwrapped(model: Any) -> Any:
    """The model of transformers inside a model of PEFT; another model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def decoder_of(model: Any) -> nn.Module:
    """The part of a causal LM that holds its layers, and gets the padding mask and the cache."""
    model = unwrapped(model)
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "set_attn_implementation"):
        raise CallError(f"expected a model of transformers, got {type(model).__name__}")
    if getattr(config, "is_encoder_decoder", False):
        raise CallError(f"expected a causal LM, got the encoder-decoder {type(model).__name__}")
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    if not hasattr(decoder, "set_attn_implementation"):  # a head that is named decoder, for one
        decoder = getattr(model, "base_model", model)
    if not isinstance(decoder, nn.Module) or not hasattr(decoder, "set_attn_implementation"):
        raise CallError(f"expected a causal LM with a decoder, got {type(model).__name__} without")
    return decoder


def fit(
    decoder: nn.Module,
    layers: Sequence[Sequence[Asked]],
    patterns: Sequence[Pattern],
    *,
    places: Sequence[int] | None = None,
    replace_window: bool,
    target: str | None,
    selected: bool = False,
    marks: Marks | None = None,
    among: tuple[str, ...] = (),
    encodes: bool = False,
) -> tuple[LayerKernels, ...]:
    """The kernels of each layer that attends: layers[n] is what layer places[n] (n, if left out) asks of its attention,
    patterns[n] its pattern.

    Layers of one pattern and shape share theirs, but those with a learned sink, for their sinks differ. `selected`: a
    selector gives inputs that the layers do not. marks: those that the file says how to make. among: the inputs that
    mark the keys that stay. encodes: the model looks in both directions, and so
    may its patterns. Raises CallError, and DiagnosticError for a pattern of a decoder that is not causal.
    """
    made: list[LayerKernels] = []
    shared: dict[tuple[object, ...], LayerKernels] = {}
    for layer, calls, pattern in zip(places or range(len(layers)), layers, patterns, strict=True):
        (_, heads, _, head_dim), kv_heads, value_dim = calls[0].query, calls[0].key[1], calls[0].value[3]
        if any((each.query, each.key) != (calls[0].query, calls[0].key) for each in calls):
            raise CallError(f"expected attention of one shape in layer {layer}, got {[each.query for each in calls]}")
        resolved = pattern.resolve(heads, kv_heads)
        marked = among if marks is None else marks.made(resolved.inputs)
        lists = fed(resolved, calls[0].module, calls[0].options, selected=selected, made=marked)
        key = (id(pattern), heads, kv_heads, head_dim, value_dim, lists)
        kernels = shared.get(key)
        if kernels is None:
            if not encodes:
                pattern.cache_layout(heads, kv_heads)  # says what is wrong where it is not causal, or packs documents
            elif resolved.documents is not Documents.NONE:
                raise CallError(
                    f"expected a pattern without documents, which a model packs itself, got {pattern.name!r}"
                )
            kernels = LayerKernels(pattern, heads, kv_heads, head_dim, value_dim, resolved.score, target, lists, marked)
            kernels.encodes = encodes
            if encodes and all(is_causal(band) for head in pattern.lowered(heads, kv_heads).bands for band in head):
                warnings.warn(
                    f"pattern {pattern.name!r} sees no later token, where {type(decoder).__name__} sees them all; a "
                    "pattern without `causal` looks both ways",
                    stacklevel=3,
                )
            if not kernels.score.learned:
                shared[key] = kernels
        for each in calls:
            _check_layer(each, decoder.config, kernels, layer, replace_window)
        made.append(kernels)
    return tuple(made)


def among_kept(patterns: Sequence[Pattern], layers: Sequence[Sequence[Asked]]) -> list[Pattern]:
    """The patterns within the keys that `KEPT` marks; equal ones stay one object. Raises CallError."""
    found: dict[int, Pattern] = {}
    for layer, (pattern, calls) in enumerate(zip(patterns, layers, strict=True)):
        if len(calls) != 1:
            raise CallError(f"expected layers that attend once in a forward, got {len(calls)} times in layer {layer}")
        if pattern.inputs:
            raise CallError(
                f"expected patterns without inputs, for a score says which keys stay, got {pattern.name!r} with "
                f"{', '.join(pattern.inputs)}"
            )
        if id(pattern) not in found:
            found[id(pattern)] = pattern.among(KEPT)
    return [found[id(pattern)] for pattern in patterns]


def counts_from_end(kernels: LayerKernels) -> bool:
    """Whether the pattern has a bound that counts back from the last key, which padding at the right would move."""
    return _has_end(kernels.pattern.resolve(kernels.heads, kernels.kv_heads).terms)


def _has_end(node: object) -> bool:
    if isinstance(node, Edge):
        return node.from_end
    if isinstance(node, tuple):
        return any(map(_has_end, node))
    return is_dataclass(node) and any(_has_end(getattr(node, part.name)) for part in fields(node))


def _check_layer(asked: Asked, config: Any, kernels: LayerKernels, layer: int, replace_window: bool) -> None:
    module, score, name = asked.module, kernels.score, kernels.pattern.name
    both = not getattr(module, "is_causal", True) or getattr(config, "is_causal", True) is False
    if both and not kernels.encodes:
        raise CallError(f"expected causal attention, got attention in both directions in layer {layer}")
    if getattr(module, "is_cross_attention", False) or getattr(config, "add_cross_attention", False):
        raise CallError(f"expected self-attention, got cross-attention in layer {layer}")
    own = None if kernels.fed is not None else own_window(config, layer, asked.options, ahead=kernels.encodes)
    if own is not None and not replace_window:
        window, term = own
        if term is None or not _same_set(kernels, term):
            raise CallError(
                f"expected replace_window=True, for layer {layer} of the model has its own {window}, which pattern "
                f"{name!r} would replace; got replace_window=False"
            )
        kernels.own_window = True
    check_own_score(score, name, config, module)
    try:
        mask = None if kernels.fed is not None else asked.attention_mask
        check_asked(
            score, mask, asked.options, replace_window=replace_window or kernels.own_window, encodes=kernels.encodes
        )
    except CallError as error:
        raise CallError(f"{error}, in layer {layer} ({type(module).__name__})") from error


def _same_set(kernels: LayerKernels, term: str) -> bool:
    """Whether every head sees what `term` says, causally in a decoder."""
    own = parse(f"pattern own {{ {'' if kernels.encodes else 'causal '}attend {term} }}").pattern()
    counts = kernels.heads, kernels.kv_heads
    theirs, ours = (
        [[replace(band, origin="") for band in head] for head in each.lowered(*counts).bands]
        for each in (own, kernels.pattern)
    )
    return theirs == ours

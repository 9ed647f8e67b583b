"""What a model asks of its attention, and the patterns of its layers -> the kernels of each layer, or a CallError.

Invariant: what the model's own attention does beside soft-max over causal pairs is in the pattern, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers.attention import LayerKernels, check_asked
from sparsec.integrations.transformers.lists import fed
from sparsec.integrations.transformers.marks import Marks
from sparsec.integrations.transformers.modifiers import check_own_score
from sparsec.integrations.transformers.selection import KEPT
from sparsec.integrations.transformers.trial import Asked
from sparsec.program import Pattern
from sparsec.sema.model import Edge


def decoder_of(model: Any) -> nn.Module:
    """The part of a causal LM that holds its layers, and gets the padding mask and the cache."""
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
    replace_window: bool,
    target: str | None,
    selected: bool = False,
    marks: Marks | None = None,
    among: tuple[str, ...] = (),
) -> tuple[LayerKernels, ...]:
    """The kernels of each layer: layers[l] is what layer l asks of its attention in a forward, patterns[l] its pattern.

    Layers of one pattern and shape share theirs, but those with a learned sink, for their sinks differ. `selected`: a
    selector gives inputs that the layers do not. marks: those that the file says how to make. among: the inputs that
    mark the keys that stay. Raises CallError, and DiagnosticError for a pattern that is not causal.
    """
    made: list[LayerKernels] = []
    shared: dict[tuple[object, ...], LayerKernels] = {}
    for layer, (calls, pattern) in enumerate(zip(layers, patterns, strict=True)):
        (_, heads, _, head_dim), kv_heads, value_dim = calls[0].query, calls[0].key[1], calls[0].value[3]
        if any((each.query, each.key) != (calls[0].query, calls[0].key) for each in calls):
            raise CallError(f"expected attention of one shape in layer {layer}, got {[each.query for each in calls]}")
        resolved = pattern.resolve(heads, kv_heads)
        marked = among if marks is None else marks.made(resolved.inputs)
        lists = fed(resolved, calls[0].module, calls[0].options, selected=selected, made=marked)
        key = (id(pattern), heads, kv_heads, head_dim, value_dim, lists)
        kernels = shared.get(key)
        if kernels is None:
            pattern.cache_layout(heads, kv_heads)  # says what is wrong where it is not causal, or packs documents
            kernels = LayerKernels(pattern, heads, kv_heads, head_dim, value_dim, resolved.score, target, lists, marked)
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
    if not getattr(module, "is_causal", True) or getattr(config, "is_causal", True) is False:
        raise CallError(f"expected causal attention, got attention in both directions in layer {layer}")
    if getattr(module, "is_cross_attention", False) or getattr(config, "add_cross_attention", False):
        raise CallError(f"expected self-attention, got cross-attention in layer {layer}")
    window = _own_window(config, layer)
    if kernels.fed is not None:
        window = None
    if window is not None and not replace_window:
        raise CallError(
            f"expected replace_window=True, for layer {layer} of the model has its own {window}, which pattern "
            f"{name!r} would replace; got replace_window=False"
        )
    check_own_score(score, name, config, module)
    try:
        mask = None if kernels.fed is not None else asked.attention_mask
        check_asked(score, mask, asked.options, replace_window=replace_window)
    except CallError as error:
        raise CallError(f"{error}, in layer {layer} ({type(module).__name__})") from error


def _own_window(config: Any, layer: int) -> str | None:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return None if kinds[layer] == "full_attention" else str(kinds[layer])
    for name in ("sliding_window", "attention_chunk_size"):
        if getattr(config, name, None) is not None:
            return f"{name} {getattr(config, name)}"
    return None

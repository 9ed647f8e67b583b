"""A model and the patterns of its layers -> the kernels of each layer, or a CallError that says what does not fit.

Invariant: what the model's own attention does beside soft-max over causal pairs is in the pattern, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers.attention import Kernels
from sparsec.program import Pattern
from sparsec.sema.model import Edge


def decoder_of(model: Any) -> nn.Module:
    """The part of a causal LM that holds its layers, and gets the padding mask and the cache."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "set_attn_implementation"):
        raise CallError(f"expected a model of transformers, got {type(model).__name__}")
    if getattr(config, "is_encoder_decoder", False):
        raise CallError(f"expected a causal LM, got the encoder-decoder {type(model).__name__}")
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else getattr(model, "base_model", model)
    assert isinstance(decoder, nn.Module)
    return decoder


def attention_layers(decoder: nn.Module) -> tuple[nn.Module, ...]:
    """The attention modules of a decoder, one a layer, in order."""
    found: dict[int, nn.Module] = {}
    for module in decoder.modules():
        layer = getattr(module, "layer_idx", None)
        if isinstance(layer, int) and hasattr(module, "is_causal"):
            found[layer] = module
    count = getattr(decoder.config, "num_hidden_layers", None)
    if not found or list(found) != list(range(len(found))) or len(found) != count:
        raise CallError(f"expected self-attention in each of {count} layers, got it in layers {sorted(found)}")
    return tuple(found.values())


def fit(
    decoder: nn.Module, patterns: Sequence[Pattern], *, replace_window: bool, target: str | None
) -> tuple[Kernels, ...]:
    """The kernels of each layer, `patterns[l]` being layer l's. Layers with equal patterns share theirs, but those with
    a learned sink, for their sinks differ. Raises CallError, and DiagnosticError for a pattern that is not causal."""
    modules = attention_layers(decoder)
    if len(patterns) != len(modules):
        raise CallError(f"expected patterns for {len(modules)} layers, got {len(patterns)}")
    made: list[Kernels] = []
    shared: dict[int, Kernels] = {}
    for layer, (module, pattern) in enumerate(zip(modules, patterns, strict=True)):
        kernels = shared.get(id(pattern))
        if kernels is None:
            kernels = _kernels(module, decoder.config, pattern, target)
            if not kernels.score.learned_sink:
                shared[id(pattern)] = kernels
        _check_layer(module, decoder.config, kernels, layer, replace_window)
        made.append(kernels)
    return tuple(made)


def counts_from_end(kernels: Kernels) -> bool:
    """Whether the pattern has a bound that counts back from the last key, which padding at the right would move."""
    return _has_end(kernels.pattern.resolve(kernels.heads, kernels.kv_heads).terms)


def _has_end(node: object) -> bool:
    if isinstance(node, Edge):
        return node.from_end
    if isinstance(node, tuple):
        return any(map(_has_end, node))
    return is_dataclass(node) and any(_has_end(getattr(node, part.name)) for part in fields(node))


def _kernels(module: nn.Module, config: Any, pattern: Pattern, target: str | None) -> Kernels:
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(module, "head_dim", None) or getattr(config, "head_dim", None) or config.hidden_size // heads
    score = pattern.resolve(heads, kv_heads).score
    pattern.cache_layout(heads, kv_heads)  # says what is wrong with a pattern that is not causal, or packs documents
    return Kernels(pattern, heads, kv_heads, head_dim, score, target)


def _check_layer(module: nn.Module, config: Any, kernels: Kernels, layer: int, replace_window: bool) -> None:
    score, name = kernels.score, kernels.pattern.name
    if not module.is_causal or getattr(config, "is_causal", True) is False:
        raise CallError(f"expected causal attention, got attention in both directions in layer {layer}")
    if getattr(module, "is_cross_attention", False) or getattr(config, "add_cross_attention", False):
        raise CallError(f"expected self-attention, got cross-attention in layer {layer}")
    window = _own_window(config, layer)
    if window is not None and not replace_window:
        raise CallError(
            f"expected replace_window=True, for layer {layer} of the model has its own {window}, which pattern "
            f"{name!r} would replace; got replace_window=False"
        )
    softcap = getattr(config, "attn_logit_softcapping", None)
    if softcap is not None and softcap != score.softcap:
        raise CallError(f"expected pattern {name!r} with the model's `softcap {softcap:g}`, got {score.softcap}")
    sinks = getattr(module, "sinks", None)
    if (sinks is not None) != score.learned_sink:
        has = "with learned_sink, for the model has sinks" if sinks is not None else "without learned_sink"
        raise CallError(f"expected pattern {name!r} {has}; got one {'with' if score.learned_sink else 'without'} it")


def _own_window(config: Any, layer: int) -> str | None:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return None if kinds[layer] == "full_attention" else str(kinds[layer])
    for name in ("sliding_window", "attention_chunk_size"):
        if getattr(config, name, None) is not None:
            return f"{name} {getattr(config, name)}"
    return None

"""The config of a model -> a program that says which keys its own layers see: all, a window, or a chunk.

Invariant: layers of another kind are written as dense, which `fit` refuses where a layer is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from sparsec.program import Program, parse
from sparsec.sema.arms import alike, layer_arms

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
SIZES = {SLIDING: "sliding_window", CHUNKED: "attention_chunk_size"}
"""Where a config has the size of each kind."""


def own_program(decoder: nn.Module) -> tuple[Program, bool]:
    """The program, with the model's soft cap and sinks, and whether it has the windows of all layers."""
    config: Any = decoder.config
    count = int(config.num_hidden_layers)
    kinds = [_kind(config, layer) for layer in range(count)]
    terms = [_term(kind, _of_layer(config, layer)) or "full" for layer, kind in enumerate(kinds)]
    score = []
    if getattr(config, "attn_logit_softcapping", None) is not None:
        score.append(f"softcap {config.attn_logit_softcapping:g}")
    if any(hasattr(module, "sinks") for module in decoder.modules()):
        score.append("learned_sink")
    lines, uses = [], {}
    for term, layers in alike(terms).items():
        name = f"layer_{layers[0]}"
        uses[name] = layers
        lines += [f"pattern {name} {{", "    causal", *(f"    {each}" for each in score)]
        lines += [f"    attend {term}", "}", ""]
    lines += ["model own {", f"    layers {count}", *layer_arms(uses), "}", ""]
    known = set(kinds) <= {FULL, SLIDING, CHUNKED}
    return parse("\n".join(lines), filename="<own>"), known


def own_window(config: Any, layer: int, options: Mapping[str, Any], *, ahead: bool) -> tuple[str, str | None] | None:
    """What a layer sees less than all, as its config calls it, and as a term; None of one that sees all keys.

    options: what it asks of its attention, whose `sliding_window` counts the query itself. ahead: of an encoder, whose
    window has as many keys on either side.
    """
    kind, of = _kind(config, layer), _of_layer(config, layer)
    if kind == FULL:
        return None
    asked = options.get("sliding_window") if kind == SLIDING else None
    size = getattr(of, SIZES.get(kind, ""), None)
    called = kind if getattr(config, "layer_types", None) is not None else f"{SIZES[kind]} {size}"
    return called, _term(kind, of, ahead, asked)


def _of_layer(config: Any, layer: int) -> Any:
    """The config of one layer; where layers differ in more than their kind, the model's own raises for what differs."""
    return config.per_layer_config[layer] if getattr(config, "is_heterogeneous", False) else config


def _kind(config: Any, layer: int) -> str:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return str(kinds[layer])
    of = _of_layer(config, layer)
    return next((kind for kind, name in SIZES.items() if getattr(of, name, None) is not None), FULL)


def _term(kind: str, config: Any, ahead: bool = False, asked: int | None = None) -> str | None:
    """config: the layer's. asked: the window that the layer asks for, if it does. None of a kind without a
    size."""
    size = getattr(config, SIZES.get(kind, ""), None)
    if size is None and asked is None:
        return None
    if kind == CHUNKED:
        return f"chunk({size})"
    if not ahead:
        return f"window({size if asked is None else asked})"
    last = int(size) if asked is None else asked - 1  # type: ignore[arg-type]  # one of them is known
    return f"window({last + 1}, ahead = {last})"

"""The config of a model -> a program that says which keys its own layers see: all, a window, or a chunk.

Invariant: layers of another kind are written as dense, which `fit` refuses where a layer is not.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from sparsec.program import Program, parse
from sparsec.sema.arms import alike, layer_arms

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


def own_program(decoder: nn.Module) -> tuple[Program, bool]:
    """The program, with the model's soft cap and sinks, and whether it has the windows of all layers."""
    config: Any = decoder.config
    kinds = _kinds(config)
    score = []
    if getattr(config, "attn_logit_softcapping", None) is not None:
        score.append(f"softcap {config.attn_logit_softcapping:g}")
    if any(hasattr(module, "sinks") for module in decoder.modules()):
        score.append("learned_sink")
    lines, uses = [], {}
    for kind, layers in alike(kinds).items():
        name = f"layer_{layers[0]}"
        uses[name] = layers
        lines += [f"pattern {name} {{", "    causal", *(f"    {each}" for each in score)]
        lines += [f"    attend {_term(kind, config)}", "}", ""]
    lines += ["model own {", f"    layers {len(kinds)}", *layer_arms(uses), "}", ""]
    known = set(kinds) <= {FULL, SLIDING, CHUNKED}
    return parse("\n".join(lines), filename="<own>"), known


def _kinds(config: Any) -> tuple[str, ...]:
    """Of each layer."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return tuple(kinds)
    by_config = {SLIDING: "sliding_window", CHUNKED: "attention_chunk_size"}
    found = [kind for kind, name in by_config.items() if getattr(config, name, None) is not None]
    return (found[0] if found else FULL,) * int(config.num_hidden_layers)


def _term(kind: str, config: Any, ahead: bool = False) -> str:
    if kind == SLIDING and ahead:
        return f"window({config.sliding_window + 1}, ahead = {config.sliding_window})"
    if kind == SLIDING:
        return f"window({config.sliding_window})"
    return f"chunk({config.attention_chunk_size})" if kind == CHUNKED else "full"


def own_window(config: Any, layer: int, *, ahead: bool) -> tuple[str, str | None] | None:
    """What a layer sees less than all, as its config calls it, and as a term; None of one that sees all keys. ahead: of
    an encoder, whose window has as many keys on either side as its config says."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        kind = str(kinds[layer])
        known = {SLIDING: "sliding_window", CHUNKED: "attention_chunk_size"}.get(kind)
        if kind == FULL:
            return None
        return kind, _term(kind, config, ahead) if known is not None and getattr(
            config, known, None
        ) is not None else None
    for kind, name in ((SLIDING, "sliding_window"), (CHUNKED, "attention_chunk_size")):
        if getattr(config, name, None) is not None:
            return f"{name} {getattr(config, name)}", _term(kind, config, ahead)
    return None

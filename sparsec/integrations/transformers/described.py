"""A model that a pattern was applied to -> what its layers attend by, in words, and what that costs.

Invariant: read from what `apply` compiled, layer by layer; nothing is compiled or run.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from sparsec.analysis.cost import Geometry
from sparsec.analysis.report import Part, Report, report
from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.model import DiagnosticError
from sparsec.diagnostics.tables import count, percent, table
from sparsec.integrations.transformers.attention import LayerKernels
from sparsec.integrations.transformers.fit import decoder_of
from sparsec.integrations.transformers.patch import applied_patch
from sparsec.sema.arms import alike
from sparsec.sema.printer import head_ranges, term_text

USUAL_LENGTH = 8192
"""Tokens, where a config does not say how many the model is for."""


def explain(model: nn.Module, seq_len: int | None = None) -> Report:
    """What the patterns of a model's layers cost for `seq_len` tokens, and what their caches hold, against dense: the
    report of `sparsec explain`. seq_len: that of the config's positions, if left out. Raises CallError."""
    decoder: Any = decoder_of(model)
    patch = applied_patch(decoder)
    length = integer("seq_len", seq_len, 1) if seq_len is not None else _usual(decoder)
    first = patch.kernels[0]
    dtype = str(decoder.dtype).removeprefix("torch.")
    parts = [_part(each, layers, dtype) for each, layers in _kinds(patch.of_layers())]
    return report(parts, _geometry(first, dtype), length)


def describe(model: nn.Module, seq_len: int | None = None) -> str:
    """A table: which layers of a model attend by which pattern, on which target, how many pairs are live of `seq_len`
    tokens, and how many keys a cache keeps. Layers without attention are named. Raises CallError."""
    decoder: Any = decoder_of(model)
    patch = applied_patch(decoder)
    found = explain(model, seq_len)
    rows = []
    for part, (kernels, layers) in zip(found.parts, _kinds(patch.of_layers()), strict=True):
        resolved = kernels.pattern.resolve(kernels.heads, kernels.kv_heads)
        terms = list(dict.fromkeys(term_text(term) for term in resolved.terms))
        more = f", {len(terms) - 1} more" if len(terms) > 1 else ""
        live = "-" if not part.dense_pairs else percent(part.live_pairs / part.dense_pairs)
        slots = sorted({group.slots for group in part.groups})
        kept = "-" if part.cache is None else "..".join(map(str, dict.fromkeys((slots[0], slots[-1]))))
        targets = sorted({each.target for each in kernels.compiled.values()}) or [kernels.target or "-"]
        rows.append([head_ranges(layers), part.name, terms[0] + more, ", ".join(targets), live, kept])
    kind, layers_of = type(model).__name__, patch.layers
    lines = [
        f"{kind}: {count(layers_of, 'layer')}, {found.shapes}, {found.geometry.dtype}, {count(found.tokens, 'token')}",
        "",
        table(["layers", "pattern", "a head sees", "target", "live pairs", "keys in a cache"], rows),
    ]
    without = tuple(layer for layer, each in enumerate(patch.of_layers()) if each is None)
    if without:
        lines.append(f"Layers {head_ranges(without)} do not attend, and are the model's own.")
    if found.prices:
        price = next(each for each in found.prices if each.tokens == found.tokens)
        lines.append(f"The caches of all layers: {price.bytes:,} bytes, {percent(price.saved)} less than dense ones.")
    return "\n".join(lines)


def _kinds(kernels: tuple[LayerKernels | None, ...]) -> list[tuple[LayerKernels, tuple[int, ...]]]:
    """Of each pattern and shape its kernels and layers."""
    places = alike(
        None if each is None else (each.pattern, each.heads, each.kv_heads, each.head_dim, each.value_dim)
        for each in kernels
    )
    found = []
    for of, layers in places.items():
        first = kernels[layers[0]]
        if of is not None and first is not None:
            found.append((first, layers))
    return found


def _geometry(kernels: LayerKernels, dtype: str) -> Geometry:
    return Geometry(kernels.heads, kernels.kv_heads, kernels.head_dim, kernels.value_dim, dtype)


def _part(kernels: LayerKernels, layers: tuple[int, ...], dtype: str) -> Part:
    pattern, heads, kv_heads = kernels.pattern, kernels.heads, kernels.kv_heads
    try:
        layout = pattern.cache_layout(heads, kv_heads)
    except DiagnosticError:
        layout = None  # a pattern that no cache serves still has a cost
    return Part(pattern.name, layers, pattern.lowered(heads, kv_heads), layout, _geometry(kernels, dtype))


def _usual(decoder: Any) -> int:
    found = getattr(decoder.config, "max_position_embeddings", None)
    return int(found) if isinstance(found, int) and found > 0 else USUAL_LENGTH

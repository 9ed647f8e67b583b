"""MInference's table of heads -> a model: which kind of attention each head of each layer has.

The sizes of `stream_llm` heads are lengths of the pattern. Those of `vertical_and_slash` heads say how many columns and
slashes the selector lists at a call: it reads them from the table, and the model names them in a comment. A
`block_sparse` head has none. Invariant: an input is declared where a head of the layer uses it, and nowhere else.
"""

from __future__ import annotations

from collections import Counter

from sparsec.diagnostics.source import SourceFile
from sparsec.diagnostics.tables import count
from sparsec.imports.minference_table import Head, HeadType, Layer, read_heads
from sparsec.imports.table import base_name, standard_text
from sparsec.sema.arms import alike, among, layer_arms

_SIZES = 5  # pairs of sizes that the comment lists
_INPUTS = {
    HeadType.VERTICAL_AND_SLASH: ("input vertical : columns", "input slash : slashes(tiles)"),
    HeadType.BLOCK_SPARSE: ("input picks : blocks",),
    HeadType.STREAM_LLM: (),
}


def minference_model(source: SourceFile) -> tuple[str, str]:
    """The text of the model, and a line about it. Raises DiagnosticError for a bad table."""
    layers = read_heads(source)
    said = _summary(layers)
    lines = [
        f"# MInference (arXiv 2407.02490), from {base_name(source)}: {count(len(layers), 'layer')} of "
        f"{count(len(layers[0]), 'query head')}.",
        f"# {said}.",
        *_sizes(layers),
        "",
    ]
    uses: dict[str, tuple[int, ...]] = {}
    for terms, places in alike(tuple(map(_term, layer)) for layer in layers).items():
        name = "vertical_slash" if set(terms) == {"vertical | slash"} else f"layer_{places[0]}"
        uses[name] = places
        lines += [f"pattern {name} {{", *_statements(layers[places[0]], terms), "}", ""]
    lines += ["model minference {", f"    layers {len(layers)}", *layer_arms(uses), "}", ""]
    return standard_text(source, "\n".join(lines)), said


def _term(head: Head) -> str:
    match head.type:
        case HeadType.VERTICAL_AND_SLASH:
            return "vertical | slash"
        case HeadType.BLOCK_SPARSE:
            return "picks"
        case HeadType.STREAM_LLM:
            return f"sink({head.vertical}) | window({head.slash})"


def _statements(layer: Layer, terms: tuple[str, ...]) -> list[str]:
    used = {head.type for head in layer}
    lines = [
        f"heads {len(layer)}",
        *(line for each, lines in _INPUTS.items() if each in used for line in lines),
        "causal",
    ]
    arms = alike(terms)
    if len(arms) == 1:
        return [*lines, f"attend {terms[0]}"]
    others = max(arms, key=lambda term: len(arms[term]))
    lines += [f"where {among('h', heads)} attend {term}" for term, heads in arms.items() if term != others]
    return [*lines, f"otherwise attend {others}"]


def _summary(layers: tuple[Layer, ...]) -> str:
    types = Counter(head.type for layer in layers for head in layer)
    return ", ".join(f"{count(number, f'{each.value} head')}" for each, number in types.most_common())


def _sizes(layers: tuple[Layer, ...]) -> list[str]:
    """What the selector lists for the heads that are `vertical_and_slash`."""
    sizes = Counter(
        (head.vertical, head.slash) for layer in layers for head in layer if head.type is HeadType.VERTICAL_AND_SLASH
    )
    if not sizes:
        return []
    shown = [f"{columns} and {slashes} ({number})" for (columns, slashes), number in sizes.most_common(_SIZES)]
    more = [f"{len(sizes) - _SIZES} others"] if len(sizes) > _SIZES else []
    return [
        "# How many columns and slashes the selector lists is in the table, head by head; sizes (and heads):",
        f"# {', '.join(shown + more)}.",
    ]

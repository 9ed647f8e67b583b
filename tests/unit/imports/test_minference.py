"""MInference's tables: the heads that are read, and the model's text and sets."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

import sparsec
from sparsec.diagnostics.model import DiagnosticError
from sparsec.diagnostics.source import SourceFile
from sparsec.imports.minference import minference_model
from sparsec.imports.minference_table import Head, HeadType, read_heads
from sparsec.syntax.parser import parse
from sparsec.syntax.printer import print_file

Entry = list[str | int | float]
SLASHED: Entry = ["vertical_and_slash", 1000, 6096, 336382.8]
PICKED: Entry = ["block_sparse", 100, 100, 0.5]


def streaming(sink: int, window: int) -> Entry:
    return ["stream_llm", sink, window, 1]


def table(layers: Sequence[Sequence[Entry]]) -> SourceFile:
    """The heads of a layer in any order, as a JSON object may have them."""
    draw = random.Random(2)
    shuffled = [dict(draw.sample([(str(n), head) for n, head in enumerate(layer)], len(layer))) for layer in layers]
    return SourceFile("tables/Llama 3.json", json.dumps(shuffled, indent=1))


def test_heads_are_read_in_their_order() -> None:
    found = read_heads(table([[SLASHED, streaming(4, 9)], [PICKED, ["vertical_and_slash", 0, 800, -3]]]))
    assert found == (
        (Head(HeadType.VERTICAL_AND_SLASH, 1000, 6096), Head(HeadType.STREAM_LLM, 4, 9)),
        (Head(HeadType.BLOCK_SPARSE, 100, 100), Head(HeadType.VERTICAL_AND_SLASH, 0, 800)),
    )


def test_layers_whose_heads_are_all_vertical_and_slash_share_a_pattern() -> None:
    text, said = minference_model(table([[SLASHED] * 3, [["vertical_and_slash", 30, 800, 1]] * 3]))
    assert text == (
        "# MInference (arXiv 2407.02490), from Llama 3.json: 2 layers of 3 query heads.\n"
        "# 6 vertical_and_slash heads.\n"
        "# How many columns and slashes the selector lists is in the table, head by head; sizes (and heads):\n"
        "# 1000 and 6096 (3), 30 and 800 (3).\n\n"
        "pattern vertical_slash {\n    heads 3\n    input vertical : columns\n    input slash : slashes(tiles)\n"
        "    causal\n    attend vertical | slash\n}\n\n"
        "model minference {\n    layers 2\n    use vertical_slash\n}\n"
    )
    assert said == "6 vertical_and_slash heads"


def test_heads_of_other_types_get_terms_of_their_own() -> None:
    layers = [[SLASHED] * 4, [SLASHED, streaming(64, 256), PICKED, SLASHED], [streaming(0, 9)] * 4, [SLASHED] * 4]
    text, said = minference_model(table(layers))
    assert said == "10 vertical_and_slash heads, 5 stream_llm heads, 1 block_sparse head"
    file, problems = parse(SourceFile("x", text))
    assert problems == () and file is not None and print_file(file) == text
    program = sparsec.parse(text)
    assert program.patterns == ("vertical_slash", "layer_1", "layer_2")
    model = program.model("minference")
    assert [model.layer(n).name for n in range(4)] == ["vertical_slash", "layer_1", "layer_2", "vertical_slash"]
    inputs = {name: [each.name for each in program.pattern(name).resolve().inputs] for name in program.patterns}
    assert inputs == {"vertical_slash": ["vertical", "slash"], "layer_1": ["vertical", "slash", "picks"], "layer_2": []}
    assert "where h == 1 attend sink(64) | window(256)\n" in text and "where h == 2 attend picks\n" in text
    mask = program.pattern("layer_2").mask(20, 20, kv_heads=2)
    assert mask.sum(-1).max() == 9
    assert program.pattern("layer_1").heads == 4 and program.pattern("layer_1").kv_heads is None


def test_no_more_sizes_are_listed_than_one_reads() -> None:
    heads: list[Entry] = [["vertical_and_slash", n, 2 * n, 1] for n in range(9)]
    text, _ = minference_model(table([heads]))
    assert "# 0 and 0 (1), 1 and 2 (1), 2 and 4 (1), 3 and 6 (1), 4 and 8 (1), 4 others.\n" in text


def test_every_problem_is_reported_once() -> None:
    bad = [[[1, 2, 3, 4]] * 200, [SLASHED] * 200]
    with pytest.raises(DiagnosticError) as raised:
        read_heads(table(bad))  # type: ignore[arg-type]  # the types are wrong on purpose
    assert [problem.code for problem in raised.value.diagnostics] == ["E707"] * 100 + ["E029"]

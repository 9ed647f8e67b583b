"""DuoAttention's tables: which groups retrieve, and the model's text."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
import torch

import sparsec
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.diagnostics.source import SourceFile
from sparsec.imports.duo import Streaming, duo_model, read_scores, retrieving
from sparsec.syntax.parser import parse
from sparsec.syntax.printer import print_file

STREAMING = Streaming(128, 256)


def table(rows: list[list[float]]) -> SourceFile:
    return SourceFile("a folder/scores.tsv", "\n".join("\t".join(map(repr, row)) for row in rows))


def drawn(seed: int, layers: int = 12, groups: int = 8) -> list[list[float]]:
    draw = random.Random(seed)
    return [[draw.uniform(-0.2, 1.2) for _ in range(groups)] for _ in range(layers)]


@pytest.mark.parametrize("sparsity", ["0", "0.1", "0.25", "0.3", "0.5", "0.55", "0.7", "0.99", "1"])
@pytest.mark.parametrize("seed", range(3))
def test_groups_at_or_over_the_quantile_retrieve(sparsity: str, seed: int) -> None:
    """Scores inside 0..1 are distinct, so numpy's quantile parts them as the published code does."""
    draw = random.Random(seed)
    rows = [[draw.random() for _ in range(8)] for _ in range(12)]
    found = retrieving(read_scores(table(rows)), Fraction(sparsity))
    threshold = 2 if sparsity == "1" else np.quantile(np.array(rows), float(sparsity), method="linear")
    assert [list(groups) for groups in found] == [[g for g, s in enumerate(row) if s >= threshold] for row in rows]


def test_the_share_that_streams_does_not_depend_on_rounding() -> None:
    rows = [[n / 21] for n in range(21)]
    for share in range(21):
        kept = retrieving(read_scores(table(rows)), Fraction(share, 20))
        assert sum(map(len, kept)) == (21 - share if share < 20 else 0)


def test_of_equal_scores_lower_layers_rank_higher_then_lower_groups() -> None:
    rows = [[0.5, 0.5, 0.9], [0.5, 0.5, 0.1]]
    assert retrieving(read_scores(table(rows)), Fraction(3, 5)) == ((0, 1, 2), ())
    assert retrieving(read_scores(table(rows)), Fraction(4, 5)) == ((0, 2), ())
    assert retrieving(read_scores(table(rows)), Fraction(2, 5)) == ((0, 1, 2), (0,))


def test_scores_are_cut_off_and_blank_lines_do_not_count() -> None:
    text = "\ufeff 1e-3\t-7\t.5\r\n\n \t\n1e999\t+2.\t0.25 \n\n"
    assert read_scores(SourceFile("t", text.removeprefix("\ufeff"))) == ((0.001, 0.0, 0.5), (1.0, 1.0, 0.25))


@pytest.mark.parametrize("sparsity", ["0", "0.5", "0.9", "1"])
@pytest.mark.parametrize("heads", [None, 16])
def test_the_model_has_the_groups_and_is_in_the_standard_layout(sparsity: str, heads: int | None) -> None:
    rows = drawn(7)
    source = table(rows)
    text, said = duo_model(source, Fraction(sparsity), Streaming(20, 30), heads)
    assert "from scores.tsv: 12 layers of 8 KV groups." in text and f"# {said}." in text and "folder" not in text
    file, problems = parse(SourceFile("x", text))
    assert problems == () and file is not None and print_file(file) == text
    program = sparsec.parse(text)
    assert program.diagnostics == ()
    kept = retrieving(read_scores(source), Fraction(sparsity))
    layers = program.model("duo")
    assert len(layers) == len(rows)
    i, j = torch.arange(90)[:, None], torch.arange(90)
    causal, streaming = j <= i, (j <= i) & ((j < 20) | (i - j < 30))
    for layer, groups in enumerate(kept):
        pattern = layers.layer(layer)
        assert (pattern.heads, pattern.kv_heads) == ((16, 8) if heads else (None, None))
        mask = pattern.mask(90, 90, heads=16, kv_heads=8)
        for head in range(16):
            assert torch.equal(mask[head], causal if head // 2 in groups else streaming)


def test_the_lengths_are_parameters() -> None:
    text, _ = duo_model(table(drawn(3)), Fraction(1, 2), Streaming(0, 9), None)
    program = sparsec.parse(text)
    assert program.pattern("retrieval", groups="[1]").mask(20, 20, heads=2)[0].sum(-1).max() == 9
    wider = program.pattern("retrieval", groups="[1]", first=3, latest=4)
    assert wider.mask(20, 20, heads=2)[0].sum(-1).max() == 7


def test_layers_that_agree_share_an_arm() -> None:
    rows = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.2], [0.9, 0.9], [0.9, 0.0]]
    text, _ = duo_model(table(rows), Fraction("0.45"), STREAMING, None)
    assert " ".join(text.split("model duo")[1].split()) == (
        "{ layers 5 where l in [0..2, 4] use retrieval(groups = [0]) where l == 2 use streaming"
        " where l == 3 use everything }"
    )


def test_names_of_files_cannot_leave_their_comment() -> None:
    text, _ = duo_model(SourceFile("a\npattern x { attend full }\u202e\udc80.tsv", "0.5"), Fraction(0), STREAMING, None)
    assert sparsec.parse(text).patterns == ("everything",)
    assert "from a?pattern x { attend full }??.tsv:" in text


def test_heads_have_to_split_into_the_groups() -> None:
    with pytest.raises(CallError, match="the 8 KV groups of the table, got 12"):
        duo_model(table(drawn(1)), Fraction(0), STREAMING, 12)


def test_every_problem_is_reported_once() -> None:
    with pytest.raises(DiagnosticError) as raised:
        read_scores(SourceFile("t", "0\t1\n" + "x\ty\n" * 300))
    codes = [problem.code for problem in raised.value.diagnostics]
    assert codes == ["E703"] * 100 + ["E029"]

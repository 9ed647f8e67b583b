"""`sparsec show`: its forms, what part of the pairs it draws, models and caches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoking import invoke

TEXT = """# Near keys, and a shard.
pattern near(w = 8) { causal attend window(w) | stride(16, phase = -h) }
pattern packed { causal documents restart attend window(4) | sink(1) }
model m { layers 3  where l == 1 use near(w = 64)  otherwise use near }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.sparse"
    path.write_text(TEXT)
    return path


def test_part_of_the_pairs(file: Path) -> None:
    near = ("show", file, "--pattern", "near")
    found = invoke(*near, "--seq-len", "100", "--rows", "-4..", "--columns", "90..", "--heads", "1")
    lines = found.stdout.splitlines()
    assert lines[0] == "near: 4 queries 96..100, 100 keys, of which 90..100 are shown"
    assert [line.split()[-1] for line in lines[4:8]] == ["███████···", "████████··", "·████████·", "··████████"]
    one = invoke(*near, "--seq-len", "1000", "--rows", "7", "--columns", "..16")
    assert "near: 1 query at 7, 1000 keys, of which 0..16 are shown" in one.stdout


def test_queries_of_a_call(file: Path) -> None:
    of = ("--seq-len", "40", "--queries", "2", "--q-offset", "50")
    found = invoke("show", file, "--pattern", "near", *of, "--format", "json")
    data = json.loads(found.stdout)
    assert data["heads"][0]["rows"] == [50, 51, 52] and data["heads"][0]["columns"][-1] == 40


def test_documents(file: Path) -> None:
    of = ("--seq-len", "16", "--documents", "6,10", "--heads", "1")
    found = invoke("show", file, "--pattern", "packed", *of, "--format", "json")
    (head,) = json.loads(found.stdout)["heads"]
    assert head["live"][8] == [0] * 6 + [1] * 3 + [0] * 7


def test_layers_and_caches(file: Path) -> None:
    lines = invoke("show", file, "--model", "m", "--seq-len", "256").stdout.splitlines()
    assert lines[0] == "m: 3 layers, 256 tokens" and lines[3].startswith("layer 1  near 2")
    cache = invoke("show", file, "--pattern", "near", "--cache", "--seq-len", "256", "--heads", "2").stdout
    assert cache.startswith("KV cache of near: 256 tokens\n") and "the latest 8 keys" in cache
    for how in (("--model", "m"), ("--pattern", "near", "--cache"), ("--pattern", "near")):
        for form, first in (("svg", "<svg "), ("html", "<!DOCTYPE html>"), ("json", "{")):
            assert invoke("show", file, *how, "--seq-len", "128", "--format", form).stdout.startswith(first), (
                how,
                form,
            )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rows", "5..5"), "a range within 0..64 that is not empty"),
        (("--rows", "a..b"), "expected A..B"),
        (("--columns", "0..65"), "a range within 0..64"),
        (("--documents", "64"), "the pattern packs none"),
        (("--pattern", "packed", "--documents", "60,5"), "64 tokens in all"),
        (("--pattern", "packed", "--documents", "x"), "64 tokens in all"),
        (("--model", "m", "--rows", "1..2"), "expected --model with"),
        (("--cache", "--head", "1"), "expected --cache without"),
        (("--model", "nope"), "one of: m; got 'nope'"),
    ],
)
def test_wrong_parts(file: Path, arguments: tuple[str, ...], message: str) -> None:
    given = arguments if "--pattern" in arguments or "--model" in arguments else ("--pattern", "near", *arguments)
    result = invoke("show", file, "--seq-len", "64", *given)
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""


def test_a_page_refers_to_nothing_else(file: Path) -> None:
    text = invoke("show", file, "--pattern", "near", "--format", "html").stdout
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "") and "src=" not in text and "eval(" not in text

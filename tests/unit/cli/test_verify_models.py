"""`sparsec verify --model`: each kind of layers is tested once, and told with its layers and a command that repeats."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from invoking import invoke, progress_of

import sparsec
from sparsec.cli import verify as command
from sparsec.testing import verify as search

TEXT = """
pattern near(w = 16) { heads 2 kv 1  causal  attend window(w) }
pattern all { heads 2 kv 1  attend full }
pattern picked { heads 2 kv 1  input kept : tokens  causal  attend window(8) | kept }
model m {
    where l == 0 use near
    where l == 2 use all
    otherwise use near(w = 12 * (1 + l % 2) - 8)
}
model lists { layers 2  where l == 1 use picked  otherwise use near }
"""
SMALL = ("--target", "torch", "--head-dim", "8", "--examples", "1")


@pytest.fixture
def layered(tmp_path: Path) -> Path:
    path = tmp_path / "m.sparse"
    path.write_text(TEXT)
    return path


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch, layered: Path) -> None:
    """What is compiled of the kind of layer 4 is a window that is longer by one."""
    monkeypatch.setattr(search, "SHRINKING_SECONDS", 0.0)
    honest, wrong = sparsec.compile, sparsec.load(layered).pattern("near", w=5)

    def compiled(pattern: Any, **more: Any) -> Any:
        return honest(wrong if "'w': 4" in repr(pattern) or "('w', 4)" in repr(pattern) else pattern, **more)

    monkeypatch.setattr(sparsec, "compile", compiled, raising=False)


def test_each_kind_is_tested_once(layered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, compiled, said = sparsec.compile, list[str](), progress_of(command, monkeypatch)

    monkeypatch.setattr(
        sparsec, "compile", lambda of, **more: compiled.append(of.name) or honest(of, **more), raising=False
    )
    result = invoke("verify", layered, "--model", "m", "--layers", "6", *SMALL)
    assert result.exit_code == 0, result.output
    titles = [line for line in result.stdout.splitlines() if line.endswith("target torch on cpu")]
    kinds = ["near, layers 0..2, 3, 5", "all, layer 2", "near, layer 4"]
    assert [title.partition(":")[0] for title in titles] == kinds
    assert sorted(compiled) == ["all", "near", "near"]
    assert result.stdout.splitlines()[-1] == "3 of 3 kinds of layers held: 6 of 6 layers"
    assert "compiling the forward passes: 0 of 3 kinds of layers are done" in said
    assert any(
        each.startswith("near, layer 4: ") and each.endswith("; 2 of 3 kinds of layers are done") for each in said
    )


@pytest.mark.usefixtures("spoiled")
def test_a_kind_that_fails_is_run_again_by_its_layer(layered: Path) -> None:
    arguments = ("--model", "m", "--layers", "6", "--target", "torch", "--head-dim", "8", "--examples", "2")
    result = invoke("verify", layered, *arguments, "--format", "json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [(each["layers"], each["held"]) for each in found] == [([0, 1, 3, 5], True), ([2], True), ([4], False)]
    failed = [each["failure"]["command"] for each in found[2]["properties"] if each["failure"]]
    words = shlex.split(failed[0])
    assert words[:3] == ["sparsec", "verify", str(layered)]
    assert "--model m --layers 6 --layer 4 --case" in failed[0]
    again = invoke(*words[1:])
    assert again.exit_code == 1
    assert again.stdout.splitlines()[-1] == "0 of 1 kinds of layers held: 0 of 1 layers"


def test_inputs_go_to_the_kinds_that_have_them(layered: Path) -> None:
    result = invoke("verify", layered, "--model", "lists", *SMALL, "--inputs", "kept=random:density=0.5")
    assert result.exit_code == 0, result.output
    assert "2 of 2 kinds of layers held: 2 of 2 layers" in result.stdout
    refused = invoke("verify", layered, "--model", "lists", *SMALL, "--inputs", "other=random")
    assert refused.exit_code == 2 and "expected --inputs of the names kept, got 'other'" in refused.stderr
    refused = invoke("verify", layered, "--model", "m", "--layers", "6", *SMALL, "--inputs", "random")
    assert refused.exit_code == 2 and "since no layer's pattern declares an input" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layer", "1"), "expected --layer with --model, got a pattern"),
        (("--layers", "1"), "expected --layers with --model, got a pattern"),
        (("--model", "m", "--layers", "6", "--layer", "6"), "expected a layer below 6, got 6"),
        (("--model", "m", "--layers", "6", "--pattern", "all"), "expected --pattern or --model, got both"),
        (
            ("--model", "m", "--layers", "6", "--case", "forward,queries=1,keys=1,offset=0"),
            "expected --layer with --case, since the model has 3 kinds of layers",
        ),
    ],
)
def test_wrong_usage_of_layers(layered: Path, arguments: tuple[str, ...], message: str) -> None:
    result = invoke("verify", layered, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr

"""`sparsec run --format json`: what the text says, as one object."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from invoking import invoke

import sparsec
from sparsec.bench.baselines import Error

SMALL = ("--seq-len", "96", "--heads", "2", "--head-dim", "8", "--no-flex", "--device", "cpu", "--format", "json")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is plain PyTorch."""
    honest = sparsec.compile
    monkeypatch.setattr(sparsec, "compile", lambda of, **more: honest(of, **{**more, "target": "torch"}), raising=False)


def test_the_object_has_all_that_the_text_has(good: Path) -> None:
    result = invoke("run", good, *SMALL)
    assert result.exit_code == 0, result.output
    found: Any = json.loads(result.stdout)
    assert (found["pattern"], found["target"], found["heads"], found["seq_len"]) == ("p", "torch", 2, 96)
    assert found["compile_s"] > 0 and found["peers_ms"].keys() == {"sdpa"} and "inputs" not in found
    error = found["error"]
    assert error["passed"] and error["sparsec"]["largest"] <= error["allowed"]["largest"]
    assert error["rows"] > 0 and error["torch"]["mean"] > 0


def test_a_failure_and_inputs_are_told(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good.write_text("pattern p { softcap 5  input kept : tokens causal attend window(8) | kept }")
    monkeypatch.setattr("sparsec.bench.baselines.Comparison.passed", property(lambda _: False))
    result = invoke("run", good, *SMALL)
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    assert not found["error"]["passed"] and found["inputs"] == "random:density=0.05,seed=0"
    assert found["simplifications"] == ["sdpa runs without: softcap"]


def test_json_has_no_nan() -> None:
    assert Error(math.nan, math.inf).as_dict() == {"largest": None, "mean": None}

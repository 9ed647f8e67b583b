"""`sparsec explain` and `sparsec show` of a model: which kind of layers they are at, and how many are done."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from invoking import invoke, progress_of

from sparsec.analysis import report as reports
from sparsec.distributed import report as traffic

TEXT = """
pattern near(w = 16) { heads 2 kv 1  causal  attend window(w) }
pattern all { heads 2 kv 1  causal  attend full }
model m { layers 4  where l == 1 use all  otherwise use near }
"""


@pytest.fixture
def layered(tmp_path: Path) -> Path:
    path = tmp_path / "m.sparse"
    path.write_text(TEXT)
    return path


def test_explain_tells_each_kind(layered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, counted = progress_of(import_module("sparsec.cli.explain"), monkeypatch), list[str]()
    for module, name in ((reports, "pattern_coverage"), (traffic, "work_before")):
        honest = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *of, name=name, do=honest: counted.append(name) or do(*of))
    result = invoke("explain", layered, "--model", "m", "--seq-len", "4k", "--ranks", "2")
    assert result.exit_code == 0, result.output
    steps = ("counting live pairs", "dividing the work", "counting keys that travel")
    kinds = ("near; 0 of 2 kinds of layers are done", "all; 1 of 2 kinds of layers are done")
    assert said == [f"{step}: {kind}" for step in steps for kind in kinds]
    assert counted == ["pattern_coverage"] * 2 + ["work_before"] * 2, "once for each kind"
    said.clear()
    assert invoke("explain", layered, "--pattern", "all", "--seq-len", "4k").exit_code == 0
    assert said == ["counting live pairs"]


@pytest.mark.parametrize("form", ["text", "svg", "json"])
def test_show_tells_each_kind(layered: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = progress_of(import_module("sparsec.cli.show"), monkeypatch)
    assert invoke("show", layered, "--model", "m", "--seq-len", "4k", "--format", form).exit_code == 0
    assert said[0] == "counting live pairs"
    assert "counting live pairs: all; 1 of 2 kinds of layers are done" in said
    said.clear()
    assert invoke("show", layered, "--pattern", "near", "--seq-len", "4k", "--format", form).exit_code == 0
    assert said == ["counting live pairs"]

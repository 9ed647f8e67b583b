"""Drawings as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sparsec

TEXT = "pattern p { block 16  causal  attend window(40) }\nmodel m { layers 2  use p }"


def test_a_file_has_the_form_of_its_suffix(tmp_path: Path) -> None:
    program = sparsec.parse(TEXT)
    drawings = program.pattern("p").show(256), program.model("m").show(256), program.pattern("p").show_cache(256)
    for number, drawing in enumerate(drawings):
        for suffix, form in ((".svg", drawing.svg()), (".html", drawing.html()), (".TXT", drawing.text())):
            path = tmp_path / f"{number}{suffix}"
            drawing.save(path)
            assert path.read_text(encoding="utf-8") == form
        drawing.save(str(tmp_path / "x.json"))
        assert json.loads((tmp_path / "x.json").read_text())["of"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_suffix_and_a_folder_that_there_is_not(tmp_path: Path) -> None:
    drawing = sparsec.parse(TEXT).pattern("p").show(64)
    with pytest.raises(sparsec.CallError, match=r"ends in .svg, .html, .txt, .json, got 'x.png'"):
        drawing.save(tmp_path / "x.png")
    with pytest.raises(FileNotFoundError):
        drawing.save(tmp_path / "none" / "x.svg")

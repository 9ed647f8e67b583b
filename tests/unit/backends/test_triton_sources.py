"""The plain Triton functions: they import, and a module holds those that its text calls and no others."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

from sparsec.backends.triton.emit import emit_triton, emit_triton_backward
from sparsec.backends.triton.sources import functions, with_functions
from sparsec.pipeline import Lowered
from sparsec.sema import model as m
from sparsec.sema.modifiers import KINDS, Alibi, LearnedSink, Softcap

TEMPLATES = Path(__file__).parents[3] / "templates" / "triton"
FILES = sorted((TEMPLATES / "kernels").rglob("*.py"))
ALL = m.Score(None, (Softcap(50.0), Alibi(), LearnedSink()))


def pattern(score: m.Score) -> m.ResolvedPattern:
    return m.ResolvedPattern(2, 1, (m.Causal(),) * 2, 64, (), m.Documents.NONE, score)


def names(source: str) -> set[str]:
    return {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_is_a_module_that_imports(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TEMPLATES))
    module = importlib.import_module(".".join(file.relative_to(TEMPLATES).with_suffix("").parts))
    defined = names(file.read_text(encoding="utf-8"))
    assert defined and defined <= functions().keys() and all(hasattr(module, name) for name in defined)
    for name in [name for name in sys.modules if name.partition(".")[0] == "kernels"]:
        monkeypatch.delitem(sys.modules, name)


def test_a_module_holds_what_it_calls_directly_or_not() -> None:
    source = with_functions("import triton\nimport triton.language as tl\n\n\ndef f(x):\n    return softcap_score(x)\n")
    assert names(source) == {"softcap_score", "tanh", "f"}


@pytest.mark.parametrize("score", [m.Score(), ALL], ids=["plain", "modified"])
def test_a_generated_module_holds_nothing_that_it_does_not_call(score: m.Score) -> None:
    given = {"head_dim": 64, "dtype": "bfloat16", "query_tile": 64, "key_tile": 32}
    lowered = Lowered(pattern(score))
    for source in (emit_triton(lowered.plan_forward(**given)), emit_triton_backward(lowered.plan_backward(**given))):
        used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        assert names(source) & functions().keys() <= used
        assert functions().keys() & used <= names(source)


def test_each_modifier_has_a_file_and_no_other_source_names_it() -> None:
    keywords = {kind.entry.keyword for kind in KINDS}  # type: ignore[attr-defined]  # each kind has an entry
    assert {file.stem for file in FILES if file.parent.name == "modifiers"} == keywords
    for file in TEMPLATES.rglob("*.*"):
        if file.parent.name != "modifiers":
            text = file.read_text(encoding="utf-8")
            assert not [keyword for keyword in keywords if keyword in text], file.name

"""What is offered at a place of a text, also one that is half typed or has errors elsewhere."""

from __future__ import annotations

import pytest
from marked import marked

from sparsec import program
from sparsec.diagnostics.source import SourceFile
from sparsec.editor.completion import ItemKind, SurroundingCall, call_at, completions_at
from sparsec.sema.builtins import TERMS

BEFORE = """\
param size = 4
pattern other(a = 3, b = 2b) { input bias : weights  input short : length  causal  attend full }
"""


def offered(text: str) -> list[str]:
    return [item.label for item in completions_at(*marked(BEFORE + text)).items]


SETS = ["other", *TERMS]


@pytest.mark.parametrize(
    ("text", "some", "none"),
    [
        ("@", ["param", "pattern", "model"], ["attend", "window", "size"]),
        ("pattern p { @ }", ["heads", "attend", "where", "let", "alibi"], ["use", "layers", "window", "param", "or"]),
        ("pattern p { block 64 @ }", ["heads"], ["block"]),
        ("model m { @ }", ["layers", "use", "where", "otherwise", "let"], ["attend", "heads", "input"]),
        ("pattern p { attend @ }", SETS, ["h", "min", "true", "size", "p", "not"]),
        ("pattern p { attend sink(4) | (@ }", SETS, ["size"]),
        ("pattern p { attend window(@", ["ahead = ", "size", "h", "G", "B", "min"], ["window", "other", "l"]),
        ("pattern p { attend window(4, ahead = 3, @", ["size"], ["ahead = "]),
        ("pattern p { attend other(a = 1, @", ["b = ", "size"], ["a = "]),
        ("pattern p { where @ attend full }", ["h", "g", "not", "true", "size"], ["window", "l", "other"]),
        ("pattern p { heads @", ["size", "min"], ["h", "window", "true"]),
        ("pattern p(x = @", ["size", "max"], ["h", "window"]),
        ("pattern p(@", [], ["size"]),
        ("pattern @", [], ["size"]),
        ("pattern p { let @", [], ["size"]),
        ("pattern p { let x = @", ["window", "other", "size", "h"], ["attend"]),
        ("model m { use @", ["other"], ["size", "window"]),
        ("model m { layers 4  where @", ["l", "L", "size"], ["h", "g"]),
        ("pattern p { input x : @", ["rows", "rows(blocks)", "weights"], ["window"]),
        ("pattern p { input x : rows(@", ["blocks"], ["tiles", "size", "true"]),
        ("pattern p { input x : blocks(@", ["size"], ["tiles", "h"]),
        ("pattern p { input w : weights  input n : length  key_bias @", ["w"], ["n", "size", "window"]),
        ("pattern p { documents @", ["restart", "attend"], []),
        ("pattern p { attend full @", ["attend", "and", "in"], ["block 3"]),
        ("pattern p { attend full\n@", ["attend"], ["and", "in"]),
        ("pattern p { attend 4@ }", [], ["sink"]),
        ("pattern p { attend full } # wind@", [], ["window"]),
        ("pattern p { attend wi@ndow(3) }", ["window", "stride"], []),
        ("pattern p { attend )( }\npattern q(mine = 1) { attend window(@", ["mine", "size"], ["window"]),
    ],
)
def test_what_is_offered(text: str, some: list[str], none: list[str]) -> None:
    found = offered(text)
    assert set(some) <= set(found) and not set(none) & set(found), found
    assert len(found) == len(set(found))
    assert found or not some


def test_a_completion_takes_the_place_of_the_whole_word() -> None:
    document, offset = marked("pattern p { attend wi@ndow(3) }")
    span = completions_at(document, offset).span
    assert document.text[span.start : span.stop] == "window"


def test_a_keyword_that_is_offered_is_accepted() -> None:
    """What is taken from the list gives no error at its own place, but for what has to follow."""
    text = "pattern p { heads 4  @ }"
    document, offset = marked(text)
    before = {found.span.start for found in document.diagnostics}
    for item in completions_at(document, offset).items:
        after = program.check(SourceFile("p", text.replace("@", item.label)))[1]
        assert not [found for found in after if found.span.start == offset and offset not in before], item.label


def test_snippets_hold_what_a_term_needs() -> None:
    found = {item.label: item for item in completions_at(*marked("pattern p { attend @ }")).items}
    assert found["window"].snippet == "window(${1:n})"
    assert found["columns"].snippet == "columns(${1:a .. b})"
    assert found["full"].snippet == "full"
    assert found["causal"].kind is ItemKind.TERM
    assert "0 <= i - j < n" in found["window"].markdown
    for name, item in found.items():
        if name in TERMS and item.snippet is not None:
            filled = item.snippet.replace("a .. b", "0 .. 4")
            for slot in TERMS[name].slots:
                filled = filled.replace(f":{slot.name}}}", ":4}")
            filled = "".join(part.split(":")[-1] for part in filled.replace("}", "${").split("${"))
            problems = program.check(SourceFile("p", f"pattern p {{ heads 1  attend {filled} }}"))[1]
            assert not [found for found in problems if found.code.startswith("E")], (item.snippet, filled)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pattern p { attend window(@", SurroundingCall("window", frozenset(), 0, True)),
        ("pattern p { attend window(4, @ahead = 3)", SurroundingCall("window", frozenset(), 1, True)),
        ("pattern p { attend stride(4, phase = min(1, @", SurroundingCall("min", frozenset(), 1, True)),
        ("pattern p { attend other([1, 2], b = (3), @", SurroundingCall("other", frozenset({"b"}), 2, True)),
        ("pattern p { attend window(4) @", None),
        ("pattern p { attend (@", None),
        ("pattern p(a = @", None),
    ],
)
def test_the_call_around_a_place(text: str, expected: SurroundingCall | None) -> None:
    assert call_at(*marked(text)) == expected

"""The shape of a rendered diagnostic, and that no file can drive the terminal through it."""

from __future__ import annotations

import json

from sparsec.diagnostics.model import Diagnostic, Severity
from sparsec.diagnostics.render import render_json, render_text
from sparsec.diagnostics.source import SourceFile, Span


def record(text: str, start: int, stop: int, name: str = "a.sparse", message: str = "wrong") -> Diagnostic:
    return Diagnostic(
        "E010", Severity.ERROR, SourceFile(name, text), Span(start, stop), message, "do this", ("a fact",)
    )


def test_the_whole_paragraph() -> None:
    assert (
        render_text([record("one\n\tattend 漢 full\n", 11, 14)])
        == """\
a.sparse:2:8: error[E010]: wrong
  |
2 |     attend 漢 full
  |           ^^^^
  = note: a fact
  = help: do this"""
    )


def test_records_come_in_file_order() -> None:
    text = "abc"
    out = render_text([record(text, 2, 3), record(text, 0, 1), record(text, 1, 2, name="b.sparse")])
    assert [line for line in out.splitlines() if "error" in line] == [
        "a.sparse:1:1: error[E010]: wrong",
        "a.sparse:1:3: error[E010]: wrong",
        "b.sparse:1:2: error[E010]: wrong",
    ]


def test_control_characters_are_made_visible() -> None:
    hostile = "\x1b[31m\r\x07\u202e\ud800\u2028x"
    out = render_text([record(hostile, 0, 9, name=f"n{hostile}", message=f"m{hostile}")])
    assert all(char.isprintable() or char == "\n" for char in out)
    assert len(out.splitlines()) == 6
    assert "\\x1b[31m" in out and "\\u{202e}" in out
    assert "\x1b[1;31m" in render_text([record("x", 0, 1)], color=True)


def test_long_lines_are_clipped_around_the_span() -> None:
    lines = render_text([record("a" * 5000 + "bad" + "c" * 5000, 5000, 5003)]).splitlines()
    assert lines[2].startswith("1 | ...") and lines[2].endswith("...") and len(lines[2]) < 120
    at = lines[3].index("^")
    assert lines[2][at : at + 3] == "bad" and lines[3].count("^") == 3


def test_spans_at_the_end_and_over_lines() -> None:
    assert render_text([record("", 0, 0)]).splitlines()[3] == "  | ^"
    assert render_text([record("ab\n", 3, 3)]).splitlines()[0].startswith("a.sparse:2:1")
    assert render_text([record("ab\ncd", 1, 5)]).splitlines()[3] == "  |  ^"


def test_json() -> None:
    (found,) = json.loads(render_json([record("ab\ncd", 1, 4)]))
    assert found == {
        "code": "E010",
        "severity": "error",
        "message": "wrong",
        "hint": "do this",
        "notes": ["a fact"],
        "filename": "a.sparse",
        "location": {"row": 1, "column": 2},
        "end_location": {"row": 2, "column": 2},
    }

"""What a file or a caller asks too much of ends in a diagnostic; `tests/hostile` has the files made to be expensive."""

from __future__ import annotations

import time

import pytest

from sparsec import program
from sparsec.diagnostics.model import DiagnosticError
from sparsec.diagnostics.source import SourceFile

SECONDS = 2.0


def lines(count: int, line: str) -> str:
    return "\n".join(line.format(i=i, before=i - 1, after=(i + 1) % count) for i in range(1, count))


def test_resolve_is_bounded() -> None:
    doubled = "pattern p{i} {{ where h == 0 attend full  otherwise attend p{before} | p{before} }}"
    text = "pattern p0 { attend window(h + 1) }\n" + lines(30, doubled)
    checked = program.parse(text)
    start = time.process_time()
    with pytest.raises(DiagnosticError, match="E41"):
        checked.pattern("p29").resolve(4096)
    assert time.process_time() - start < 2 * SECONDS


def test_patterns_that_may_not_have_their_names() -> None:
    text = "pattern window { attend windw(1) }\npattern p { attend full }\npattern p { attend sink(0 - 1) }"
    _, found = program.check(SourceFile("names", text))
    assert [diagnostic.code for diagnostic in found] == ["E103", "E101", "E102", "E403"]


def test_an_input_of_no_kind_is_reported_once() -> None:
    _, found = program.check(SourceFile("kinds", "pattern p { input x : lists  attend x | sink(x) | full }"))
    assert [diagnostic.code for diagnostic in found] == ["E107"]

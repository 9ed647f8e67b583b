"""Files made to be expensive end in a diagnostic within the limits that the language promises."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from sparsec import program
from sparsec.diagnostics.model import DiagnosticError
from sparsec.diagnostics.render import render_text
from sparsec.diagnostics.source import SourceFile

SECONDS = 2.0
MEBIBYTES = 512


def lines(count: int, line: str) -> str:
    return "\n".join(line.format(i=i, before=i - 1, after=(i + 1) % count) for i in range(1, count))


FILES = {
    "doubling": "pattern p0 { attend sink(4) | window(8) }\n"
    + lines(40, "pattern p{i} {{ attend p{before} | p{before} }}"),
    "doubling heads": "pattern p0 { heads 4096  attend window(h + 1) }\n"
    + lines(40, "pattern p{i} {{ heads 4096  attend p{before} | p{before} }}"),
    "many heads and terms": "pattern p { heads 4096  attend "
    + " | ".join(f"window(h + {n + 1})" for n in range(60))
    + " }",
    "wide shared set": "pattern p { heads 4096  let big = "
    + " | ".join(f"window({n + 1})" for n in range(120))
    + "  attend big | window(h + 1000) }",
    "many patterns": lines(800, "pattern p{i} {{ heads 64  causal  attend window(h + 1) | stride(8b, phase = h) }}"),
    "many unknown names": lines(3000, "pattern p{i} {{ attend unknown{i} }}"),
    "one cycle": "pattern p0 { attend p1 }\n" + lines(3000, "pattern p{i} {{ attend p{after} }}"),
    "chain of patterns": "pattern p0 { attend full }\n" + lines(3000, "pattern p{i} {{ attend p{before} }}"),
    "chain of parameters": "param a0 = 1\n"
    + lines(3000, "param a{i} = a{before} + a{before}")
    + "\npattern p { attend full }",
    "chain of lets": "pattern p { let a0 = 1\n" + lines(3000, "let a{i} = a{before} + 1") + "\nattend window(a2999) }",
    "many arms": "pattern p { heads 4096\n" + lines(1500, "where h == {i} attend window({i})") + " }",
    "many layers": "pattern p(n = 1) { heads 64  attend window(n + h) }\nmodel m { layers 4096  use p(n = l + 1) }",
    "many draws": "pattern p { heads 4096  attend random(2147483647) }",
    "large constants": "pattern p { attend stride(2147483647) | stride(33554431b) | chunk(2147483647) }",
    "long list": "pattern p(x = [" + ", ".join(map(str, range(9000))) + "]) { heads 4096  where h in x attend full }",
}


@pytest.mark.parametrize("name", FILES)
def test_bounded(name: str) -> None:
    source = SourceFile(name, FILES[name])
    start = time.process_time()
    _, found = program.check(source)
    render_text(found)
    seconds = time.process_time() - start
    # The limit is meant for an idle machine: a busy one may take twice as long.
    assert seconds < 2 * SECONDS


@pytest.mark.parametrize("name", ["wide shared set", "many layers", "large constants"])
def test_memory(name: str) -> None:
    tracemalloc.start()
    try:
        program.check(SourceFile(name, FILES[name]))
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTES * 2**20
    finally:
        tracemalloc.stop()


def test_resolve_is_bounded() -> None:
    text = "pattern p0 { attend window(h + 1) }\n" + lines(30, "pattern p{i} {{ attend p{before} | p{before} }}")
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

"""What `check` can tell without head counts: head 0 is always there, and what fails there fails for every count."""

from __future__ import annotations

import pytest

from sparsec import program, sema
from sparsec.diagnostics.model import Diagnostic, DiagnosticError, Severity
from sparsec.diagnostics.source import SourceFile

COUNTS = ((1, 1), (2, 1), (2, 2), (3, 3), (8, 2), (12, 4), (32, 8), (40, 40))


def errors(text: str) -> tuple[sema.CheckedFile, list[Diagnostic]]:
    checked, found = program.check(SourceFile("t.sparse", text))
    assert checked is not None, text
    return checked, [diagnostic for diagnostic in found if diagnostic.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("attend window(4 // (h - h))", "E401"),
        ("attend window(h) | sink(1)", "E403"),
        ("where 4 // g > 1 attend full  otherwise attend sink(1)", "E401"),
        ("where h > 1 attend full", "E408"),
        ("where h == 0 and 3 % h == 1 attend full  otherwise attend sink(1)", "E401"),
        ("where h > 0 attend full  otherwise attend stride(2 * g)", "E403"),
        ("let zero = h % 1  attend dilated(zero)", "E403"),
        ("heads 8  attend window(H * g)", "E403"),
        ("attend columns(h .. 3 * g)", "E404"),
        ("attend inner(of = 2 * h)", "E403"),
    ],
)
def test_what_fails_for_every_head_count(body: str, code: str) -> None:
    text = f"pattern p {{ {body} }} pattern inner(of = 1) {{ attend window(of) }}"
    checked, found = errors(text)
    assert code in [diagnostic.code for diagnostic in found], found
    for heads, kv_heads in COUNTS:
        if "heads 8" in body and heads != 8:
            continue
        with pytest.raises(DiagnosticError, match=code):
            sema.resolve(checked, sema.Binding("p"), heads, kv_heads)


@pytest.mark.parametrize(
    ("body", "heads"),
    [
        ("where h >= H // 2 attend full  otherwise attend window(4)", 2),
        ("where h != 0 and 4 // h > 1 attend full  otherwise attend sink(1)", 2),
        ("where H > 2 and h > 2 attend full  where h % H > 0 attend sink(4 // h)  otherwise attend full", 4),
        ("where (H == 2 or 4 // h > 1) and h < 1 attend full  otherwise attend sink(1)", 2),
        ("where g < G // 2 attend full  otherwise attend window(8 // g)", 4),
        ("where g < G // 2 attend full  otherwise attend inner(of = g)", 4),
        ("attend window(H // (g + 1)) | stride(G)", 4),
    ],
)
def test_what_some_head_counts_make_right(body: str, heads: int) -> None:
    checked, found = errors(f"pattern p {{ {body} }} pattern inner(of = 1) {{ attend window(of) }}")
    assert not found, found
    assert sema.resolve(checked, sema.Binding("p"), heads, heads)

"""Every problem of a text is reported once, at the smallest span, and the rest of the file is still read."""

from __future__ import annotations

import pytest

from sparsec.diagnostics.source import SourceFile
from sparsec.syntax import tree
from sparsec.syntax.lexer import MAX_DIAGNOSTICS, MAX_TOKENS
from sparsec.syntax.parser import parse, recover


def problems(text: str) -> list[tuple[str, str]]:
    """The code and the offending text of each problem."""
    file, diagnostics = parse(SourceFile("t.sparse", text))
    assert (file is None) == bool(diagnostics)
    return [(found.code, text[found.span.start : found.span.stop]) for found in diagnostics]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pattern p { attend window(4 }", [("E010", "}")]),
        ("pattern p { attend window(4\n causal }", [("E010", "causal")]),
        ("pattern p { attend }", [("E010", "}")]),
        ("pattern p { attnd full blok 64 causl attend full }",
         [("E011", "attnd"), ("E011", "blok"), ("E011", "causl")]),
        ("patern p { attend full } modle m { }", [("E011", "patern"), ("E011", "modle")]),
        ("pattern p { attend sink(4)) | causal & window(4) causal attend full }", [("E014", ")")]),
        ("pattern p { attend full", [("E013", "")]),
        ("pattern p { attend full\npattern q { attend full }", [("E013", "pattern")]),
        ("pattern p { attend full } }", [("E014", "}")]),
        ("pattern p { attend { full } } pattern q { otherwise full }", [("E010", "{"), ("E010", "full")]),
        ("pattern q(n) { attend full atend full }", [("E010", ")"), ("E011", "atend")]),
        ("pattern q(n: 3) { heads }", [("E010", ":"), ("E010", "}")]),
        ("pattern p { let block = 3 attend window(block) }", [("E012", "block"), ("E012", "block")]),
        ("pattern p { attend $full ; causal }", [("E005", "$"), ("E005", ";")]),
        ("pattern p { attend window(4) & $ }", [("E005", "$")]),
        ("pattern p { attend 16x | 0x10 | 3000000000 | 4000000k }", [("E006", "16x"), ("E006", "0x10"),
         ("E007", "3000000000"), ("E007", "4000000k")]),
        ("# a\0b\npattern p\0 { attend full }", [("E002", "\0"), ("E002", "\0")]),
        ("pattern p { where a < b < c attend full where g = 1 attend full }", [("E010", "<"), ("E010", "=")]),
        ("attend full", [("E010", "attend")]),
        ("param x = 1 parm y = 2 param = 3", [("E011", "parm"), ("E010", "=")]),
    ],
)  # fmt: skip
def test_problems(text: str, expected: list[tuple[str, str]]) -> None:
    assert problems(text) == expected


def test_messages_and_hints() -> None:
    def first(text: str) -> tuple[str, str | None, tuple[str, ...]]:
        found = parse(SourceFile("t.sparse", text))[1][0]
        return found.message, found.hint, found.notes

    assert first("pattern p {\n attend window(4 }") == (
        "expected `,`, `)` or an operator, found `}`",
        None,
        ("the `(` at line 2, column 15 is still open",),
    )
    assert first("pattern p { attend full")[2] == ("the `{` at line 1, column 11 is still open",)
    assert first("pattern p { attend window(4) sink(4) }")[1] == "join two terms with `|`, `&` or `-`"
    assert first("pattern p { where g = 1 attend full }")[1] == "compare with `==`"
    assert first("pattern p(n) { }")[1] == "give a default: `n = 64`"
    assert first("pattern p { attend window(block) }")[1] == "the block size is `B`"


@pytest.mark.parametrize(
    ("inside", "hint"),
    [
        ("causal if h < 4 attend full", "heads differ by `where ... attend ...` and `otherwise attend ...`"),
        ("attend full else attend none", "heads differ by `where ... attend ...` and `otherwise attend ...`"),
        ("heads 8 kv_heads 2 attend full", "KV heads stand behind the query heads: `heads 8 kv 2`"),
        ("causal window (4)", "a set of pairs stands behind `attend`: `attend window(...)`"),
        ("attend window(4) | not sink(4)", "the complement of a set of pairs is written `~`"),
        ("attend columns(0:4)", "a range is written `a .. b`"),
        ("where h in (0, 1) attend full", "a list stands in brackets: `[0, 1]`"),
        ("attend full /* all */", "a comment starts with `#`, and ends with its line"),
        ("/* all */ attend full", "a comment starts with `#`, and ends with its line"),
        ("let \u00e9 = 3 attend full", "a name has letters from a to z, digits and `_`"),
    ],
)
def test_hints_for_what_other_languages_write(inside: str, hint: str) -> None:
    assert parse(SourceFile("t.sparse", f"pattern p {{ {inside} }}"))[1][0].hint == hint


def test_recovery_keeps_what_is_whole() -> None:
    file, _ = recover(SourceFile("x", "pattern p { causal attend ) full attend full }\npattern q { attend none }"))
    p, q = file.items
    assert isinstance(p, tree.PatternItem) and isinstance(q, tree.PatternItem)
    assert [type(statement).__name__ for statement in p.statements] == ["CausalStatement", "AttendStatement"]
    assert p.broken and not q.broken


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("(" * 64 + "full" + ")" * 64, None),
        ("(" * 65 + "full" + ")" * 65, "E015"),
        ("~" * 64 + "full", None),
        ("~" * 65 + "full", "E015"),
        ("f(" * 65 + "1" + ")" * 65, "E015"),
        ("[" * 65 + "]" * 65, "E015"),
        ("a | " * 127 + "a", None),
        ("a | " * 128 + "a", "E016"),
        ("a | " * 5000 + "a", "E016"),
    ],
)
def test_depth_is_bounded(expression: str, code: str | None) -> None:
    found = parse(SourceFile("x", f"pattern p {{ attend {expression} causal }}"))[1]
    assert [diagnostic.code for diagnostic in found] == ([] if code is None else [code])


def test_the_number_of_diagnostics_is_capped() -> None:
    found = parse(SourceFile("x", "pattern p { " + "attend ) " * 300 + "}"))[1]
    assert len(found) == MAX_DIAGNOSTICS + 1
    assert found[-1].code == "E029" and "200 more" in found[-1].message


@pytest.mark.parametrize("piece", ["(", "$ ", "#\n", "attend ", "a|"])
def test_the_number_of_tokens_is_capped(piece: str) -> None:
    found = parse(SourceFile("x", piece * (MAX_TOKENS + 1)))[1]
    assert "E004" in [diagnostic.code for diagnostic in found] or found[-1].code == "E029"

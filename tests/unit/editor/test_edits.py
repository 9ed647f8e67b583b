"""Fixes from the hints of diagnostics, formatting, and the outline."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsec import program
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.editor.document import Document
from sparsec.editor.edits import applied, fixes, formatting
from sparsec.editor.outline import Colour, Trait, coloured, outline
from sparsec.syntax.parser import parse
from sparsec.syntax.printer import print_file

ROOT = Path(__file__).parents[3]
SLOW = ("E029", "E410", "E411", "E414", "E417", "E418")
BROKEN = [path for path in sorted((ROOT / "tests" / "diagnostics").glob("*.sparse")) if not path.stem.startswith(SLOW)]


def fixed(text: str) -> list[tuple[str, str, str, bool]]:
    """Code, title, the text after it, and whether it is the one fix, of each fix."""
    document = Document("f", text)
    found = fixes(document, Span(0, len(text)), 60)
    return [(fix.diagnostic.code, fix.title, applied(text, (fix.edit,)), fix.sure) for fix in found]


@pytest.mark.parametrize(
    ("text", "code", "title", "after"),
    [
        ("pattern p { attend windw(3) }", "E101", "Replace with `window`", "pattern p { attend window(3) }"),
        ("pattern p { casual attend full }", "E011", "Replace with `causal`", "pattern p { causal attend full }"),
        ("pattern p { attend window(0) }", "E403", "Replace with `1`", "pattern p { attend window(1) }"),
        ("pattern p { attend full", "E013", "Insert `}`", "pattern p { attend full } "),
        ("pattern p { attend full) }", "E014", "Remove `)`", "pattern p { attend full }"),
        ("pattern p { attend window(4, ahed = 2) }", "E203", "Replace with `ahead`", None),
        ("pattern p {\n causal\n block 32\n block 64\n attend full\n}\n", "E303", "Remove this line", None),
        ("pattern p { scale 2  attend window(8 / 2) }", "E208", "Replace with `//`", None),
        ("pattern p(n = 4) { attend window(n(2)) }", "E108", "Remove the parentheses", None),
        ("pattern p { heads 1 causal attend window(8) | window(4) }", "W604", "Remove `window(4)`", None),
        ("// far keys\npattern p { attend full }", "E010", "Replace with `#`", "# far keys\npattern p { attend full }"),
        ("", "E301", "Insert `pattern name { causal attend full }`", None),
    ],
)
def test_a_hint_becomes_a_fix(text: str, code: str, title: str, after: str | None) -> None:
    found = [each for each in fixed(text) if each[0] == code and each[1].startswith(title)]
    assert len(found) == 1, fixed(text)
    if after is not None:
        assert found[0][2] == after


def test_a_fix_mends_its_problem_and_makes_no_other() -> None:
    codes = set()
    for path in BROKEN:
        text = path.read_bytes().decode("utf-8", "replace")
        before = [found.code for found in Document("f", text).diagnostics]
        for code, title, after, _ in fixed(text):
            codes.add(code)
            remaining = [found.code for found in program.check(SourceFile("f", after))[1]]
            assert remaining.count(code) == before.count(code) - 1, (path, title)
            assert all(remaining.count(other) <= before.count(other) for other in remaining if other[0] == "E"), title
    assert codes >= {"E002", "E010", "E011", "E013", "E014", "E101", "E107", "E108", "E109", "E201", "E202", "E203"}
    assert codes >= {"E206", "E208", "E301", "E302", "E303", "E307", "E403", "E409", "W604", "W607"}


def test_an_example_of_a_hint_is_no_fix() -> None:
    assert fixed("pattern p { block 40  attend full }") == []
    assert fixed("pattern p { attend window(64m) }") == []


def test_only_the_problems_at_the_place_are_fixed() -> None:
    text = "pattern p { attend windw(3) }\npattern q { attend snk(3) }\n"
    (fix,) = fixes(Document("f", text), Span(text.index("snk"), text.index("snk")))
    assert fix.edit.text == "sink" and fix.sure


def test_formatting_is_that_of_the_printer(example: str) -> None:
    messy = "\n\n" + example.replace("    ", "\t").replace(" = ", "=")
    tree, _ = parse(SourceFile("f", messy))
    assert tree is not None
    document = Document("f", messy)
    (edit,) = formatting(document)
    after = applied(messy, (edit,))
    assert after == print_file(tree)
    assert formatting(Document("f", after)) == ()


def test_a_text_with_errors_is_not_formatted() -> None:
    assert formatting(Document("f", "pattern   p { attend window( }")) == ()


def test_an_edit_of_the_layout_spares_what_is_alike() -> None:
    text = "pattern p {\n    causal\n    attend full\n}\n"
    (edit,) = formatting(Document("f", text.replace("    causal", "  causal")))
    assert edit.span.stop - edit.span.start <= 2 and edit.text.strip() == ""


def test_the_outline_has_items_with_what_they_define() -> None:
    text = "param a = 1\npattern p(b = 2) { let c = b  input d : rows  attend window(c) | d }\nmodel m { layers"
    found = outline(Document("f", text))
    assert [(entry.symbol.name, [inner.symbol.name for inner in entry.inner]) for entry in found] == [
        ("a", []),
        ("p", ["b", "c", "d"]),
        ("m", []),
    ]
    for entry in found:
        assert entry.whole.start <= entry.symbol.span.start < entry.symbol.span.stop <= entry.whole.stop


def test_colours_tell_what_a_name_is() -> None:
    text = "# Said.\npattern p(b = 2) { let c = b  input d : rows  attend window(c, ahead = h) | d | q }\n# not\n"
    by_text = {text[piece.span.start : piece.span.stop]: piece for piece in coloured(Document("f", text))}
    assert by_text["# Said."].traits == (Trait.DOCUMENTATION,) and by_text["# not"].traits == ()
    assert by_text["p"].colour is Colour.PATTERN and by_text["p"].traits == (Trait.DEFINITION,)
    kinds = [(by_text[name].colour, name) for name in ("b", "c", "d", "rows", "ahead", "window", "h", "2", "|")]
    assert kinds == [
        (Colour.PARAMETER, "b"),
        (Colour.VALUE, "c"),
        (Colour.VALUE, "d"),
        (Colour.KIND, "rows"),
        (Colour.ARGUMENT, "ahead"),
        (Colour.TERM, "window"),
        (Colour.VALUE, "h"),
        (Colour.NUMBER, "2"),
        (Colour.OPERATOR, "|"),
    ]
    assert "q" not in by_text

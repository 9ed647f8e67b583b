"""Which name means what, and a new name for it: on the examples and on texts that are half typed."""

from __future__ import annotations

import re

import pytest
from marked import marked

from sparsec import parse
from sparsec.diagnostics.source import Span
from sparsec.editor.document import Document
from sparsec.editor.edits import Edit, RenameError, applied, rename
from sparsec.editor.names import SymbolKind, Use
from sparsec.program import Pattern
from sparsec.sema.printer import sparse_text

SCOPES = """\
param base = 4
pattern s2(local = base * 2, every = local) {
    heads 8
    input picks : rows(blocks)
    input tiles : blocks(local, base)
    let near = window(local)
    where h in [0] attend near | stride(every, phase = -h) & picks
    otherwise      attend near | tiles | inner(size = every)
}
pattern inner(size = 2, local = 3) { causal attend window(size) | sink(local) }
model m(base = 1) { layers base + 3  use s2(local = base) }
"""


def uses(text: str, mark: str, within: int = 0) -> list[int]:
    """The lines on which the symbol at `mark` is written."""
    document = Document("s", text)
    found = document.names.at(text.index(mark) + within)
    assert found is not None and found.symbol is not None
    return [document.source.line_of(use.span.start) for use in document.names.of(found.symbol)]


def test_names_have_the_scopes_of_the_language() -> None:
    assert uses(SCOPES, "base") == [1, 2, 5]
    assert uses(SCOPES, "(base = 1)", 1) == [11, 11, 11]  # it hides the file's
    assert uses(SCOPES, "local = base") == [2, 2, 5, 6, 11]
    assert uses(SCOPES, "local = 3") == [10, 10]
    assert uses(SCOPES, "size = every") == [8, 10, 10]
    assert uses(SCOPES, "near = ") == [6, 7, 8]
    assert uses(SCOPES, "picks :") == [4, 7]
    kinds = {each.name: each.use for each in Document("s", SCOPES).names.occurrences if each.symbol is None}
    assert (kinds["rows"], kinds["blocks"], kinds["phase"]) == (Use.KIND, Use.KIND, Use.ARGUMENT)


def test_a_default_sees_the_parameters_before_it() -> None:
    text = "param size = 9\npattern p(size = size, other = size) { attend window(size + other) }\n"
    assert uses(text, "size = 9") == [1, 2]
    assert uses(text, "size = size") == [2, 2, 2]


def test_a_text_with_errors_has_its_names_too() -> None:
    text = "pattern p(a = 4) { let b = a +\n attend window(a, ahead = b) | | sink(\n\npattern q { attend p(a = 3"
    assert uses(text, "a = 4") == [1, 1, 2, 4]
    assert uses(text, "b = a") == [1, 2]
    assert uses(text, "p(a = 4)") == [1, 4]


def new_names(text: str) -> str:
    """The text with every symbol renamed, one after the other."""
    count = len({each.symbol for each in Document("s", text).names.occurrences} - {None})
    for number in range(count):
        document = Document("s", text)
        symbols = list(dict.fromkeys(each.symbol for each in document.names.occurrences if each.symbol is not None))
        text = applied(text, rename(document, symbols[number].span.start, f"renamed_{number}"))
    return text


def meaning(pattern: Pattern) -> str:
    heads = (None, None) if pattern.heads is not None else (8, pattern.kv_heads or 4)
    text = sparse_text(pattern.resolve(*heads), "p")
    for number, name in enumerate(pattern.inputs):
        text = re.sub(rf"\b{name}\b(?!\()", f"input{number}", text)
    return text


def test_a_file_with_new_names_means_the_same(example: str) -> None:
    after = new_names(example)
    before, renamed = parse(example), parse(after)
    assert len(renamed.patterns) == len(before.patterns)
    assert all(name.startswith("renamed_") for name in (*renamed.patterns, *renamed.models))
    for old, new in zip(before.patterns, renamed.patterns, strict=True):
        assert meaning(renamed.pattern(new)) == meaning(before.pattern(old))
    for old, new in zip(before.models, renamed.models, strict=True):
        layers, others = before.model(old), renamed.model(new)
        assert [meaning(layers.layer(n)) for n in (0, len(layers) - 1)] == [
            meaning(others.layer(n)) for n in (0, len(others) - 1)
        ]


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("pattern p { attend win@dow(3) }", "x", "`window` is a name of the language"),
        ("pattern p { attend stride(3, pha@se = 1) }", "x", "`phase` is a name of the language"),
        ("pattern p { attend un@known }", "x", "nothing defines `unknown`"),
        ("pattern p @{ attend full }", "x", "there is no name here"),
        ("pattern p@ { attend full }", "sink", "`sink` is a name of the language"),
        ("pattern p@ { attend full }", "4b", "a name is a letter"),
        ("pattern p@ { attend full }", "a b", "a name is a letter"),
        ("pattern p@ { attend full }", "a.b", "a name is a letter"),
        ("pattern p@ { attend full }", "", "a name is a letter"),
        ("pattern p@ { attend full }", "x" * 129, "a name is a letter"),
        ("pattern p@ { attend full }\npattern q { attend full }", "q", "`q` is already defined on line 2"),
        ("param a@ = 3\npattern p(b = 2) { attend window(a + b) }", "b", "`b` is already defined on line 2"),
        ("param a = 3\npattern p(b@ = 2) { attend window(a + b) }", "a", "`a` is already defined on line 1"),
    ],
)
def test_a_name_that_cannot_be_given(text: str, name: str, why: str) -> None:
    with pytest.raises(RenameError, match=why):
        rename(*marked(text), name)


def test_a_name_may_hide_one_of_the_file_that_its_item_does_not_use() -> None:
    document, offset = marked("param a = 3\npattern p(b@ = 2) { attend window(b) }\n")
    assert applied(document.text, rename(document, offset, "a")).endswith("p(a = 2) { attend window(a) }\n")


def test_kinds_of_symbols() -> None:
    found = {each.symbol.kind for each in Document("s", SCOPES).names.occurrences if each.symbol is not None}
    assert found == set(SymbolKind)


def test_edits_are_applied_from_the_end() -> None:
    assert applied("abc", (Edit(Span(0, 1), "xx"), Edit(Span(2, 3), ""))) == "xxb"

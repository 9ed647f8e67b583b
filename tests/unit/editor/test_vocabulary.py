"""The words of the language in all that knows them: lexer, TextMate, Pygments, colours, completion, help."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path

import pytest
from marked import marked
from pygments import highlight
from pygments.formatters.html import HtmlFormatter

from sparsec.editor.completion import completions_at
from sparsec.editor.document import Document
from sparsec.editor.hover import TABLES, kind_help, word_help
from sparsec.editor.outline import Colour, coloured
from sparsec.editor.pygments_lexer import TOKENS, SparseLexer
from sparsec.editor.reference import about, table_rows
from sparsec.editor.roles import Lexeme, Role, brackets, pieces, words
from sparsec.editor.textmate import SCOPES, textmate_text
from sparsec.sema.builtins import FUNCTIONS, TERMS, VALUES
from sparsec.sema.checks.scope import reserved
from sparsec.sema.inputs import forms
from sparsec.sema.model import InputKind

ROOT = Path(__file__).parents[3]
TEXTMATE = ROOT / "grammar" / "sparse.tmLanguage.json"
EXTENSION = ROOT / "grammar" / "vscode"
ODD = 'pattern @ { attend 5x | 1.5e3 .. 4kb "a !^ éin in_ } # end é\r\n\t(windowed window) != <= // ~x ; [h,H]'


def of_textmate(text: str) -> list[Lexeme]:
    """The pieces of a text, line by line, as an editor finds them: the first pattern that matches at a place."""
    patterns = [
        (re.compile(each["match"]), each["name"])
        for each in json.loads(TEXTMATE.read_text(encoding="utf-8"))["patterns"]
    ]
    roles = {scope: role for role, scope in SCOPES.items()}
    found, at = [], 0
    while at < len(text):
        stop = text.find("\n", at)
        stop = len(text) if stop < 0 else stop
        for pattern, scope in patterns:
            if match := pattern.match(text, at, stop):
                found.append(Lexeme(at, match[0], roles[scope]))
                at = match.end()
                break
        else:
            at += 1
    return found


def solid(text: str) -> list[Lexeme]:
    return [piece for piece in pieces(text) if piece.role is not Role.SPACE]


def test_the_textmate_grammar_is_that_of_the_language(update_golden: bool) -> None:
    if update_golden:
        TEXTMATE.write_text(textmate_text(), encoding="utf-8")
    assert TEXTMATE.read_text(encoding="utf-8") == textmate_text()


def test_textmate_and_the_lexer_read_an_example_alike(example: str) -> None:
    assert of_textmate(example) == solid(example)


def test_textmate_and_the_lexer_read_odd_text_alike() -> None:
    assert of_textmate(ODD) == solid(ODD)
    assert {piece.role for piece in pieces(ODD)} >= {Role.ERROR, Role.NUMBER, Role.OPERATOR, Role.COMMENT, Role.TERM}


def test_pygments_reads_a_text_as_the_lexer_does(example: str) -> None:
    tokens = [(at, kind, text) for at, kind, text in SparseLexer().get_tokens_unprocessed(example)]
    assert tokens == [(piece.start, TOKENS[piece.role], piece.text) for piece in pieces(example)]
    assert "".join(text for _, _, text in tokens) == example
    assert set(TOKENS) == set(Role)


def test_pygments_finds_the_lexer_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    value = project["entry-points"]["pygments.lexers"]["sparse"]
    assert EntryPoint("sparse", value, "pygments.lexers").load() is SparseLexer
    shown = highlight("pattern p { attend full }", SparseLexer(), HtmlFormatter())
    assert '<span class="k">pattern</span>' in shown and '<span class="nb">full</span>' in shown


def test_words_are_those_that_nobody_may_define() -> None:
    assert words().keys() == reserved()
    assert {word for word, role in words().items() if role is Role.TERM} == TERMS.keys() - {"causal"}
    assert {word for word, role in words().items() if role is Role.FUNCTION} == FUNCTIONS.keys()
    assert {word for word, role in words().items() if role is Role.VALUE} == VALUES.keys()


def test_a_piece_that_is_a_word_has_its_role(example: str) -> None:
    for piece in pieces(example):
        if piece.text in words():
            assert piece.role is words()[piece.text]


PLACES = (
    *("@", "pattern p { @", "pattern p { heads 3 @", "pattern p { documents @", "pattern p { attend @"),
    *("pattern p { where @", "pattern p { where h == 0 @", "model m { @", "model m { layers 3 where @"),
)


def test_every_word_is_offered_somewhere() -> None:
    offered = {item.label for text in PLACES for item in completions_at(*marked(text)).items}
    assert words().keys() <= offered, words().keys() - offered


def test_every_kind_of_input_is_offered() -> None:
    offered = [item.label for item in completions_at(*marked("pattern p { input x : @")).items]
    assert offered == [form for kind in InputKind for form in forms(kind)]


@pytest.mark.parametrize("word", sorted(words()))
def test_every_word_is_explained(word: str) -> None:
    role = words()[word]
    assert about(word, *TABLES[role]), word
    assert word in next(word_help(word))
    if role is Role.TERM:
        assert table_rows("term", word)[0].cells[0][0] == "tokens"


@pytest.mark.parametrize("kind", InputKind)
def test_every_kind_of_input_is_explained(kind: InputKind) -> None:
    assert table_rows("kind", kind.value) and all(kind_help(kind.value))


def test_colours_cover_the_words_and_names_of_an_example(example: str) -> None:
    found = coloured(Document("example", example))
    spans = [(piece.span.start, piece.span.stop) for piece in found]
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert not any("\n" in example[start:stop] for start, stop in spans)
    bare = (Role.SPACE, Role.PUNCTUATION)
    assert [start for start, _ in spans] == [piece.start for piece in pieces(example) if piece.role not in bare]
    assert {piece.colour for piece in found} <= set(Colour)


def test_the_extension_of_vs_code_agrees() -> None:
    package = json.loads((EXTENSION / "package.json").read_text(encoding="utf-8"))
    settings = json.loads((EXTENSION / "language-configuration.json").read_text(encoding="utf-8"))
    assert [tuple(pair) for pair in settings["brackets"]] == list(brackets())
    assert settings["autoClosingPairs"] == settings["surroundingPairs"] == settings["brackets"]
    contributed = package["contributes"]
    assert contributed["grammars"][0]["path"].rpartition("/")[2] == TEXTMATE.name
    assert contributed["grammars"][0]["scopeName"] == json.loads(textmate_text())["scopeName"]
    assert contributed["languages"][0]["extensions"] == SparseLexer.filenames[0].split("*")[1:]

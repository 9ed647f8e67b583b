"""Any text has an answer: examples cut off anywhere, words in any order, and files made to be expensive."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.diagnostics.source import Span
from sparsec.editor.completion import call_at, completions_at
from sparsec.editor.document import Document, Settings
from sparsec.editor.edits import RenameError, fixes, formatting, rename
from sparsec.editor.hover import hover_at
from sparsec.editor.outline import coloured, outline
from sparsec.editor.positions import LineIndex
from sparsec.editor.roles import pieces, words
from sparsec.syntax.lexer import spellings

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "hostile"))
from bombs import FILES  # noqa: E402

EXAMPLES = sorted((ROOT / "examples").rglob("*.sparse"))
SHORT = Settings(heads=2, seq_len=128)
SECONDS = 4.0
"""Of one answer, on a busy machine."""


def renamed(document: Document, offset: int) -> object:
    try:
        return rename(document, offset, "other_name")
    except RenameError:
        return None


QUESTIONS: dict[str, Callable[[Document, int], object]] = {
    "names": lambda document, _: document.names,
    "hover": lambda document, offset: hover_at(document, offset, SHORT),
    "completion": completions_at,
    "call": call_at,
    "rename": renamed,
    "formatting": lambda document, _: formatting(document),
    "colours": lambda document, _: coloured(document),
    "outline": lambda document, _: outline(document),
}


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_an_example_that_is_cut_off(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(EXAMPLES)).read_text(encoding="utf-8")
    cut = text[: data.draw(st.integers(0, len(text)))] + text[data.draw(st.integers(0, len(text))) :]
    answered(cut, data.draw(st.integers(0, len(cut))))


WORDS = [*words(), *spellings().values(), "p", "q", "x", "4b", "7", "0.5", "\n", "# c\n", "é", '"', "𝒩", "\0"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=30), st.integers(0, 200))
def test_words_in_any_order(found: list[str], offset: int) -> None:
    text = "pattern p { " + " ".join(found)
    answered(text, min(offset, len(text)))


def answered(text: str, offset: int) -> None:
    document = Document("any", text)
    assert "".join(piece.text for piece in pieces(text)) == text
    for question in QUESTIONS.values():
        question(document, offset)
    place = LineIndex(text).place(offset)
    assert LineIndex(text).offset(*place) <= offset
    fixes(document, Span(offset, offset), 0.05)


@pytest.mark.parametrize(
    "name", ["chain of terms", "cycle of parameters", "no characters", "doubling heads", "unclosed brackets"]
)
def test_an_expensive_file_has_cheap_answers(name: str) -> None:
    text = FILES[name]
    document = Document("bomb", text)
    for question, answer in QUESTIONS.items():
        before = process_time()
        answer(document, len(text) // 2)
        assert process_time() - before < SECONDS, question

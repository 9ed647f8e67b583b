"""Places of a text as the Language Server Protocol counts them."""

from __future__ import annotations

import pytest

from sparsec.editor.positions import Encoding, LineIndex

TEXT = "a𝒩b\r\ncé\rd\n\n\u2028e"


@pytest.mark.parametrize("encoding", Encoding)
def test_a_place_is_what_the_encoding_says(encoding: Encoding) -> None:
    positions = LineIndex(TEXT, encoding)
    unit = {"utf-8": 1, "utf-16": 2, "utf-32": 4}[encoding.value]
    name = encoding.value if encoding is Encoding.UTF8 else f"{encoding.value}-le"
    lines = TEXT.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert lines == ["a𝒩b", "cé", "d", "", "\u2028e"]
    at = 0
    for number, line in enumerate(lines):
        for column in range(len(line) + 1):
            place = (number, len(line[:column].encode(name)) // unit)
            assert positions.place(at + column) == place
            assert positions.offset(*place) == at + column
        at += len(line) + (2 if number == 0 else 1)


def test_places_beyond_the_text_are_at_its_ends() -> None:
    positions = LineIndex("ab\ncd")
    assert positions.offset(0, 99) == 2
    assert positions.offset(99, 0) == 5
    assert positions.offset(-1, 4) == 0
    assert positions.offset(1, -3) == 3
    assert positions.place(99) == (1, 2)


def test_a_place_within_a_character_is_before_it_and_a_lone_surrogate_has_a_place() -> None:
    assert LineIndex("𝒩").offset(0, 1) == 0
    lone = LineIndex("\ud800x")
    assert lone.place(1) == (0, 1)
    assert LineIndex("\ud800x", Encoding.UTF8).place(1) == (0, 3)

"""The JSON reader against Python's: the same values, the same refusals, and spans that hold the values' text."""

from __future__ import annotations

import json
import random

import pytest

from sparsec.diagnostics.model import DiagnosticError
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.imports.json_values import MAX_LEVELS, JsonArray, JsonObject, JsonScalar, JsonValue, read_json


def refuse(word: str) -> object:
    raise ValueError(word)


def pythons(text: str) -> object:
    """What the json module makes of a text, without NaN and infinities, which are no JSON."""
    return json.loads(text, parse_constant=refuse)


def plain(value: JsonValue, text: str) -> object:
    """The value as the json module gives it; its own text, read alone, is the same value."""
    match value:
        case JsonScalar(span, found):
            made: object = found
        case JsonArray(span, items):
            made = [plain(item, text) for item in items]
        case JsonObject(span, members):
            made = {member.name: plain(member.value, text) for member in members}
            for member in members:
                assert json.loads(text[member.span.start : member.span.stop]) == member.name
    assert pythons(text[span.start : span.stop]) == made
    return made


def drawn(draw: random.Random, levels: int) -> object:
    kind = draw.randrange(8 if levels else 6)
    if kind == 6:
        return [drawn(draw, levels - 1) for _ in range(draw.randrange(4))]
    if kind == 7:
        return {draw.choice(["a", "\u00e9\n", '"\\', ""]): drawn(draw, levels - 1) for _ in range(draw.randrange(4))}
    return [
        None,
        True,
        False,
        draw.randrange(-9, 10**6),
        draw.uniform(-1, 1) * 10.0 ** draw.randrange(-9, 30),
        "\t\U0001f600",
    ][kind]


def test_drawn_values_and_broken_texts() -> None:
    draw = random.Random(5)
    refused = 0
    for _ in range(1500):
        text = json.dumps(drawn(draw, 4), ensure_ascii=draw.random() < 0.5, indent=draw.choice([None, 1]))
        for _ in range(draw.randrange(3)):
            at = draw.randrange(len(text) + 1)
            text = (
                text[:at]
                + draw.choice(["", "[", "]", "{", "}", ",", ":", '"', "\\", "1", "-", ".", "e", " ", "\0", "x"])
                + text[at + draw.randrange(2) :]
            )
        try:
            wanted = pythons(text)
        except ValueError:
            refused += 1
            with pytest.raises(DiagnosticError) as raised:
                read_json(SourceFile("t", text))
            (problem,) = raised.value.diagnostics
            assert problem.code == "E706" and 0 <= problem.span.start <= len(text)
        else:
            assert plain(read_json(SourceFile("t", text)), text) == wanted
    assert 300 < refused < 1200


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "expected a value, found the end of the file"),
        ("[1, 2", 6, "expected `,` or `]`, found the end of the file"),
        ("[1 2]", 4, "expected `,` or `]`, found `2`"),
        ("[1,]", 4, "expected a value, found `]`"),
        ('{"a" 1}', 6, "expected `:`, found `1`"),
        ("{a: 1}", 2, "expected a name in double quotes, found `a`"),
        ('["abc]', 2, 'expected a closed string, found `"abc]`'),
        ('["a\tb"]', 2, 'expected a closed string, found `"a\tb"`'),
        ("[01]", 2, "expected a value, found `01`"),
        ("[1.]", 2, "expected a value, found `1.`"),
        ("[Infinity]", 2, "expected a value, found `Infinity`"),
        ("[1] []", 5, "expected the end of the file, found `[`"),
        ("[" * 40, MAX_LEVELS + 1, f"expected at most {MAX_LEVELS} levels of brackets, found `[`"),
    ],
)
def test_where_and_why_a_text_is_no_json(text: str, column: int, message: str) -> None:
    with pytest.raises(DiagnosticError) as raised:
        read_json(SourceFile("t", text))
    (problem,) = raised.value.diagnostics
    assert (problem.column, problem.message) == (column, message)


def test_long_numbers_are_decimals() -> None:
    text = "9" * 6000
    assert read_json(SourceFile("t", text)) == JsonScalar(Span(0, 6000), float("inf"))
    assert read_json(SourceFile("t", "123456789012345678")) == JsonScalar(Span(0, 18), 123456789012345678)

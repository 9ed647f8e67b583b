"""JSON text -> values that know their place in it.

Invariant: every value has the span of its own text, and a text that the json module of Python refuses is refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from sparsec.diagnostics import codes_tables as codes
from sparsec.diagnostics.codes_text import quoted
from sparsec.diagnostics.model import DiagnosticError
from sparsec.diagnostics.source import SourceFile, Span

MAX_LEVELS = 16
_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?(?![\w.+-])")
_WORD = re.compile(r"(?:true|false|null)(?!\w)")
_TOKEN = re.compile(r'[\w.+-]{1,40}|"[^"\n]{0,40}"?|.', re.DOTALL)
_WORDS = {"true": True, "false": False, "null": None}
_EXACT = 18  # digits of a whole number that is read as one; a longer one is read as a decimal


@dataclass(frozen=True, slots=True)
class JsonScalar:
    span: Span
    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class JsonArray:
    span: Span
    items: tuple[JsonValue, ...]


@dataclass(frozen=True, slots=True)
class JsonMember:
    """A name of an object, the span of the name, and its value."""

    name: str
    span: Span
    value: JsonValue


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Members in the order of the text; a name may come twice."""

    span: Span
    members: tuple[JsonMember, ...]


JsonValue = JsonScalar | JsonArray | JsonObject


def read_json(source: SourceFile) -> JsonValue:
    """The value of the whole text. Raises DiagnosticError at the first place that is no JSON."""
    reader = _Reader(source)
    value = reader.value()
    if reader.at < len(source.text):
        raise reader.stopped("the end of the file")
    return value


class _Reader:
    """One pass over the text; between calls it stands in front of a token."""

    def __init__(self, source: SourceFile) -> None:
        self.source, self.text = source, source.text
        self.at = self._behind_space(0)
        self.levels = 0

    def value(self) -> JsonValue:
        start = self.at
        match self._next():
            case "[":
                self._enter()
                items: list[JsonValue] = []
                while self._more("]", first=not items):
                    items.append(self.value())
                return JsonArray(self._leave(start), tuple(items))
            case "{":
                self._enter()
                members: list[JsonMember] = []
                while self._more("}", first=not members):
                    members.append(self._member())
                return JsonObject(self._leave(start), tuple(members))
            case '"':
                return JsonScalar(*self._string("a closed string"))
        if word := _WORD.match(self.text, start):
            return JsonScalar(self._take(word.end()), _WORDS[word[0]])
        if number := _NUMBER.match(self.text, start):
            whole = number[1] is None and number[2] is None and len(number[0]) <= _EXACT
            return JsonScalar(self._take(number.end()), int(number[0]) if whole else float(number[0]))
        raise self.stopped("a value")

    def _member(self) -> JsonMember:
        span, name = self._string("a name in double quotes")
        if self._next() != ":":
            raise self.stopped("`:`")
        self._take(self.at + 1)
        return JsonMember(name, span, self.value())

    def _string(self, expected: str) -> tuple[Span, str]:
        found = _STRING.match(self.text, self.at)
        if found is None:
            raise self.stopped(expected)
        return self._take(found.end()), json.loads(found[0])

    def _more(self, closing: str, first: bool) -> bool:
        """Whether an element follows, its comma taken."""
        if self._next() == closing:
            return False
        if not first:
            if self._next() != ",":
                raise self.stopped(f"`,` or `{closing}`")
            self._take(self.at + 1)
        return True

    def _enter(self) -> None:
        if self.levels == MAX_LEVELS:
            raise self.stopped(f"at most {MAX_LEVELS} levels of brackets")
        self.levels += 1
        self._take(self.at + 1)

    def _leave(self, start: int) -> Span:
        self.levels -= 1
        return Span(start, self._take(self.at + 1).stop)

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _take(self, stop: int) -> Span:
        span = Span(self.at, stop)
        self.at = self._behind_space(stop)
        return span

    def _behind_space(self, at: int) -> int:
        space = _SPACE.match(self.text, at)
        return at if space is None else space.end()

    def stopped(self, expected: str) -> DiagnosticError:
        token = _TOKEN.match(self.text, self.at)
        found = "the end of the file" if token is None else quoted(token[0])
        span = Span(self.at, self.at if token is None else token.end())
        return DiagnosticError((codes.NOT_JSON.at(self.source, span, expected=expected, found=found),))

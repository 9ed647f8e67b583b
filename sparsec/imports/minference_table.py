"""MInference's table of heads: JSON text -> the heads of each layer.

The table is a list over layers of objects `"head": [type, vertical size, slash size, score]`. Invariant: every layer
has the same heads, 0 to H - 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum

from sparsec.diagnostics import codes_tables as codes
from sparsec.diagnostics.codes_text import quoted
from sparsec.diagnostics.model import DiagnosticError
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.imports.json_values import JsonArray, JsonMember, JsonObject, JsonScalar, JsonValue, read_json
from sparsec.sema.node import LIMIT, MAX_HEADS, MAX_LAYERS
from sparsec.syntax.lexer import ProblemReport


class HeadType(Enum):
    VERTICAL_AND_SLASH = "vertical_and_slash"
    STREAM_LLM = "stream_llm"
    BLOCK_SPARSE = "block_sparse"


@dataclass(frozen=True, slots=True)
class Head:
    type: HeadType
    vertical: int
    slash: int


Layer = tuple[Head, ...]


def read_heads(source: SourceFile) -> tuple[Layer, ...]:
    """The heads by layer. Raises DiagnosticError with every problem, or with the first place that is no JSON."""
    table = read_json(source)
    reader = _Reader(source, ProblemReport())
    layers = tuple(reader.layers(table))
    if reader.report.found:
        raise DiagnosticError(reader.report.close(source))
    return layers


@dataclass(frozen=True, slots=True)
class _Reader:
    source: SourceFile
    report: ProblemReport

    def layers(self, table: JsonValue) -> Iterator[Layer]:
        if not isinstance(table, JsonArray):
            self._wrong(table, "a list with an object for each layer")
            return
        if not table.items:
            hint = "a layer is an object with an entry for each head"
            self.report.add(codes.EMPTY_TABLE.at(self.source, table.span, expected=hint))
        if len(table.items) > MAX_LAYERS:
            self._too_many(table.items[MAX_LAYERS].span, MAX_LAYERS, "layers", "the table is a list of the layers")
        heads = 0
        for layer in table.items[:MAX_LAYERS]:
            if self.report.hidden:  # of so many problems the rest is not counted
                return
            found = tuple(self._heads(layer))
            heads = heads or len(found)
            if found and len(found) != heads:
                facts = {"expected": heads, "what": "heads", "count": len(found)}
                self.report.add(codes.UNEVEN_LAYER.of(self.source, _opening(layer), facts))
            yield found

    def _heads(self, layer: JsonValue) -> Iterator[Head]:
        """The heads of a layer in their order; a problem stands in as a head."""
        if not isinstance(layer, JsonObject):
            self._wrong(layer, "an object with an entry for each head")
            return
        if not layer.members:
            self.report.add(codes.MISSING_HEAD.at(self.source, layer.span, head=0))
        given: dict[int, JsonMember] = {}
        for member in layer.members:
            if self.report.hidden:
                return
            head = int(member.name) if member.name.isascii() and member.name.isdigit() and len(member.name) < 6 else -1
            if not 0 <= head < MAX_HEADS:
                self._wrong_name(member)
            elif head in given:
                line = self.source.line_of(given[head].span.start)
                self.report.add(codes.REPEATED_HEAD.at(self.source, member.span, head=head, line=line))
            else:
                given[head] = member
        for head in range(max(given, default=-1) + 1):
            if head in given:
                yield self._head(given[head].value)
            else:
                self.report.add(codes.MISSING_HEAD.at(self.source, _opening(layer), head=head))
                yield _ANY

    def _head(self, entry: JsonValue) -> Head:
        expected = "a list of the type, the vertical size, the slash size and the score"
        if not isinstance(entry, JsonArray):
            return self._wrong(entry, expected)
        if len(entry.items) != 4:
            return self._wrong(entry, expected, f"{len(entry.items)} entries")
        kind, vertical, slash, score = entry.items
        if not (isinstance(kind, JsonScalar) and isinstance(kind.value, str)):
            return self._wrong(kind, "the type of the head")
        if not _is_number(score):
            self._wrong(score, "the score, a number")
        if kind.value not in (each.value for each in HeadType):
            return self._unknown(kind.span, kind.value)
        type_ = HeadType(kind.value)
        least = 1 if type_ is HeadType.STREAM_LLM else 0
        return Head(type_, self._size(vertical, "vertical", 0), self._size(slash, "slash", least))

    def _size(self, given: JsonValue, what: str, least: int) -> int:
        if not _is_number(given):
            self._wrong(given, f"the {what} size, a whole number")
            return least
        value = given.value if isinstance(given, JsonScalar) else None
        if not isinstance(value, int) or not least <= value <= LIMIT:
            facts = {"what": what, "value": quoted(self._text(given.span)), "least": least}
            self.report.add(codes.SIZE_OUT_OF_RANGE.of(self.source, given.span, facts))
            return least
        return value

    def _text(self, span: Span) -> str:
        return self.source.text[span.start : span.stop]

    def _wrong(self, given: JsonValue, expected: str, found: str | None = None) -> Head:
        match given:
            case JsonObject():
                span, what = _opening(given), "an object"
            case JsonArray():
                span, what = _opening(given), "a list"
            case JsonScalar(at):
                span, what = at, quoted(self._text(at))
        self.report.add(codes.WRONG_VALUE.at(self.source, span, expected=expected, found=found or what))
        return _ANY

    def _wrong_name(self, member: JsonMember) -> None:
        expected = f"the number of a head, from 0 to {MAX_HEADS - 1}"
        self.report.add(
            codes.WRONG_VALUE.at(self.source, member.span, expected=expected, found=quoted(self._text(member.span)))
        )

    def _unknown(self, span: Span, name: str) -> Head:
        names = [each.value for each in HeadType]
        close = get_close_matches(name[:40], names, 1)
        hint = f"did you mean `{close[0]}`?" if close else f"the types are {', '.join(names)}"
        self.report.add(codes.UNKNOWN_TYPE.at(self.source, span, found=quoted(name), hint=hint))
        return _ANY

    def _too_many(self, span: Span, limit: int, what: str, where: str) -> None:
        self.report.add(codes.TOO_MANY.at(self.source, span, limit=limit, what=what, where=where))


_ANY = Head(HeadType.BLOCK_SPARSE, 0, 0)
"""What stands in for a head with a problem."""


def _opening(value: JsonValue) -> Span:
    return Span(value.span.start, value.span.start + 1)


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, JsonScalar) and isinstance(value.value, int | float) and not isinstance(value.value, bool)

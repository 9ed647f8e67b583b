"""A text -> what an editor shows of its structure: coloured pieces, and its items with what they define.

Invariant: the coloured pieces ascend, and none of them crosses a line's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from sparsec.diagnostics.source import Span
from sparsec.editor.document import Document
from sparsec.editor.names import Occurrence, Symbol, SymbolKind, Use
from sparsec.editor.roles import Role, pieces


class Colour(Enum):
    """What a piece is for an editor, by the name that the protocol gives it as a type of semantic tokens."""

    KEYWORD = "keyword"
    TERM = "function"
    VALUE = "variable"
    PATTERN = "type"
    MODEL = "class"
    PARAMETER = "parameter"
    ARGUMENT = "property"
    KIND = "enumMember"
    NUMBER = "number"
    STRING = "string"
    OPERATOR = "operator"
    COMMENT = "comment"


class Trait(Enum):
    """What else is known of a piece, by the name that the protocol gives it as a modifier."""

    DEFINITION = "declaration"
    CONSTANT = "readonly"
    BUILT_IN = "defaultLibrary"
    DOCUMENTATION = "documentation"


@dataclass(frozen=True, slots=True)
class ColouredPiece:
    span: Span
    colour: Colour
    traits: tuple[Trait, ...] = ()


@dataclass(frozen=True, slots=True)
class OutlineEntry:
    """A definition, from its keyword or its name on to its end, with those inside it."""

    symbol: Symbol
    whole: Span
    inner: tuple[OutlineEntry, ...] = ()


_OF_ROLE = {
    Role.KEYWORD: (Colour.KEYWORD, ()),
    Role.CONSTANT: (Colour.KEYWORD, (Trait.CONSTANT,)),
    Role.TERM: (Colour.TERM, (Trait.BUILT_IN,)),
    Role.FUNCTION: (Colour.TERM, (Trait.BUILT_IN,)),
    Role.VALUE: (Colour.VALUE, (Trait.CONSTANT, Trait.BUILT_IN)),
    Role.NUMBER: (Colour.NUMBER, ()),
    Role.STRING: (Colour.STRING, ()),
    Role.OPERATOR: (Colour.OPERATOR, ()),
    Role.COMMENT: (Colour.COMMENT, ()),
}
_OF_SYMBOL = {
    SymbolKind.FILE_PARAMETER: Colour.PARAMETER,
    SymbolKind.PARAMETER: Colour.PARAMETER,
    SymbolKind.PATTERN: Colour.PATTERN,
    SymbolKind.MODEL: Colour.MODEL,
    SymbolKind.LET: Colour.VALUE,
    SymbolKind.INPUT: Colour.VALUE,
}


def coloured(document: Document) -> tuple[ColouredPiece, ...]:
    """The coloured pieces of a text; none of one that is too large."""
    names = {each.span.start: each for each in document.names.occurrences}
    return tuple(_coloured(document, names)) if names or document.tree.items else ()


def _coloured(document: Document, names: dict[int, Occurrence]) -> Iterator[ColouredPiece]:
    documented = _documentation(document)
    for piece in pieces(document.text):
        span = Span(piece.start, piece.start + len(piece.text.rstrip("\r")))
        named = names.get(piece.start)
        if named is not None:
            found = _of_name(named)
        else:
            found = _OF_ROLE.get(piece.role)
            if piece.role is Role.COMMENT and document.source.line_of(piece.start) in documented:
                found = (Colour.COMMENT, (Trait.DOCUMENTATION,))
        if found is not None:
            yield ColouredPiece(span, *found)


def _of_name(named: Occurrence) -> tuple[Colour, tuple[Trait, ...]] | None:
    defined = (Trait.DEFINITION,) if named.use is Use.DEFINITION else ()
    if named.use is Use.ARGUMENT:
        return Colour.ARGUMENT, ()
    if named.use is Use.KIND:
        return Colour.KIND, ()
    if named.symbol is not None:
        return _OF_SYMBOL[named.symbol.kind], defined
    return _OF_ROLE.get(named.role)


def _documentation(document: Document) -> frozenset[int]:
    """The lines of the comments that document an item."""
    first = [(document.source.line_of(item.span.start), len(item.doc)) for item in document.tree.items]
    return frozenset(line for start, count in first for line in range(start - count, start))


def outline(document: Document) -> tuple[OutlineEntry, ...]:
    """The items of a text in order, each with what it defines."""
    names = document.names
    starts = [item.start for item in names.items]
    ends = {item.span.start: item.span.stop for item in document.tree.items}
    entries = []
    for symbol in names.file.values():
        start = starts[symbol.item]
        following = starts[symbol.item + 1] if symbol.item + 1 < len(starts) else len(document.text)
        stop = min(ends.get(start, following), following)
        inner = tuple(OutlineEntry(own, own.span) for own in names.items[symbol.item].symbols.values())
        entries.append(OutlineEntry(symbol, Span(start, max(stop, symbol.span.stop)), inner))
    return tuple(sorted(entries, key=lambda entry: entry.whole.start))

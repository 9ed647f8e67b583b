"""Tokens -> which name means what: every definition of a text, and every use of it.

It goes by tokens, not by the tree, so that a statement that is half typed has its names too. The scopes are those of
`sema.checks`: an item's parameters, lets and inputs hide the names of the file, and a default sees what stands before
it. Invariant: each NAME token gives one `Occurrence`, in the order of the text.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from sparsec.diagnostics.source import SourceFile, Span
from sparsec.editor.roles import Role, name_role
from sparsec.sema.model import InputKind
from sparsec.syntax.expected import CLOSING, ITEM_STARTS
from sparsec.syntax.lexer import ProblemReport, split, statement_starts

OPENING = frozenset(CLOSING.values())


class SymbolKind(Enum):
    """What a file defines."""

    FILE_PARAMETER = "parameter of the file"
    PATTERN = "pattern"
    MODEL = "model"
    PARAMETER = "parameter"
    LET = "let"
    INPUT = "input"


OF_FILE = (SymbolKind.FILE_PARAMETER, SymbolKind.PATTERN, SymbolKind.MODEL)
_DEFINED_AFTER = {
    "PARAM": SymbolKind.FILE_PARAMETER,
    "PATTERN": SymbolKind.PATTERN,
    "MODEL": SymbolKind.MODEL,
    "LET": SymbolKind.LET,
    "INPUT": SymbolKind.INPUT,
}


class Use(Enum):
    """What an occurrence of a name is."""

    DEFINITION = "definition"
    REFERENCE = "reference"
    ARGUMENT = "argument"
    """The name of a call's argument: it stands for the callee's parameter."""
    KIND = "kind"
    """A word of an input's kind."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A definition: the first of its name in its scope. `item` counts the items of the text, from 0."""

    name: str
    kind: SymbolKind
    item: int
    span: Span


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A NAME token. `symbol` is None for a built-in name and for one that nothing defines.

    `callee`: of an ARGUMENT, what is called; of a KIND in parentheses, the kind.
    """

    name: str
    span: Span
    use: Use
    symbol: Symbol | None
    callee: str | None = None

    @property
    def role(self) -> Role:
        """The role of its word."""
        return Role.NAME if self.symbol is not None or self.use is not Use.REFERENCE else name_role(self.name)


@dataclass(frozen=True, slots=True)
class ItemTokens:
    """An item of a text: its keyword, its name, and the offset at which it starts; it ends where the next starts."""

    keyword: str
    name: str | None
    start: int
    symbols: Mapping[str, Symbol]


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a text. `file`: what the file defines, by name."""

    occurrences: tuple[Occurrence, ...]
    items: tuple[ItemTokens, ...]
    file: Mapping[str, Symbol]

    def at(self, offset: int) -> Occurrence | None:
        """The name that holds or ends at an offset."""
        index = bisect_right(self.occurrences, offset, key=lambda each: each.span.start) - 1
        if index < 0 or offset > self.occurrences[index].span.stop:
            return None
        return self.occurrences[index]

    def of(self, symbol: Symbol) -> tuple[Occurrence, ...]:
        """Where a symbol is defined and used."""
        return tuple(each for each in self.occurrences if each.symbol == symbol)

    def item_at(self, offset: int) -> int | None:
        """The item in which an offset lies, by its place in `items`."""
        index = bisect_right(self.items, offset, key=lambda each: each.start) - 1
        return index if index >= 0 else None

    def visible(self, offset: int) -> dict[str, Symbol]:
        """The definitions that may be used at an offset; those of an item hide those of the file."""
        item = self.item_at(offset)
        return {**self.file, **(self.items[item].symbols if item is not None else {})}


@dataclass(slots=True)
class _Item:
    keyword: str
    start: int
    name: str | None = None
    symbols: dict[str, Symbol] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Open:
    """An open bracket: what is called with it, whether it holds the parameters of an item, or words of a kind."""

    closing: str
    callee: str | None = None
    header: bool = False
    kind: bool = False


@dataclass(frozen=True, slots=True)
class _Seen:
    """A name before it is resolved; `limit`: in a default, what is defined from there on is not visible."""

    name: str
    span: Span
    use: Use
    item: int
    callee: str | None = None
    pattern: bool = False
    limit: int | None = None
    symbol: Symbol | None = None


def names_of(source: SourceFile) -> Names:
    """The names of a text; none of one that is too large."""
    reader = _NameReader()
    tokens = split(source, ProblemReport())
    if tokens is not None:
        kinds = [token.type for token in tokens.tokens]
        for index, token in enumerate(tokens.tokens):
            start, stop = token.start_pos, token.end_pos
            assert start is not None and stop is not None, "a token of a text has a place"
            before = kinds[index - 1] if index else ""
            after = kinds[index + 1] if index + 1 < len(kinds) else ""
            reader.read(token.type, source.text[start:stop], Span(start, stop), before, after)
    return reader.close()


class _NameReader:
    """One pass over the tokens: which item, which statement, which brackets are open."""

    def __init__(self) -> None:
        self.items: list[_Item] = []
        self.file: dict[str, Symbol] = {}
        self.seen: list[_Seen] = []
        self.open: list[_Open] = []
        self.statement = ""
        self.callee: str | None = None  # the name that stands directly before a bracket
        self.parameter = 0  # where the last parameter of a header is defined

    def read(self, kind: str, text: str, span: Span, before: str, after: str) -> None:
        if kind in ITEM_STARTS:
            self.items.append(_Item(kind, span.start))
            self.open.clear()
            self.statement = kind
        elif kind in statement_starts() and kind != "CAUSAL":
            self.statement = kind
            del self.open[1:]
        elif kind in OPENING:
            self._bracket(kind, before)
        elif kind in CLOSING and self.open:
            self.open.pop()
        elif kind == "NAME":
            self._name(text, span, before, after)
        if kind in ("NAME", "CAUSAL"):
            self.callee = text

    def _bracket(self, kind: str, before: str) -> None:
        called = kind == "LPAR" and before == "NAME"
        header = called and not self.open and self.statement in ("PATTERN", "MODEL")
        kind_given = called and self.statement == "INPUT" and self.callee != InputKind.BLOCKS.value
        of_kind = kind_given and self.seen[-1].use is Use.KIND
        callee = self.callee if called and not header else None
        self.open.append(_Open(kind, callee, header, of_kind))

    def _name(self, text: str, span: Span, before: str, after: str) -> None:
        item = len(self.items) - 1
        inner = self.open[-1] if self.open else None
        begins = before in ("LPAR", "COMMA")
        if before in _DEFINED_AFTER:
            self._define(text, span, _DEFINED_AFTER[before])
        elif inner is not None and inner.header and begins:
            self._define(text, span, SymbolKind.PARAMETER)
            self.parameter = span.start
        elif self.statement == "INPUT" and (before == "COLON" or (inner is not None and inner.kind)):
            self.seen.append(
                _Seen(text, span, Use.KIND, item, None if before == "COLON" or inner is None else inner.callee)
            )
        elif begins and after == "EQUAL" and inner is not None and inner.callee is not None:
            self.seen.append(_Seen(text, span, Use.ARGUMENT, item, inner.callee))
        else:
            limit = self.parameter if self.open and self.open[0].header else None
            self.seen.append(_Seen(text, span, Use.REFERENCE, item, pattern=before == "USE", limit=limit))

    def _define(self, text: str, span: Span, kind: SymbolKind) -> None:
        item = len(self.items) - 1
        if item < 0 and kind not in OF_FILE:
            self.seen.append(_Seen(text, span, Use.REFERENCE, item))
            return
        scope = self.file if kind in OF_FILE else self.items[item].symbols
        symbol = scope.setdefault(text, Symbol(text, kind, item, span))
        if kind in OF_FILE:
            self.items[item].name = text
        self.seen.append(_Seen(text, span, Use.DEFINITION, item, symbol=symbol))

    def close(self) -> Names:
        items = tuple(ItemTokens(each.keyword, each.name, each.start, each.symbols) for each in self.items)
        return Names(tuple(self._resolved()), items, self.file)

    def _resolved(self) -> Iterator[Occurrence]:
        for each in self.seen:
            symbol = each.symbol
            if each.use is Use.REFERENCE:
                symbol = self._referenced(each)
            elif each.use is Use.ARGUMENT:
                called = self._lookup(each.callee or "", each.item, None)
                if called is not None and called.kind is SymbolKind.PATTERN:
                    found = self.items[called.item].symbols.get(each.name)
                    symbol = found if found is not None and found.kind is SymbolKind.PARAMETER else None
            yield Occurrence(each.name, each.span, each.use, symbol, each.callee)

    def _referenced(self, each: _Seen) -> Symbol | None:
        if each.pattern:
            found = self.file.get(each.name)
            return found if found is not None and found.kind is SymbolKind.PATTERN else None
        return self._lookup(each.name, each.item, each.limit)

    def _lookup(self, name: str, item: int, limit: int | None) -> Symbol | None:
        if name_role(name) is not Role.NAME:
            return None
        own = self.items[item].symbols.get(name) if item >= 0 else None
        if own is not None and (limit is None or own.span.start < limit):
            return own
        return self.file.get(name)

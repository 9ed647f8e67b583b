"""A place of a text -> what may be written there: keywords that the parser accepts, and names that are in scope.

Invariant: a keyword is offered only where the grammar takes it, and where its item does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from sparsec.diagnostics.source import Span
from sparsec.editor.document import Document
from sparsec.editor.hover import definition, kind_help, slot_help, word_help
from sparsec.editor.names import Symbol, SymbolKind
from sparsec.editor.roles import Role, terminal_role
from sparsec.sema.builtins import FUNCTIONS, TERMS, VALUES, SlotKind, usage
from sparsec.sema.checks.items import CONSTANT, IN_ARMS, IN_LAYERS, IN_MODEL, IN_PATTERN, REPEATABLE, keyword_of
from sparsec.sema.inputs import UNITS, forms
from sparsec.sema.model import InputKind
from sparsec.sema.modifiers import OF_NUMBERS
from sparsec.syntax.expected import StopPlace
from sparsec.syntax.lexer import spellings, statement_starts
from sparsec.syntax.parser import stop_place
from sparsec.syntax.tree import InputStatement, ModelItem, Name, PatternItem

_WORD = re.compile(r"[A-Za-z0-9_]*")
_VALUES = ("NOT", "TRUE", "FALSE")
_DEFINES = ("PARAM", "PATTERN", "MODEL", "LET", "INPUT")
_UNITS = {kind.value: [unit.value for unit in UNITS[kind]] for kind in UNITS}
_CONSTANTS = ("HEADS", "KV", "BLOCK", "LAYERS", "SCALE", "PARAM", "INPUT", *(keyword.upper() for keyword in OF_NUMBERS))


class ItemKind(Enum):
    """What a completion is."""

    KEYWORD = "keyword"
    TERM = "term"
    FUNCTION = "function"
    VALUE = "value"
    CONSTANT = "constant"
    ARGUMENT = "argument"
    INPUT_KIND = "kind of an input"
    PATTERN = "pattern"
    MODEL = "model"
    PARAMETER = "parameter"
    LET = "let"
    INPUT = "input"


@dataclass(frozen=True, slots=True)
class Completion:
    """A word that fits. `snippet`: what is inserted, with the places to fill in as `${1:n}`; `rank` orders, 0 first."""

    label: str
    kind: ItemKind
    detail: str = ""
    snippet: str | None = None
    rank: int = 1
    markdown: str = ""


@dataclass(frozen=True, slots=True)
class Completions:
    """What fits in place of the word at `span`, which ends at the cursor or behind it."""

    span: Span
    items: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What an expression may be at a place; `constant`: it has no head and no layer to depend on."""

    sets: bool
    values: bool
    constant: bool


@dataclass(frozen=True, slots=True)
class SurroundingCall:
    """A call around a place: what is called, the arguments that have names already, and the number of this one."""

    callee: str
    named: frozenset[str]
    position: int
    begins: bool


def completions_at(document: Document, offset: int) -> Completions:
    """Everything that may stand at an offset; nothing within a comment or a number, or where a new name belongs."""
    text = document.text
    start = offset
    while start > 0 and _WORD.fullmatch(text[start - 1]) and text[start - 1]:
        start -= 1
    stop = _WORD.match(text, offset).end()  # type: ignore[union-attr]  # it matches nothing too
    span = Span(start, stop)
    place = stop_place(document.source, start)
    if place is None or text[start:offset][:1].isdigit() or _in_comment(text, start):
        return Completions(span, ())
    found: dict[str, Completion] = {}
    for item in _items(document, place, offset):
        found.setdefault(item.label, item)
    return Completions(span, tuple(found.values()))


def call_at(document: Document, offset: int) -> SurroundingCall | None:
    """The innermost call whose parentheses hold an offset."""
    place = stop_place(document.source, offset)
    return None if place is None else _call(document, place, offset)


def _in_comment(text: str, offset: int) -> bool:
    line = text.rfind("\n", 0, offset) + 1
    return "#" in text[line:offset]


def _items(document: Document, place: StopPlace, offset: int) -> Iterator[Completion]:
    before = place.before.type if place.before is not None else ""
    call = _call(document, place, offset)
    if before in _DEFINES or _in_header(place, before):
        return
    if place.statement == "INPUT" and before == "COLON":
        yield from _kinds()
        return
    if place.statement == "INPUT" and call is not None and call.callee in _UNITS:
        yield from (Completion(unit, ItemKind.INPUT_KIND) for unit in _UNITS[call.callee] if call.begins)
        return
    names = document.names.visible(offset)
    wanted = _wanted(place, names, call) if "NAME" in place.accepts else _Wanted(False, True, True)
    if "NAME" in place.accepts:
        if before == "USE":
            yield from (_symbol(document, symbol) for symbol in names.values() if symbol.kind is SymbolKind.PATTERN)
            return
        if before == "KEY_BIAS":
            yield from (_symbol(document, symbol) for symbol in _weights(document, names))
            return
        if call is not None and call.begins:
            yield from _arguments(document, call)
        yield from _names(document, place, names, wanted)
    yield from _keywords(document, place, offset, wanted)


def _in_header(place: StopPlace, before: str) -> bool:
    """Whether the name of a parameter belongs here."""
    return len(place.open) == 1 and place.open[0].type == "LPAR" and before in ("LPAR", "COMMA")


def _call(document: Document, place: StopPlace, offset: int) -> SurroundingCall | None:
    if not place.open or place.open[-1].type != "LPAR" or (len(place.open) == 1 and place.statement is None):
        return None
    opened = place.open[-1].start_pos
    assert opened is not None, "a token of a text has a place"
    callee = document.names.at(opened)
    if callee is None or document.text[callee.span.stop : opened].strip():
        return None
    depth, position, named = 0, 0, set[str]()
    for match in re.finditer(r"#[^\n]*|[(\[]|[)\]]|,|([A-Za-z_]\w*)\s*=(?!=)", document.text[opened + 1 : offset]):
        sign = match[0][0]
        if sign in "([":
            depth += 1
        elif sign in ")]":
            depth -= 1
        elif depth == 0 and sign == ",":
            position += 1
        elif depth == 0 and match[1]:
            named.add(match[1])
    begins = place.before is not None and place.before.type in ("LPAR", "COMMA")
    return SurroundingCall(callee.name, frozenset(named), position, begins)


def _kinds() -> Iterator[Completion]:
    for kind in InputKind:
        help_ = "\n\n".join(kind_help(kind.value))
        for form in forms(kind):
            yield Completion(form, ItemKind.INPUT_KIND, markdown=help_)


def _weights(document: Document, names: Mapping[str, Symbol]) -> Iterator[Symbol]:
    """The inputs of kind `weights`."""
    for item in document.tree.items:
        for statement in item.statements if isinstance(item, PatternItem) else ():
            if isinstance(statement, InputStatement) and isinstance(statement.kind, Name):
                symbol, of_weights = names.get(statement.name.text), statement.kind.text == InputKind.WEIGHTS.value
                if of_weights and symbol is not None and symbol.span == statement.name.span:
                    yield symbol


def _arguments(document: Document, call: SurroundingCall) -> Iterator[Completion]:
    """The arguments of a call that have a name and are not given yet."""
    if call.callee in TERMS:
        for slot in TERMS[call.callee].slots:
            if slot.name not in call.named and slot.by_name:
                yield _argument(slot.name, slot_help(slot))
        return
    symbol = document.names.file.get(call.callee)
    if symbol is not None and symbol.kind is SymbolKind.PATTERN:
        for own in document.names.items[symbol.item].symbols.values():
            if own.kind is SymbolKind.PARAMETER and own.name not in call.named:
                yield _argument(own.name, _definition(document, own))


def _argument(name: str, detail: str) -> Completion:
    return Completion(f"{name} = ", ItemKind.ARGUMENT, detail, rank=0)


def _wanted(place: StopPlace, names: Mapping[str, Symbol], call: SurroundingCall | None) -> _Wanted:
    """An argument is a value; what `attend` names is a set; a `let` may be either."""
    statement = place.statement or "PARAM"
    of_call = call is not None and call.callee in {*TERMS, *FUNCTIONS, *names}
    sets = statement in ("ATTEND", "LET") and not of_call
    return _Wanted(sets, statement == "LET" or not sets, statement in _CONSTANTS)


def _names(document: Document, place: StopPlace, names: Mapping[str, Symbol], wanted: _Wanted) -> Iterator[Completion]:
    """The names that an expression may use here."""
    start = place.open[0].start_pos if place.open else None
    index = document.names.item_at(start) if start is not None else None
    item = document.names.items[index] if index is not None else None
    for symbol in names.values():
        match symbol.kind:
            case SymbolKind.PATTERN:
                fits = wanted.sets and (item is None or symbol.name != item.name)
            case SymbolKind.LET | SymbolKind.INPUT:
                fits = not wanted.constant
            case SymbolKind.PARAMETER | SymbolKind.FILE_PARAMETER:
                fits = wanted.values
            case SymbolKind.MODEL:
                fits = False
            case _:
                assert_never(symbol.kind)
        if fits:
            yield _symbol(document, symbol)
    if wanted.sets:
        for name in TERMS:
            yield Completion(name, ItemKind.TERM, usage(name), _snippet(name), 2, _help(name))
    if wanted.values:
        for name in FUNCTIONS:
            yield Completion(name, ItemKind.FUNCTION, usage(name), f"{name}($1)", 3, _help(name))
        in_arms = IN_LAYERS if item is not None and item.keyword == "MODEL" else IN_ARMS
        available = CONSTANT if wanted.constant else in_arms
        for name, value in VALUES.items():
            if value.depends & available:
                yield Completion(name, ItemKind.VALUE, value.meaning, None, 2, _help(name))


def _snippet(name: str) -> str:
    """The term with a place to fill in for each argument that it needs."""
    needed = [slot for slot in TERMS[name].slots if not slot.optional]
    shown = []
    for number, slot in enumerate(needed, 1):
        place = f"${{{number}:{'a .. b' if slot.takes is SlotKind.RANGE else slot.name}}}"
        shown.append(f"{slot.name} = {place}" if slot.by_name else place)
    return f"{name}({', '.join(shown)})" if shown else name


def _help(word: str) -> str:
    return "\n\n".join(part for part in word_help(word) if part)


_KIND_OF_SYMBOL = {
    SymbolKind.FILE_PARAMETER: ItemKind.PARAMETER,
    SymbolKind.PARAMETER: ItemKind.PARAMETER,
    SymbolKind.PATTERN: ItemKind.PATTERN,
    SymbolKind.MODEL: ItemKind.MODEL,
    SymbolKind.LET: ItemKind.LET,
    SymbolKind.INPUT: ItemKind.INPUT,
}


def _symbol(document: Document, symbol: Symbol) -> Completion:
    return Completion(symbol.name, _KIND_OF_SYMBOL[symbol.kind], _definition(document, symbol))


def _definition(document: Document, symbol: Symbol) -> str:
    start = document.names.items[symbol.item].start
    return definition(next((item for item in document.tree.items if item.span.start == start), None), symbol)


def _keywords(document: Document, place: StopPlace, offset: int, wanted: _Wanted) -> Iterator[Completion]:
    """The reserved words that the parser accepts; on a fresh line no operators, for a statement comes next."""
    index = document.names.item_at(offset) if place.open else None
    item = document.names.items[index] if index is not None else None
    allowed = IN_MODEL if item is not None and item.keyword == "MODEL" else IN_PATTERN
    starts = {spellings()[kind]: kind for kind in statement_starts()}
    given = _given(document, item.start) if item is not None else frozenset()
    line = document.text[document.text.rfind("\n", 0, offset) + 1 : offset]
    fresh = not _WORD.sub("", line.strip(), count=1)
    for kind, text in spellings().items():
        if kind not in place.accepts or not text.isidentifier():
            continue
        role = terminal_role(kind)
        a_term = text in TERMS and "NAME" in place.accepts
        if (a_term and not wanted.sets) or (kind in _VALUES and (wanted.constant or not wanted.values)):
            continue
        statement = text in starts and not a_term
        if statement and text not in allowed and text not in ("where", "otherwise"):
            continue
        if (statement and text in given) or (role is Role.OPERATOR and fresh and "LET" in place.accepts):
            continue
        what = ItemKind.TERM if a_term else ItemKind.CONSTANT if role is Role.CONSTANT else ItemKind.KEYWORD
        yield Completion(text, what, rank=2 if a_term else 4 if role is Role.OPERATOR else 1, markdown=_help(text))


def _given(document: Document, start: int) -> frozenset[str]:
    """The statements of an item that may be given once, and are."""
    for item in document.tree.items:
        if item.span.start == start and isinstance(item, PatternItem | ModelItem):
            return frozenset(map(keyword_of, item.statements)) - frozenset(REPEATABLE)
    return frozenset()

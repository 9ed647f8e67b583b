"""A place of a text -> Markdown about the word there: what the language means by it, and what its value is.

Invariant: what a text says stands in code or is escaped, so that it makes no link, image or markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sparsec.diagnostics.source import Span
from sparsec.editor.document import Document, Settings
from sparsec.editor.live import pattern_share
from sparsec.editor.names import Occurrence, Symbol, SymbolKind, Use
from sparsec.editor.reference import about
from sparsec.editor.roles import Role, words
from sparsec.editor.values import Values, defined_node, layers_of, node_at, node_of, values_of
from sparsec.sema.builtins import TERMS, VALUES, Slot, SlotKind, usage
from sparsec.sema.model import InputKind
from sparsec.sema.node import LIMIT, Depends
from sparsec.syntax.limits import expressions, parts
from sparsec.syntax.printer import print_expr, print_statement
from sparsec.syntax.tree import (
    Binary,
    ImportItem,
    InputStatement,
    Item,
    LetStatement,
    ModelItem,
    Name,
    Parameter,
    ParamItem,
    PatternItem,
)

_WORD = re.compile(r"[A-Za-z0-9_.]+")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~&:@])")  # `:` and `@`: a bare address is a link too
OPERATOR_WORDS = frozenset(word for word, role in words().items() if role is Role.OPERATOR)
MAX_DOC = 2000  # characters of a documentation comment that are shown
TABLES = {
    Role.TERM: ("term",),
    Role.FUNCTION: ("operators",),
    Role.VALUE: ("name",),
    Role.OPERATOR: ("operators",),
    Role.CONSTANT: ("written",),
    Role.KEYWORD: ("statement",),
}
"""The tables of the reference that describe the words of a role, by the heads of their first columns."""


@dataclass(frozen=True, slots=True)
class HoverText:
    """Markdown, and the span that it is about."""

    markdown: str
    span: Span


def hover_at(document: Document, offset: int, settings: Settings) -> HoverText | None:
    """What there is to say about the word that holds an offset; None in space, comments and unknown names."""
    found = _word_at(document.text, offset)
    if _in_comment(document, offset if found is None else found.start):
        return None
    if found is None or document.text[found.start : found.stop] in OPERATOR_WORDS:
        operation = _operation_at(document, offset)
        if operation is not None:
            return _of_operation(document, operation, settings)
    if found is None:
        return None
    occurrence = document.names.at(found.start)
    if occurrence is not None and occurrence.span.start <= found.start:
        lines, span = _of_name(document, occurrence, settings), occurrence.span
    else:
        text, span = document.text[found.start : found.stop], found
        lines = word_help(text) if text in words() else _of_number(document, text, found, settings)
    shown = "\n\n".join(line for line in lines if line)
    return HoverText(shown, span) if shown else None


def _operation_at(document: Document, offset: int) -> Binary | None:
    """The operation of two sides whose sign or word holds an offset."""
    for item in document.tree.items:
        if isinstance(item, ImportItem) or not item.span.start <= offset <= item.span.stop:
            continue
        statements = () if isinstance(item, ParamItem) else item.statements
        parameters = (item.parameter,) if isinstance(item, ParamItem) else item.parameters
        pending = [expr for statement in statements for expr in expressions(statement)]
        pending += [parameter.default for parameter in parameters]
        while pending:
            expr = pending.pop()
            if isinstance(expr, Binary) and expr.op_span.start <= offset < expr.op_span.stop:
                return expr
            if expr.span.start <= offset <= expr.span.stop:
                pending.extend(parts(expr))
    return None


def _of_operation(document: Document, operation: Binary, settings: Settings) -> HoverText | None:
    item = _item_name(document, operation.span.start)
    node = node_of(document, item, operation.span) if item is not None else None
    values = values_of(document, item, node, settings) if node is not None and item is not None else None
    lines = [code(print_expr(operation)), *_values(values)] if values is not None else []
    if operation.op in OPERATOR_WORDS:
        lines.append("\n".join(f"- {line}" for line in about(operation.op, "operators")))
    return HoverText("\n\n".join(lines), operation.op_span) if lines else None


def word_help(word: str) -> Iterator[str]:
    """Paragraphs about a word of the language."""
    role = words()[word]
    yield code(usage(word) if role in (Role.TERM, Role.FUNCTION) else word)
    if word in VALUES:
        yield f"{VALUES[word].meaning}."
    tables = (*TABLES[role], *(("term",) if word in TERMS and role is not Role.TERM else ()))
    yield "\n".join(f"- {line}" for line in about(word, *tables))
    if word in TERMS:
        yield "\n".join(f"- `{slot.name}`: {slot_help(slot)}" for slot in TERMS[word].slots)


def slot_help(slot: Slot) -> str:
    """What an argument of a term is, and what it is if it is left out."""
    parts = [slot.takes.value]
    if slot.takes is not SlotKind.RANGE and slot.least > -LIMIT:
        parts.append(f"at least {slot.least}")
    if slot.most < LIMIT:
        parts.append(f"at most {slot.most}")
    if slot.optional:
        parts.append("`h` if left out" if slot.of_head else "0 if left out")
    if slot.run_time:
        parts.append("or an input of kind `length`")
    return ", ".join(parts)


def kind_help(kind: str) -> Iterator[str]:
    """Paragraphs about a kind of run-time input."""
    yield code(f"input name : {kind}")
    yield "\n".join(f"- {line}" for line in about(kind, "kind"))


def code(text: str) -> str:
    """A fenced block; a text cannot end it, for it has no line of its own with back-quotes."""
    return f"```sparse\n{text.replace('`', '')}\n```"


def escaped(text: str) -> str:
    """Text in which no sign is Markdown."""
    return _MARKDOWN.sub(r"\\\1", text)


def _word_at(text: str, offset: int) -> Span | None:
    start = max(offset - 128, 0)
    for match in _WORD.finditer(text, start, min(offset + 128, len(text))):
        if match.start() <= offset <= match.end():
            return Span(match.start(), match.end())
    return None


def _in_comment(document: Document, offset: int) -> bool:
    return any(comment.span.start <= offset < comment.span.stop for comment in document.tree.comments)


def _of_number(document: Document, text: str, span: Span, settings: Settings) -> Iterator[str]:
    item = _item_name(document, span.start)
    node = node_at(document, item, "const", span) if item is not None else None
    if node is None or node.span != span or item is None:
        return
    values = values_of(document, item, node, settings)
    if values is not None and (values.block is not None or values.lines[0][1] != text):
        yield from _values(values)


def _item_name(document: Document, offset: int) -> str | None:
    index = document.names.item_at(offset)
    return document.names.items[index].name if index is not None else None


def _of_name(document: Document, occurrence: Occurrence, settings: Settings) -> Iterator[str]:
    symbol = occurrence.symbol
    if occurrence.use is Use.KIND:
        kind = occurrence.callee or occurrence.name
        if kind in {each.value for each in InputKind}:
            yield from kind_help(kind)
        return
    if symbol is None and occurrence.use is Use.ARGUMENT:
        slots = TERMS[occurrence.callee].slots if occurrence.callee in TERMS else ()
        for slot in slots:
            if slot.name == occurrence.name:
                yield code(usage(str(occurrence.callee)))
                yield f"`{slot.name}`: {slot_help(slot)}"
        return
    if symbol is None:
        if occurrence.name not in words():
            return
        yield from word_help(occurrence.name)
    else:
        yield from symbol_help(document, symbol)
        if symbol.kind in (SymbolKind.PATTERN, SymbolKind.MODEL) and occurrence.use is Use.DEFINITION:
            share = pattern_share(document, symbol.name, settings) if symbol.kind is SymbolKind.PATTERN else None
            yield f"{share}" if share is not None else ""
            if symbol.kind is SymbolKind.MODEL and symbol.name in document.checked.models:
                yield "\n".join(f"- layers {where}: `{used}`" for where, used in layers_of(document, symbol.name))
            return
    yield from _values_at(document, occurrence, settings)


def symbol_help(document: Document, symbol: Symbol) -> Iterator[str]:
    """Paragraphs about a definition: how it is written, and its documentation comments."""
    item = next((each for each in document.tree.items if each.span.start == _start(document, symbol)), None)
    yield code(definition(item, symbol))
    if symbol.kind in (SymbolKind.PATTERN, SymbolKind.MODEL, SymbolKind.FILE_PARAMETER) and item is not None:
        yield escaped(" ".join(item.doc)[:MAX_DOC])
    if symbol.kind is SymbolKind.INPUT and isinstance(item, PatternItem):
        for statement in item.statements:
            if isinstance(statement, InputStatement) and statement.name.text == symbol.name:
                kind = statement.kind.text if isinstance(statement.kind, Name) else statement.kind.callee.text
                yield "\n".join(f"- {line}" for line in about(kind, "kind"))
                return


def definition(item: Item | None, symbol: Symbol) -> str:
    """A definition on a line, as the file writes it."""
    match item:
        case ParamItem(parameter):
            return f"param {_parameter(parameter)}"
        case PatternItem() | ModelItem():
            keyword = "pattern" if isinstance(item, PatternItem) else "model"
            if symbol.kind in (SymbolKind.PATTERN, SymbolKind.MODEL):
                shown = ", ".join(map(_parameter, item.parameters))
                return f"{keyword} {symbol.name}({shown})" if shown else f"{keyword} {symbol.name}"
            for parameter in item.parameters:
                if parameter.name.text == symbol.name:
                    return f"{_parameter(parameter)}  # parameter of {item.name.text}"
            for statement in item.statements:
                if isinstance(statement, LetStatement | InputStatement) and statement.name.text == symbol.name:
                    return print_statement(statement)
    return symbol.name


def _parameter(parameter: Parameter) -> str:
    return f"{parameter.name.text} = {print_expr(parameter.default)}"


def _start(document: Document, symbol: Symbol) -> int:
    return document.names.items[symbol.item].start


def _values_at(document: Document, occurrence: Occurrence, settings: Settings) -> Iterator[str]:
    item = _item_name(document, occurrence.span.start)
    if item is None:
        return
    name, span = occurrence.name, occurrence.span
    if occurrence.use is Use.DEFINITION and occurrence.symbol is not None:
        node = defined_node(document, occurrence.symbol)
    else:
        node = node_at(document, item, name, span)
    counted = node is not None and node.op == "builtin" and node.depends & (Depends.HEAD | Depends.LAYER)
    values = None if node is None or counted else values_of(document, item, node, settings)
    if values is not None and values.lines != (("", name),):
        yield from _values(values)


def _values(values: Values) -> Iterator[str]:
    def length(text: str) -> str:
        blocks = text.removesuffix("b")
        known = values.block is not None and blocks != text and blocks.lstrip("-").isdigit()
        return f"`{text}`, {int(blocks) * (values.block or 0)} tokens" if known else f"`{text}`"

    shown = [f"{length(text)}" if not where else f"- {where}: {length(text)}" for where, text in values.lines]
    yield f"value: {shown[0]}" if len(shown) == 1 else "\n".join(["value:", "", *shown])
    if values.counts is not None and values.counts.assumed:
        yield f"for {values.counts}"

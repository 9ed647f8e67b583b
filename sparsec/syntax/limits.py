"""The walk that bounds a tree, so that every later pass may recurse over it.

Invariant: an expression that passes has at most MAX_NESTING calls, lists and unary operators around any part, and at
most MAX_DEPTH levels in all. A flat chain `a | b | c` leans left and counts one level for each operator; it stays
unbalanced so that the tree says what the text says.
"""

from __future__ import annotations

from typing import assert_never

from sparsec.diagnostics import codes_text as codes
from sparsec.diagnostics.model import Diagnostic
from sparsec.diagnostics.source import SourceFile
from sparsec.syntax.tree import (
    AttendStatement,
    Binary,
    BlockStatement,
    Boolean,
    Call,
    CausalStatement,
    Decimal,
    DocumentsStatement,
    Expr,
    HeadsStatement,
    ImportItem,
    Index,
    InputStatement,
    Integer,
    Item,
    LayersStatement,
    LetStatement,
    ListExpr,
    ModifierStatement,
    Name,
    ParamItem,
    RangeExpr,
    ScaleStatement,
    Statement,
    Unary,
    UseStatement,
)

MAX_NESTING = 64
MAX_DEPTH = 128


def parts(expr: Expr) -> tuple[Expr, ...]:
    """The expressions directly inside `expr`, in the order of the text."""
    match expr:
        case Integer() | Decimal() | Boolean() | Name():
            return ()
        case RangeExpr(start, stop):
            return tuple(end for end in (start, stop) if end is not None)
        case ListExpr(items):
            return items
        case Index(items, at):
            return (items, at)
        case Call(_, arguments):
            return tuple(argument.value for argument in arguments)
        case Unary(_, operand):
            return (operand,)
        case Binary(_, left, right):
            return (left, right)
        case _:
            assert_never(expr)


def expressions(statement: Statement) -> tuple[Expr, ...]:
    """The expressions of a statement, in the order of the text."""
    match statement:
        case HeadsStatement(heads, kv_heads):
            return (heads,) if kv_heads is None else (heads, kv_heads)
        case BlockStatement(value) | ScaleStatement(value) | LayersStatement(value):
            return (value,)
        case LetStatement(_, value):
            return (value,)
        case AttendStatement(condition, _, value) | UseStatement(condition, _, value):
            return (value,) if condition is None else (condition, value)
        case ModifierStatement(_, given):
            return () if given is None else (given,)
        case InputStatement(_, kind):
            return parts(kind)
        case CausalStatement() | DocumentsStatement():
            return ()
        case _:
            assert_never(statement)


def definitions(item: Item) -> tuple[Name, ...]:
    """The names that are defined within an item: its parameters, and what `let` and `input` name."""
    if isinstance(item, ImportItem | ParamItem):
        return ()
    stated = (s.name for s in item.statements if isinstance(s, LetStatement | InputStatement))
    return (*(parameter.name for parameter in item.parameters), *stated)


def excess(source: SourceFile, root: Expr) -> Diagnostic | None:
    """The first place where `root` is nested or chained too deep, if there is one."""
    pending: list[tuple[Expr, int, int]] = [(root, 1, 0)]
    while pending:
        expr, depth, nesting = pending.pop()
        nesting += isinstance(expr, Call | Index | ListExpr | Unary)
        if nesting > MAX_NESTING:
            return codes.nesting_too_deep(source, expr.span, MAX_NESTING)
        if depth > MAX_DEPTH:
            return codes.expression_too_long(source, root.span, MAX_DEPTH - 1)
        pending.extend((part, depth + 1, nesting) for part in reversed(parts(expr)))
    return None

"""Grammar rules -> syntax tree: one callback for each rule of `grammar/sparse.lark`, called as the parser reduces it.

Invariant: a node's span runs from its first to its last token; parentheses leave no node but widen the span.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lark import Token, Transformer

from sparsec.diagnostics.source import Span
from sparsec.syntax import tree

T = TypeVar("T")
Children = Sequence[Any]  # tokens and nodes, in the order of the text


def span_of(part: Any) -> Span:
    """The span of a token or a node."""
    if isinstance(part, Token):
        assert part.start_pos is not None and part.end_pos is not None
        return Span(part.start_pos, part.end_pos)
    span: Span = part.span
    return span


def _span(children: Children) -> Span:
    return Span(span_of(children[0]).start, span_of(children[-1]).stop)


def _all(kind: type[T], children: Children) -> tuple[T, ...]:
    return tuple(child for child in children if isinstance(child, kind))


def _expressions(children: Children) -> tuple[tree.Expr, ...]:
    return tuple(child for child in children if not isinstance(child, Token))


def _name(token: Token) -> tree.Name:
    return tree.Name(str(token), span_of(token))


@dataclass(frozen=True, slots=True)
class Lead:
    """`where C` or `otherwise`, before `attend` or `use`."""

    condition: tree.Expr | None
    otherwise: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Body:
    """`{ statements }`."""

    statements: tuple[tree.Statement, ...]
    span: Span


class TreeBuilder(Transformer[Token, Any]):
    """Lark's callbacks. Every terminal arrives as a token (`keep_all_tokens`), every rule as the node made for it."""

    # -- items

    def start(self, children: Children) -> tuple[tree.Item, ...]:
        return tuple(children)

    def import_item(self, children: Children) -> tree.ImportItem:
        token, span = children[0], span_of(children[0])
        _, path, rest = (*token.split('"', 2), "")[:3]
        alias = rest.split()[-1] if rest.strip() else ""
        name = tree.Name(alias, Span(span.stop - len(alias), span.stop)) if alias else None
        return tree.ImportItem(path, name, (), span)

    def param_item(self, children: Children) -> tree.ParamItem:
        return tree.ParamItem(children[1], (), _span(children))

    def pattern_item(self, children: Children) -> tree.PatternItem:
        return tree.PatternItem(_name(children[1]), *self._signature(children), (), _span(children))

    def model_item(self, children: Children) -> tree.ModelItem:
        return tree.ModelItem(_name(children[1]), *self._signature(children), (), _span(children))

    def _signature(self, children: Children) -> tuple[tuple[tree.Parameter, ...], tuple[tree.Statement, ...]]:
        body: Body = children[-1]
        return (children[2] if len(children) == 4 else ()), body.statements

    def parameters(self, children: Children) -> tuple[tree.Parameter, ...]:
        return _all(tree.Parameter, children)

    def parameter(self, children: Children) -> tree.Parameter:
        return tree.Parameter(_name(children[0]), children[2], _span(children))

    def body(self, children: Children) -> Body:
        return Body(tuple(children[1:-1]), _span(children))

    # -- statements

    def heads(self, children: Children) -> tree.HeadsStatement:
        return tree.HeadsStatement(children[1], children[3] if len(children) == 4 else None, _span(children))

    def block(self, children: Children) -> tree.BlockStatement:
        return tree.BlockStatement(children[1], _span(children))

    def causal(self, children: Children) -> tree.CausalStatement:
        return tree.CausalStatement(_span(children))

    def documents(self, children: Children) -> tree.DocumentsStatement:
        return tree.DocumentsStatement(len(children) == 2, _span(children))

    def arm(self, children: Children) -> Lead:
        return Lead(children[1] if len(children) == 2 else None, len(children) == 1, _span(children))

    def attend(self, children: Children) -> tree.AttendStatement:
        arm = children[0] if isinstance(children[0], Lead) else Lead(None, False, _span(children))
        return tree.AttendStatement(arm.condition, arm.otherwise, children[-1], _span(children))

    def use(self, children: Children) -> tree.UseStatement:
        arm = children[0] if isinstance(children[0], Lead) else Lead(None, False, _span(children))
        return tree.UseStatement(arm.condition, arm.otherwise, children[-1], _span(children))

    def let(self, children: Children) -> tree.LetStatement:
        return tree.LetStatement(_name(children[1]), children[3], _span(children))

    def input(self, children: Children) -> tree.InputStatement:
        return tree.InputStatement(_name(children[1]), children[3], _span(children))

    def scale(self, children: Children) -> tree.ScaleStatement:
        return tree.ScaleStatement(children[1], _span(children))

    def modifier(self, children: Children) -> tree.ModifierStatement:
        return tree.ModifierStatement(str(children[0]), children[1] if len(children) == 2 else None, _span(children))

    def layers(self, children: Children) -> tree.LayersStatement:
        return tree.LayersStatement(children[1], _span(children))

    # -- expressions

    def range_from(self, children: Children) -> tree.RangeExpr:
        return tree.RangeExpr(children[0], None, _span(children))

    def range_to(self, children: Children) -> tree.RangeExpr:
        return tree.RangeExpr(None, children[1], _span(children))

    def range_closed(self, children: Children) -> tree.RangeExpr:
        return tree.RangeExpr(children[0], children[2], _span(children))

    def binary(self, children: Children) -> tree.Binary:
        left, operator, right = children
        return tree.Binary(str(operator), left, right, _span(children), span_of(operator))

    def unary(self, children: Children) -> tree.Unary:
        return tree.Unary(str(children[0]), children[1], _span(children))

    def integer(self, children: Children) -> tree.Integer:
        digits = children[0].rstrip("kb")
        suffix = children[0][len(digits) :]
        value = int(digits) * (1024 if "k" in suffix else 1)
        return tree.Integer(value, "b" in suffix, "k" in suffix, _span(children))

    def decimal(self, children: Children) -> tree.Decimal:
        return tree.Decimal(str(children[0]), _span(children))

    def boolean(self, children: Children) -> tree.Boolean:
        return tree.Boolean(children[0] == "true", _span(children))

    def name(self, children: Children) -> tree.Name:
        return _name(children[0])

    def list(self, children: Children) -> tree.ListExpr:
        return tree.ListExpr(_expressions(children), _span(children))

    def index(self, children: Children) -> tree.Index:
        return tree.Index(children[0], children[2], _span(children))

    def parenthesised(self, children: Children) -> tree.Expr:
        inner: tree.Expr = replace(children[1], span=_span(children))
        return inner

    def call(self, children: Children) -> tree.Call:
        return tree.Call(_name(children[0]), _all(tree.Argument, children), _span(children))

    def argument(self, children: Children) -> tree.Argument:
        name = _name(children[0]) if len(children) == 3 else None
        return tree.Argument(name, children[-1], _span(children))

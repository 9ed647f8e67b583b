"""Expressions and conditions -> text that a person reads.

`/` and `rem` are `//` and `%` of a left side known to be at least 0. Invariant: equal expressions print equal text, and
every number and name of an expression appears in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from sparsec.ir.expr import nodes as x
from sparsec.ir.expr.fold import fold

ATOM, PRODUCT, SUM, _COMPARE, _NOT, _AND, _OR = range(7)
"""How tightly a text binds, tightest first."""


def print_expr(expr: x.Expr, loosest: int = SUM) -> str:
    """The expression with the parentheses that it needs, around itself too if it binds more loosely than `loosest`."""
    return fold(expr, _printed).at(loosest)


def print_test(test: x.Bool, loosest: int = _OR) -> str:
    """The condition, likewise."""
    return fold(test, _printed).at(loosest)


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    level: int

    def at(self, loosest: int) -> str:
        return self.text if self.level <= loosest else f"({self.text})"


def _printed(node: x.Tree, parts: tuple[_Text, ...]) -> _Text:
    match node:
        case x.Int(value):
            return _Text(str(value), ATOM if value >= 0 else PRODUCT)
        case x.Var(name):
            return _Text(name, ATOM)
        case x.Add():
            return _infix("+", parts, SUM, SUM, PRODUCT)
        case x.Sub():
            return _infix("-", parts, SUM, SUM, PRODUCT)
        case x.Mul():
            return _infix("*", parts, PRODUCT, PRODUCT, ATOM)
        case x.FloorDiv(nonneg=nonneg):
            return _infix("/" if nonneg else "//", parts, PRODUCT, PRODUCT, ATOM)
        case x.Mod(nonneg=nonneg):
            return _infix("rem" if nonneg else "%", parts, PRODUCT, PRODUCT, ATOM)
        case x.Min() | x.Max() | x.Select():
            return _Text(f"{type(node).__name__.lower()}({', '.join(part.text for part in parts)})", ATOM)
        case x.Truth(value):
            return _Text(str(value).lower(), ATOM)
        case x.Less():
            return _infix("<", parts, _COMPARE, SUM, SUM)
        case x.And():
            return _infix("and", parts, _AND, _AND, _NOT)
        case x.Or():
            return _infix("or", parts, _OR, _OR, _AND)
        case x.Not():
            return _Text(f"not {parts[0].at(ATOM)}", _NOT)
        case x.Listed(ordinal):
            return _Text(f"listed({ordinal})", ATOM)
        case x.Picked(ordinal, scope):
            return _Text(f"picked({ordinal}, {scope.value})", ATOM)
        case _:
            assert_never(node)


def _infix(sign: str, parts: tuple[_Text, ...], level: int, left: int, right: int) -> _Text:
    return _Text(f"{parts[0].at(left)} {sign} {parts[1].at(right)}", level)

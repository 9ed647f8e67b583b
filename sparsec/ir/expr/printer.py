"""Expressions and conditions -> text that a person reads.

`/` and `rem` are `//` and `%` of a left side known to be at least 0. Invariant: equal expressions print equal text, and
every number and name of an expression appears in it.
"""

from __future__ import annotations

from typing import assert_never

from sparsec.ir.expr import nodes as x

ATOM, PRODUCT, SUM, _COMPARE, _NOT, _AND, _OR = range(7)
"""How tightly a text binds, tightest first."""


def print_expr(expr: x.Expr, loosest: int = SUM) -> str:
    """The expression with the parentheses that it needs, around itself too if it binds more loosely than `loosest`."""
    text, level = _expr(expr)
    return text if level <= loosest else f"({text})"


def print_test(test: x.Bool, loosest: int = _OR) -> str:
    """The condition, likewise."""
    text, level = _test(test)
    return text if level <= loosest else f"({text})"


def _expr(expr: x.Expr) -> tuple[str, int]:
    match expr:
        case x.Int(value):
            return str(value), ATOM if value >= 0 else PRODUCT
        case x.Var(name):
            return name, ATOM
        case x.Add(a, b):
            return f"{print_expr(a)} + {print_expr(b, PRODUCT)}", SUM
        case x.Sub(a, b):
            return f"{print_expr(a)} - {print_expr(b, PRODUCT)}", SUM
        case x.Mul(a, b):
            return f"{print_expr(a, PRODUCT)} * {print_expr(b, ATOM)}", PRODUCT
        case x.FloorDiv(a, b, nonneg):
            return f"{print_expr(a, PRODUCT)} {'/' if nonneg else '//'} {print_expr(b, ATOM)}", PRODUCT
        case x.Mod(a, b, nonneg):
            return f"{print_expr(a, PRODUCT)} {'rem' if nonneg else '%'} {print_expr(b, ATOM)}", PRODUCT
        case x.Min(a, b):
            return f"min({print_expr(a)}, {print_expr(b)})", ATOM
        case x.Max(a, b):
            return f"max({print_expr(a)}, {print_expr(b)})", ATOM
        case x.Select(c, a, b):
            return f"select({print_test(c)}, {print_expr(a)}, {print_expr(b)})", ATOM
        case _:
            assert_never(expr)


def _test(test: x.Bool) -> tuple[str, int]:
    match test:
        case x.Truth(value):
            return str(value).lower(), ATOM
        case x.Less(a, b):
            return f"{print_expr(a)} < {print_expr(b)}", _COMPARE
        case x.And(a, b):
            return f"{print_test(a, _AND)} and {print_test(b, _NOT)}", _AND
        case x.Or(a, b):
            return f"{print_test(a, _OR)} or {print_test(b, _AND)}", _OR
        case x.Not(a):
            return f"not {print_test(a, ATOM)}", _NOT
        case x.Listed(ordinal):
            return f"listed({ordinal})", ATOM
        case _:
            assert_never(test)

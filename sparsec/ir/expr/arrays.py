"""`ir.expr.nodes` over anything with the operators of integers: NumPy arrays, torch tensors and plain numbers together.

Invariant: operators alone are used, so no array library is imported; both sides of a `Select` are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from sparsec.ir.expr import nodes as x


def value(expr: x.Expr, values: Mapping[str, Any], listed: Mapping[int, Any]) -> Any:
    """`ir.expr.nodes.evaluate`, by broadcasting: integers, or an array of them."""

    def of(e: x.Expr) -> Any:
        return value(e, values, listed)

    match expr:
        case x.Int(number):
            return number
        case x.Var(name):
            return values[name]
        case x.Add(a, b):
            return of(a) + of(b)
        case x.Sub(a, b):
            return of(a) - of(b)
        case x.Mul(a, b):
            return of(a) * of(b)
        case x.FloorDiv(a, b):
            return of(a) // of(b)
        case x.Mod(a, b):
            return of(a) % of(b)
        case x.Min(a, b):
            left, right = of(a), of(b)
            return left + (right - left) * (right < left)
        case x.Max(a, b):
            left, right = of(a), of(b)
            return left + (right - left) * (left < right)
        case x.Select(c, a, b):
            then, other = of(a), of(b)
            return other + (then - other) * truth(c, values, listed)
    assert_never(expr)


def truth(test: x.Bool, values: Mapping[str, Any], listed: Mapping[int, Any]) -> Any:
    """`ir.expr.nodes.holds`, by broadcasting: a truth value, or an array of them."""
    match test:
        case x.Truth(known):
            return known
        case x.Less(a, b):
            return value(a, values, listed) < value(b, values, listed)
        case x.And(a, b):
            return truth(a, values, listed) & truth(b, values, listed)
        case x.Or(a, b):
            return truth(a, values, listed) | truth(b, values, listed)
        case x.Not(a):
            return truth(a, values, listed) ^ True  # of a plain True, ~ would make -2
        case x.Listed(ordinal):
            return listed[ordinal]
    assert_never(test)

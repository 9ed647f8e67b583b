"""Expressions -> values: of integers, or of all that broadcasts with them, such as NumPy arrays and torch tensors.

Invariant: of arrays the operators alone are used, so that no array library is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never, overload

from sparsec.ir.expr import nodes as x

Answers = Mapping[Any, Any]
"""What lists and inputs say: the truth of `Listed(n)` under n, that of a `Picked` under itself."""
NO_LISTS: Answers = {}


@overload
def evaluate(expr: x.Expr, values: Mapping[str, int], listed: Answers = NO_LISTS) -> int: ...
@overload
def evaluate(expr: x.Expr, values: Mapping[str, Any], listed: Answers = NO_LISTS) -> Any: ...
def evaluate(expr: x.Expr, values: Mapping[str, Any], listed: Answers = NO_LISTS) -> Any:
    """The value of `expr`, with `values` for its variables and `listed` for what it asks lists and inputs."""
    match expr:
        case x.Int(number):
            return number
        case x.Var(name):
            return values[name]
        case x.Add(a, b):
            return evaluate(a, values, listed) + evaluate(b, values, listed)
        case x.Sub(a, b):
            return evaluate(a, values, listed) - evaluate(b, values, listed)
        case x.Mul(a, b):
            return evaluate(a, values, listed) * evaluate(b, values, listed)
        case x.FloorDiv(a, b):
            return evaluate(a, values, listed) // evaluate(b, values, listed)
        case x.Mod(a, b):
            return evaluate(a, values, listed) % evaluate(b, values, listed)
        case x.Min(a, b):
            left, right = evaluate(a, values, listed), evaluate(b, values, listed)
            return _chosen(right < left, right, left)
        case x.Max(a, b):
            left, right = evaluate(a, values, listed), evaluate(b, values, listed)
            return _chosen(left < right, right, left)
        case x.Select(condition, a, b):
            test = holds(condition, values, listed)
            if isinstance(test, bool):
                return evaluate(a if test else b, values, listed)
            return _chosen(test, evaluate(a, values, listed), evaluate(b, values, listed))
        case _:
            assert_never(expr)


@overload
def holds(test: x.Bool, values: Mapping[str, int], listed: Answers = NO_LISTS) -> bool: ...
@overload
def holds(test: x.Bool, values: Mapping[str, Any], listed: Answers = NO_LISTS) -> Any: ...
def holds(test: x.Bool, values: Mapping[str, Any], listed: Answers = NO_LISTS) -> Any:
    """The truth of `test`, likewise."""
    match test:
        case x.Truth(known):
            return known
        case x.Less(a, b):
            return evaluate(a, values, listed) < evaluate(b, values, listed)
        case x.And(a, b):
            left = holds(a, values, listed)
            return left if left is False else left & holds(b, values, listed)
        case x.Or(a, b):
            left = holds(a, values, listed)
            return left if left is True else left | holds(b, values, listed)
        case x.Not(a):
            return holds(a, values, listed) ^ True  # of a plain True, ~ would make -2
        case x.Listed(ordinal):
            return listed[ordinal]
        case x.Picked():
            return listed[test]
        case _:
            assert_never(test)


def _chosen(test: Any, then: Any, other: Any) -> Any:
    if isinstance(test, bool):
        return then if test else other
    return other + (then - other) * test

"""Integer and boolean expressions in closed form: what a kernel computes per query tile and per pair of a partial tile.

One tree, several readers: `evaluate` runs it here, a backend prints it in its language, a prover can state it.
Invariants: `//` and `%` round toward minus infinity; divisors are positive; no value leaves the int32 range while
positions and lengths stay below 2**29, apart from the products inside `Mul`, which the constructors keep small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never


@dataclass(frozen=True, slots=True)
class Int:
    value: int


@dataclass(frozen=True, slots=True)
class Var:
    """A named integer: an input (i0, i1, nk, i, j, tile, ...), a head constant (c0, c1, ...) or an earlier `Let`."""

    name: str


@dataclass(frozen=True, slots=True)
class Add:
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Sub:
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Mul:
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class FloorDiv:
    """left // right, right positive; `nonneg` states that left is known to be at least 0."""

    left: Expr
    right: Expr
    nonneg: bool


@dataclass(frozen=True, slots=True)
class Mod:
    """left % right in [0, right), right positive; `nonneg` states that left is known to be at least 0."""

    left: Expr
    right: Expr
    nonneg: bool


@dataclass(frozen=True, slots=True)
class Min:
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Max:
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Select:
    """then if condition else other; both sides are always safe to evaluate."""

    condition: Bool
    then: Expr
    other: Expr


Expr = Int | Var | Add | Sub | Mul | FloorDiv | Mod | Min | Max | Select


@dataclass(frozen=True, slots=True)
class Truth:
    value: bool


@dataclass(frozen=True, slots=True)
class Less:
    """left < right."""

    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class And:
    left: Bool
    right: Bool


@dataclass(frozen=True, slots=True)
class Or:
    left: Bool
    right: Bool


@dataclass(frozen=True, slots=True)
class Not:
    operand: Bool


@dataclass(frozen=True, slots=True)
class Listed:
    """Whether the tile at hand is in run-time list `ordinal` (a random term's draws); constant within a tile."""

    ordinal: int


Bool = Truth | Less | And | Or | Not | Listed

ZERO, ONE = Int(0), Int(1)
TRUE, FALSE = Truth(True), Truth(False)


def add(left: Expr, right: Expr) -> Expr:
    match left, right:
        case Int(a), Int(b):
            return Int(a + b)
        case Int(0), _:
            return right
        case _, Int(0):
            return left
        case Int(), _:
            return add(right, left)
        case _, Int(b) if b < 0:
            return sub(left, Int(-b))
        case Add(x, Int(a)), Int(b):
            return add(x, Int(a + b))
        case Sub(x, Int(a)), Int(b):
            return add(x, Int(b - a))
    return Add(left, right)


def sub(left: Expr, right: Expr) -> Expr:
    match left, right:
        case Int(a), Int(b):
            return Int(a - b)
        case _, Int(0):
            return left
        case _, Int(b) if b < 0:
            return add(left, Int(-b))
        case Add(x, Int(a)), Int(b):
            return add(x, Int(a - b))
        case Sub(x, Int(a)), Int(b):
            return Sub(x, Int(a + b))
    if left == right:
        return ZERO
    return Sub(left, right)


def mul(left: Expr, right: Expr) -> Expr:
    match left, right:
        case Int(a), Int(b):
            return Int(a * b)
        case Int(), _:
            return mul(right, left)
        case _, Int(0):
            return ZERO
        case _, Int(1):
            return left
    return Mul(left, right)


def floor_div(left: Expr, right: Expr, *, nonneg: bool = False) -> Expr:
    match left, right:
        case Int(a), Int(b):
            return Int(a // b)
        case _, Int(1):
            return left
        case Mul(x, Int(a)), Int(b) if a % b == 0:
            return mul(x, Int(a // b))
        case Add(Mul(x, Int(a)), Int(c)), Int(b) if a % b == 0:
            return add(mul(x, Int(a // b)), Int(c // b))
        case Sub(Mul(x, Int(a)), Int(c)), Int(b) if a % b == 0:
            return add(mul(x, Int(a // b)), Int(-c // b))
    return FloorDiv(left, right, nonneg)


def ceil_div(left: Expr, right: Expr, *, nonneg: bool = False) -> Expr:
    """ceil(left / right); `nonneg` states that left is at least 0."""
    return floor_div(add(left, sub(right, ONE)), right, nonneg=nonneg)


def mod(left: Expr, right: Expr, *, nonneg: bool = False) -> Expr:
    match left, right:
        case Int(a), Int(b):
            return Int(a % b)
        case _, Int(1):
            return ZERO
    return Mod(left, right, nonneg)


def minimum(left: Expr, right: Expr) -> Expr:
    match left, right:
        case Int(a), Int(b):
            return Int(min(a, b))
    return left if left == right else Min(left, right)


def maximum(left: Expr, right: Expr) -> Expr:
    match left, right:
        case Int(a), Int(b):
            return Int(max(a, b))
    return left if left == right else Max(left, right)


def select(condition: Bool, then: Expr, other: Expr) -> Expr:
    match condition:
        case Truth(value):
            return then if value else other
    return then if then == other else Select(condition, then, other)


def less(left: Expr, right: Expr) -> Bool:
    match left, right:
        case Int(a), Int(b):
            return Truth(a < b)
    return FALSE if left == right else Less(left, right)


def at_most(left: Expr, right: Expr) -> Bool:
    """left <= right."""
    return less(left, add(right, ONE))


def both(left: Bool, right: Bool) -> Bool:
    match left, right:
        case Truth(value), other:
            return other if value else FALSE
        case other, Truth(value):
            return other if value else FALSE
    return left if left == right else And(left, right)


def either(left: Bool, right: Bool) -> Bool:
    match left, right:
        case Truth(value), other:
            return TRUE if value else other
        case other, Truth(value):
            return TRUE if value else other
    return left if left == right else Or(left, right)


def negate(operand: Bool) -> Bool:
    match operand:
        case Truth(value):
            return Truth(not value)
        case Not(inner):
            return inner
    return Not(operand)


def names_in(tree: Expr | Bool) -> frozenset[str]:
    """The names of the variables that an expression or condition reads."""
    found: set[str] = set()
    pending: list[Expr | Bool] = [tree]
    while pending:
        match pending.pop():
            case Var(name):
                found.add(name)
            case Int() | Truth() | Listed():
                pass
            case Not(a):
                pending.append(a)
            case Select(c, a, b):
                pending += (c, a, b)
            case node:
                pending += (node.left, node.right)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Let:
    """`name` stands for `value` in everything that follows."""

    name: str
    value: Expr


def evaluate(expr: Expr, values: Mapping[str, int], listed: Mapping[int, bool] | None = None) -> int:
    """The value of `expr`, with `values` for its variables."""
    match expr:
        case Int(value):
            return value
        case Var(name):
            return values[name]
        case Add(a, b):
            return evaluate(a, values, listed) + evaluate(b, values, listed)
        case Sub(a, b):
            return evaluate(a, values, listed) - evaluate(b, values, listed)
        case Mul(a, b):
            return evaluate(a, values, listed) * evaluate(b, values, listed)
        case FloorDiv(a, b):
            return evaluate(a, values, listed) // evaluate(b, values, listed)
        case Mod(a, b):
            return evaluate(a, values, listed) % evaluate(b, values, listed)
        case Min(a, b):
            return min(evaluate(a, values, listed), evaluate(b, values, listed))
        case Max(a, b):
            return max(evaluate(a, values, listed), evaluate(b, values, listed))
        case Select(c, a, b):
            return evaluate(a if holds(c, values, listed) else b, values, listed)
    assert_never(expr)


def holds(condition: Bool, values: Mapping[str, int], listed: Mapping[int, bool] | None = None) -> bool:
    """The truth of `condition`, with `values` for its variables and `listed` for its list tests."""
    match condition:
        case Truth(value):
            return value
        case Less(a, b):
            return evaluate(a, values, listed) < evaluate(b, values, listed)
        case And(a, b):
            return holds(a, values, listed) and holds(b, values, listed)
        case Or(a, b):
            return holds(a, values, listed) or holds(b, values, listed)
        case Not(a):
            return not holds(a, values, listed)
        case Listed(ordinal):
            return (listed or {})[ordinal]
    assert_never(condition)

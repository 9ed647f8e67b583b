"""Constructors of expressions and conditions that fold numbers and drop what changes nothing.

Invariant: what comes back has, for all values of the variables, the value that the node asked for would have.
"""

from __future__ import annotations

from sparsec.ir.expr.nodes import (
    FALSE,
    ONE,
    TRUE,
    ZERO,
    Add,
    And,
    Bool,
    Expr,
    FloorDiv,
    Int,
    Less,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Select,
    Sub,
    Truth,
)


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

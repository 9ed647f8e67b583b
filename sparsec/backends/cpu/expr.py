"""Expressions and conditions -> C++ text: scalars (`int`, `bool`), and vectors (`ivec`, masks of -1 and 0).

Invariant: in a mask what holds the variable of the lanes is a vector, all else a scalar; no condition branches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from sparsec.ir.expr.nodes import (
    Add,
    And,
    Bool,
    Expr,
    FloorDiv,
    Int,
    Less,
    Listed,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Select,
    Sub,
    Truth,
    Var,
)

_ATOM, _PRODUCT, _SUM, _LOOSE = 3, 2, 1, 0
_TAKEN = frozenset(
    {"w", "lists", "head", "count", "live", "draws", "drawn", "minimum", "maximum", "truth", "splat", "floor_div"}
    | {"floor_mod", "auto", "bool", "case", "const", "default", "do", "else", "for", "if", "int", "new", "this"}
)
"""Names of the templates and words of C++ that a variable might be called."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A printed operand: how tightly its outermost operator binds, and whether it is a vector."""

    text: str
    binds: int
    vector: bool

    def at(self, level: int) -> str:
        return self.text if self.binds >= level else f"({self.text})"


def scalar(expr: Expr) -> str:
    """`expr` of scalars alone as a C++ int."""
    return _print(expr, vectors=frozenset()).text


def condition(test: Bool) -> str:
    """`test` of scalars alone as a C++ bool."""
    return _print_test(test, vectors=frozenset()).text


def mask(test: Bool, lane: str = "i") -> str:
    """`test`, where the variable `lane` is a vector, as an `ivec` mask."""
    printed = _print_test(test, vectors=frozenset((lane,)))
    return printed.text if printed.vector else f"splat(truth({printed.text}))"


def name_of(name: str) -> str:
    """A variable's C++ name, kept apart from those of the templates."""
    if not (name.isidentifier() and name.isascii()):
        raise AssertionError(f"a variable is an ASCII identifier, got {name!r}")
    return f"{name}_" if name in _TAKEN else name


def _print(expr: Expr, vectors: frozenset[str]) -> _Text:
    match expr:
        case Int(value):
            return _Text(repr(int(value)), _ATOM, False)
        case Var(name):
            return _Text(name_of(name), _ATOM, name in vectors)
        case Add(a, b):
            return _infix("+", _SUM, _print(a, vectors), _print(b, vectors))
        case Sub(a, b):
            return _infix("-", _SUM, _print(a, vectors), _print(b, vectors))
        case Mul(a, b):
            return _infix("*", _PRODUCT, _print(a, vectors), _print(b, vectors))
        case FloorDiv(a, Int(value)) if value & (value - 1) == 0:
            left = _print(a, vectors)
            return _Text(f"({left.at(_PRODUCT)} >> {value.bit_length() - 1})", _ATOM, left.vector)
        case Mod(a, Int(value)) if value & (value - 1) == 0:
            left = _print(a, vectors)
            return _Text(f"({left.at(_PRODUCT)} & {value - 1})", _ATOM, left.vector)
        case FloorDiv(a, b, nonneg):
            left, right = _print(a, vectors), _print(b, vectors)
            return _infix("/", _PRODUCT, left, right) if nonneg else _call("floor_div", left, right)
        case Mod(a, b, nonneg):
            left, right = _print(a, vectors), _print(b, vectors)
            return _infix("%", _PRODUCT, left, right) if nonneg else _call("floor_mod", left, right)
        case Min(a, b):
            return _call("minimum", *_alike(_print(a, vectors), _print(b, vectors)))
        case Max(a, b):
            return _call("maximum", *_alike(_print(a, vectors), _print(b, vectors)))
        case Select(c, a, b):
            test = _print_test(c, vectors)
            then, other = _alike(_print(a, vectors), _print(b, vectors), vector=test.vector)
            return _Text(f"({test.at(_SUM)} ? {then.text} : {other.text})", _ATOM, then.vector)
    assert_never(expr)


def _print_test(test: Bool, vectors: frozenset[str]) -> _Text:
    match test:
        case Truth(value):
            return _Text("true" if value else "false", _ATOM, False)
        case Less(a, b):
            left, right = _print(a, vectors), _print(b, vectors)
            return _Text(f"{left.at(_SUM)} < {right.at(_SUM)}", _LOOSE, left.vector or right.vector)
        case And(a, b):
            return _combine("&", _print_test(a, vectors), _print_test(b, vectors))
        case Or(a, b):
            return _combine("|", _print_test(a, vectors), _print_test(b, vectors))
        case Not(a):
            operand = _print_test(a, vectors)
            return _Text(f"{'~' if operand.vector else '!'}{operand.at(_ATOM)}", _ATOM, operand.vector)
        case Listed(ordinal):
            return _Text(f"listed_{int(ordinal)}", _ATOM, False)
    assert_never(test)


def _infix(sign: str, level: int, left: _Text, right: _Text) -> _Text:
    return _Text(f"{left.at(level)} {sign} {right.at(level + 1)}", level, left.vector or right.vector)


def _call(function: str, *arguments: _Text) -> _Text:
    return _Text(f"{function}({', '.join(a.text for a in arguments)})", _ATOM, any(a.vector for a in arguments))


def _combine(sign: str, left: _Text, right: _Text) -> _Text:
    if left.vector != right.vector:  # a vector's operand is a mask: widen the scalar truth
        left, right = (t if t.vector else _call("truth", t) for t in (left, right))
        return _Text(f"({left.at(_ATOM)} {sign} {right.at(_ATOM)})", _ATOM, True)
    return _Text(f"({left.at(_ATOM)} {sign} {right.at(_ATOM)})", _ATOM, left.vector)


def _alike(left: _Text, right: _Text, *, vector: bool = False) -> tuple[_Text, _Text]:
    """Both as vectors if either is one, or if `vector`."""
    if not (vector or left.vector or right.vector):
        return left, right
    left, right = (t if t.vector else _Text(f"splat({t.text})", _ATOM, True) for t in (left, right))
    return left, right

"""Expressions and conditions -> C++ text: scalars (`int`, `bool`), and vectors (`ivec`, masks of -1 and 0).

Invariant: in a mask what holds the variable of the lanes is a vector, all else a scalar; no condition branches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from sparsec.ir.expr.fold import fold
from sparsec.ir.expr.nodes import (
    Add,
    And,
    Bool,
    Expr,
    Extent,
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
    Picked,
    Select,
    Sub,
    Tree,
    Truth,
    Var,
)

_ATOM, _PRODUCT, _SUM, _LOOSE = 3, 2, 1, 0
_TILE = "tile"
_TAKEN = frozenset(
    {"w", "lists", "head", "here", "first", "count", "live", "draws", "drawn", "minimum", "maximum", "truth", "splat"}
    | {"floor_div", "floor_mod", "auto", "bool", "case", "const", "default", "do", "else", "for", "if", "int", "new"}
    | {"this"}
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
    return _print(test, vectors=frozenset()).text


def vector_mask(test: Bool, lane: str = "i", *, of_tile: bool = True) -> str:
    """`test`, where the variable `lane` is a vector, as an `ivec` mask; not `of_tile`: the keys lie in many tiles."""
    printed = _print(test, vectors=frozenset((lane,) if of_tile else (lane, _TILE)))
    return printed.text if printed.vector else f"splat(truth({printed.text}))"


def name_of(name: str) -> str:
    """A variable's C++ name, kept apart from those of the templates."""
    if not (name.isidentifier() and name.isascii()):
        raise AssertionError(f"a variable is an ASCII identifier, got {name!r}")
    return f"{name}_" if name in _TAKEN else name


def _print(tree: Tree, vectors: frozenset[str]) -> _Text:
    return fold(tree, lambda node, parts: _printed(node, parts, vectors))


def _printed(node: Tree, parts: tuple[_Text, ...], vectors: frozenset[str]) -> _Text:
    """The text of a node, given those of its parts."""
    match node:
        case Int(value):
            return _Text(repr(int(value)), _ATOM, False)
        case Var(name):
            return _Text(name_of(name), _ATOM, name in vectors)
        case Add():
            return _infix("+", _SUM, *parts)
        case Sub():
            return _infix("-", _SUM, *parts)
        case Mul():
            return _infix("*", _PRODUCT, *parts)
        case FloorDiv(_, Int(value)) if value & (value - 1) == 0:
            return _Text(f"({parts[0].at(_PRODUCT)} >> {value.bit_length() - 1})", _ATOM, parts[0].vector)
        case Mod(_, Int(value)) if value & (value - 1) == 0:
            return _Text(f"({parts[0].at(_PRODUCT)} & {value - 1})", _ATOM, parts[0].vector)
        case FloorDiv(nonneg=nonneg):
            return _infix("/", _PRODUCT, *parts) if nonneg else _call("floor_div", *parts)
        case Mod(nonneg=nonneg):
            return _infix("%", _PRODUCT, *parts) if nonneg else _call("floor_mod", *parts)
        case Min():
            return _call("minimum", *_alike(*parts))
        case Max():
            return _call("maximum", *_alike(*parts))
        case Select():
            test, *sides = parts
            then, other = _alike(*sides, vector=test.vector)
            return _Text(f"({test.at(_SUM)} ? {then.text} : {other.text})", _ATOM, then.vector)
        case Truth(value):
            return _Text("true" if value else "false", _ATOM, False)
        case Less():
            left, right = parts
            return _Text(f"{left.at(_SUM)} < {right.at(_SUM)}", _LOOSE, left.vector or right.vector)
        case And():
            return _combine("&", *parts)
        case Or():
            return _combine("|", *parts)
        case Not():
            (operand,) = parts
            return _Text(f"{'~' if operand.vector else '!'}{operand.at(_ATOM)}", _ATOM, operand.vector)
        case Listed(ordinal) if _TILE in vectors:
            return _Text(f"listed_{int(ordinal)}_of(j)", _ATOM, True)
        case Listed(ordinal):
            return _Text(f"listed_{int(ordinal)}", _ATOM, False)
        case Picked(ordinal, scope):
            vector = scope is Extent.PAIR
            return _Text(f"picked_{int(ordinal)}.{scope.value}({'i, j' if vector else 'here'})", _ATOM, vector)
        case _:
            assert_never(node)


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

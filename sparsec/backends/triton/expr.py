"""Expressions -> lines of Triton: operators, precedence, and what is too wide for one line cut into named parts.

Triton's `//` and `%` truncate; what is printed here rounds toward minus infinity, and no printed line is wider than
120 columns. Invariant: the lines mean what the expression means, and every number is printed by `repr(int)`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    Picked,
    Select,
    Sub,
    Truth,
    Var,
)

_WIDTH = 80
"""An expression printed wider than this is cut: its widest operand gets a name of its own."""

_COMPARE, _OR, _AND, _SHIFT, _SUM, _PRODUCT, _ATOM = range(7)
"""How tightly a printed expression binds, in Python's order."""


def assignment(name: str, value: Expr | Bool, names: Mapping[str, str]) -> tuple[str, ...]:
    """Lines of Python that set `name` to `value`; `names` gives the printed name of each variable."""
    lines: list[str] = []
    text, _ = _print(value, names, name, lines)
    return (*lines, f"{name} = {text}")


def _print(value: Expr | Bool, names: Mapping[str, str], name: str, lines: list[str]) -> tuple[str, int]:
    """The text of `value` and how tightly it binds; where it grows wide, operands go to `lines` as parts of `name`."""

    def build(form: str, binds: int, *operands: tuple[Expr | Bool, int]) -> tuple[str, int]:
        printed = [_print(operand, names, name, lines) for operand, _ in operands]
        texts = [
            text if tightness >= level else f"({text})"
            for (text, tightness), (_, level) in zip(printed, operands, strict=True)
        ]
        while len(form.format(*texts)) > _WIDTH:
            widest = max(range(len(texts)), key=lambda n: len(texts[n]))
            part = f"{name}_part_{len(lines)}"
            lines.append(f"{part} = {printed[widest][0]}")
            texts[widest] = part
        return form.format(*texts), binds

    match value:
        case Int(number):
            return repr(int(number)), _ATOM if number >= 0 else _SHIFT
        case Var(variable):
            return names[variable], _ATOM
        case Add(a, b):
            return build("{} + {}", _SUM, (a, _SUM), (b, _PRODUCT))
        case Sub(a, b):
            return build("{} - {}", _SUM, (a, _SUM), (b, _PRODUCT))
        case Mul(a, b):
            return build("{} * {}", _PRODUCT, (a, _PRODUCT), (b, _ATOM))
        case FloorDiv(a, Int(number)) if _is_power_of_two(number):
            return build(f"{{}} >> {number.bit_length() - 1}", _SHIFT, (a, _ATOM))
        case Mod(a, Int(number)) if _is_power_of_two(number):
            return build(f"{{}} & {number - 1}", _AND, (a, _ATOM))
        case FloorDiv(a, b, True):
            return build("{} // {}", _PRODUCT, (a, _PRODUCT), (b, _ATOM))
        case Mod(a, b, True):
            return build("{} % {}", _PRODUCT, (a, _PRODUCT), (b, _ATOM))
        case FloorDiv(a, b):
            return build("floor_div({}, {})", _ATOM, (a, _COMPARE), (b, _COMPARE))
        case Mod(a, b):
            return build("floor_mod({}, {})", _ATOM, (a, _COMPARE), (b, _COMPARE))
        case Min(a, b):
            return build("tl.minimum({}, {})", _ATOM, (a, _COMPARE), (b, _COMPARE))
        case Max(a, b):
            return build("tl.maximum({}, {})", _ATOM, (a, _COMPARE), (b, _COMPARE))
        case Select(condition, a, b):
            return build("tl.where({}, {}, {})", _ATOM, (condition, _COMPARE), (a, _COMPARE), (b, _COMPARE))
        case Truth(truth):
            return ("True" if truth else "False"), _ATOM
        case Less(a, b):
            return build("{} < {}", _COMPARE, (a, _OR), (b, _OR))
        case And(a, b):
            return build("{} & {}", _AND, (a, _AND), (b, _ATOM))
        case Or(a, b):
            return build("{} | {}", _OR, (a, _OR if isinstance(a, Or) else _ATOM), (b, _ATOM))
        case Listed(ordinal):
            return f"listed_{ordinal}", _ATOM
        case Picked(ordinal, scope):
            return f"{scope.value}_{ordinal}", _ATOM
        case Not(operand):
            negated = _negated(operand)
            if negated is not None:
                return _print(negated, names, name, lines)
            if isinstance(operand, Less):
                return build("{} >= {}", _COMPARE, (operand.left, _OR), (operand.right, _OR))
            return build("{} == 0", _COMPARE, (operand, _OR))
    assert_never(value)


def _negated(condition: Bool) -> Bool | None:
    """`not condition` with the negation moved inward; None for a condition without an inside."""
    match condition:
        case Truth(truth):
            return Truth(not truth)
        case And(a, b):
            return Or(Not(a), Not(b))
        case Or(a, b):
            return And(Not(a), Not(b))
        case Not(a):
            return a
        case Less() | Listed() | Picked():
            return None
    assert_never(condition)


def _is_power_of_two(number: int) -> bool:
    return number > 1 and number & (number - 1) == 0

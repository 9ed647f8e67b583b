"""The plan's expressions -> linear forms and conditions: the very trees that the templates print, read once more.

Invariant: a name stands for one value; an expression means here what `ir.expr.evaluate` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from sparsec.diagnostics.model import InternalError
from sparsec.ir.expr import nodes as x
from sparsec.prove.linear import NO, YES, Condition, Linear, Space, every, never, some


def _no_lists(ordinal: int) -> Condition:
    raise InternalError(f"list {ordinal} is tested where no tile is at hand")


def _no_inputs(asked: x.Picked) -> Condition:
    raise InternalError(f"input test {asked.ordinal} is asked where no tile is at hand")


@dataclass(frozen=True, slots=True, eq=False)
class LinearScope:
    """Values of names, lets (evaluated when first read), and what lists and inputs say of the tile and pair at hand."""

    space: Space
    values: dict[str, Linear]
    lets: Mapping[str, x.Expr] = field(default_factory=dict)
    listed: Callable[[int], Condition] = _no_lists
    outer: LinearScope | None = None
    picked: Callable[[x.Picked], Condition] = _no_inputs

    def having(self, **values: Linear) -> LinearScope:
        """The scope with more names, which its lets cannot read."""
        return LinearScope(self.space, values, {}, self.listed, self, self.picked)

    def name(self, name: str) -> Linear:
        if name not in self.values:
            if name not in self.lets and self.outer is not None:
                return self.outer.name(name)
            self.values[name] = self.value(self.lets[name])
        return self.values[name]

    def value(self, expr: x.Expr) -> Linear:
        space = self.space
        match expr:
            case x.Int(number):
                return Linear(number)
            case x.Var(name):
                return self.name(name)
            case x.Add(a, b):
                return self.value(a) + self.value(b)
            case x.Sub(a, b):
                return self.value(a) - self.value(b)
            case x.Mul(a, b):
                left, right = self.value(a), self.value(b)
                if left.terms and right.terms:
                    raise InternalError("a product of two unknowns is not linear")
                return right * left.constant if not left.terms else left * right.constant
            case x.FloorDiv(a, b):
                return space.divided(self.value(a), self._number(b))[0]
            case x.Mod(a, b):
                by = self.value(b)
                return (
                    space.wrapped(self.value(a), by) if by.terms else space.divided(self.value(a), self._number(b))[1]
                )
            case x.Min(a, b):
                return space.minimum(self.value(a), self.value(b))
            case x.Max(a, b):
                return space.maximum(self.value(a), self.value(b))
            case x.Select(c, a, b):
                condition = self.truth(c)
                if condition is YES or condition is NO:
                    return self.value(a if condition is YES else b)
                return space.select(condition, self.value(a), self.value(b))
        assert_never(expr)

    def truth(self, test: x.Bool) -> Condition:
        match test:
            case x.Truth(value):
                return YES if value else NO
            case x.Less(a, b):
                return self.space.less(self.value(a), self.value(b))
            case x.And(a, b):
                return every((self.truth(a), self.truth(b)))
            case x.Or(a, b):
                return some((self.truth(a), self.truth(b)))
            case x.Not(a):
                return never(self.truth(a))
            case x.Listed(ordinal):
                return self.listed(ordinal)
            case x.Picked():
                return self.picked(test)
        assert_never(test)

    def _number(self, expr: x.Expr) -> int:
        value = self.value(expr)
        if value.terms or value.constant <= 0:
            raise InternalError("a quotient has a divisor that is not a positive number")
        return value.constant

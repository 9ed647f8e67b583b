"""Expressions have the values of the Python text that says them, over numbers and over arrays, element by element."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from sparsec.ir.expr import nodes as x
from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.ir.expr.fold import fold

ROWS, COLUMNS = range(-9, 9, 3), range(-5, 12, 4)


def expression(draw: Random, depth: int) -> x.Expr:
    if depth == 0:
        return draw.choice((x.Int(draw.randint(-5, 5)), x.Var("i"), x.Var("j"), x.Var("c")))
    a, b = expression(draw, depth - 1), expression(draw, draw.randrange(depth))
    kind = draw.choice((x.Add, x.Sub, x.Mul, x.Min, x.Max, x.FloorDiv, x.Mod, x.Select))
    if kind is x.Select:
        return x.Select(condition(draw, depth - 1), a, b)
    return kind(a, x.Int(draw.randint(1, 7)), False) if kind in (x.FloorDiv, x.Mod) else kind(a, b)


def condition(draw: Random, depth: int) -> x.Bool:
    match draw.randrange(6 if depth else 3):
        case 0:
            return draw.choice((x.Truth(True), x.Truth(False), x.Listed(0)))
        case 1 | 2:
            return x.Less(expression(draw, depth), expression(draw, depth))
        case 3:
            return x.And(condition(draw, depth - 1), condition(draw, depth - 1))
        case 4:
            return x.Or(condition(draw, depth - 1), condition(draw, depth - 1))
    return x.Not(condition(draw, depth - 1))


SIGNS = {x.Add: "+", x.Sub: "-", x.Mul: "*", x.FloorDiv: "//", x.Mod: "%", x.Less: "<", x.And: "and", x.Or: "or"}


def python(node: x.Tree, parts: tuple[str, ...]) -> str:
    """The expression as Python writes it."""
    match node:
        case x.Int(value) | x.Truth(value):
            return repr(value)
        case x.Var(name):
            return name
        case x.Listed(ordinal):
            return f"listed[{ordinal}]"
        case x.Not():
            return f"(not {parts[0]})"
        case x.Min() | x.Max():
            return f"{type(node).__name__.lower()}({parts[0]}, {parts[1]})"
        case x.Select():
            return f"({parts[1]} if {parts[0]} else {parts[2]})"
        case _:
            return f"({parts[0]} {SIGNS[type(node)]} {parts[1]})"


@pytest.mark.parametrize("arrays", [np.asarray, torch.tensor], ids=["numpy", "torch"])
def test_arrays_are_evaluated_element_by_element(arrays: Any) -> None:
    """i is a column, j a row and c a number; list 0 names what is odd in j."""
    i, j = arrays(list(ROWS))[:, None], arrays(list(COLUMNS))[None, :]
    names, listed = {"i": i, "j": j, "c": 3}, {0: j % 2 == 1}
    draw = Random(0)
    for _ in range(200):
        expr, test = expression(draw, 3), condition(draw, 2)
        results = evaluate(expr, names, listed), holds(test, names, listed)
        found, held = (np.broadcast_to(np.asarray(t), (len(ROWS), len(COLUMNS))) for t in results)
        assert held.dtype == bool
        for (a, row), (b, column) in product(enumerate(ROWS), enumerate(COLUMNS)):
            at, odd = {"i": row, "j": column, "c": 3}, {0: column % 2 == 1}
            names_at = {**at, "listed": odd}
            assert found[a, b] == evaluate(expr, at, odd) == eval(fold(expr, python), {}, names_at)
            assert held[a, b] == holds(test, at, odd) == eval(fold(test, python), {}, names_at)

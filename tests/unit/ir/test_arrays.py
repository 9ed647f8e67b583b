"""Expressions over arrays have, element by element, the values of `ir.expr.nodes`'s own interpreter."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from sparsec.ir.expr import nodes as x
from sparsec.ir.expr.arrays import truth, value

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


@pytest.mark.parametrize("arrays", [np.asarray, torch.tensor], ids=["numpy", "torch"])
def test_arrays_are_evaluated_element_by_element(arrays: Any) -> None:
    """i is a column, j a row and c a number; list 0 names what is odd in j."""
    i, j = arrays(list(ROWS))[:, None], arrays(list(COLUMNS))[None, :]
    names, listed = {"i": i, "j": j, "c": 3}, {0: j % 2 == 1}
    draw = Random(0)
    for _ in range(200):
        expr, test = expression(draw, 3), condition(draw, 2)
        results = value(expr, names, listed), truth(test, names, listed)
        found, held = (np.broadcast_to(np.asarray(t), (len(ROWS), len(COLUMNS))) for t in results)
        assert held.dtype == bool
        for (a, row), (b, column) in product(enumerate(ROWS), enumerate(COLUMNS)):
            at, odd = {"i": row, "j": column, "c": 3}, {0: column % 2 == 1}
            assert found[a, b] == x.evaluate(expr, at, odd) == value(expr, at, odd)
            assert held[a, b] == x.holds(test, at, odd) == truth(test, at, odd)

"""The rules by which the solver knows quotients and remainders: true of every value, negative ones too."""

from __future__ import annotations

from itertools import product

import pytest

pytest.importorskip("z3")

from sparsec.prove.linear import Linear, Space, never  # what imports z3 comes after the check
from sparsec.prove.solve import Assignment, Solver

VALUES = (-7, -3, -1, 0, 1, 2, 5, 6, 9)


def test_remainders_by_an_unknown_keep_their_rules() -> None:
    space = Space()
    first, second = space.unknown("first", -10, 10), space.unknown("second", -10, 10)
    divisor = space.unknown("divisor", 1, 5)
    left, other = space.wrapped(first, divisor), space.wrapped(second, divisor)
    solver = Solver(space)
    for a, b, n in product(VALUES, VALUES, (1, 2, 3, 5)):
        known = ((first, a), (second, b), (divisor, n), (left, a % n), (other, b % n))
        assert isinstance(solver.ask([space.equal(value, Linear(n)) for value, n in known], 10), Assignment), known
    equal = space.equal(left, other)
    near = space.within(first - second, divisor * -1 + Linear(1), divisor)
    assert solver.ask([equal, near, never(space.equal(first, second))], 10) is False
    assert isinstance(solver.ask([equal, never(space.equal(first, second))], 10), Assignment)
    assert solver.ask([never(space.within(left, Linear(0), divisor))], 10) is False


def test_quotients_by_a_number_are_the_ones_of_the_language() -> None:
    space = Space()
    value = space.unknown("value", -40, 40)
    solver = Solver(space)
    for divisor, offset in product((2, 3, 7), (-5, 0, 4)):
        quotient, left = space.divided(value * 3 + Linear(offset), divisor)
        for n in VALUES:
            given = space.equal(value, Linear(n))
            right = 3 * n + offset
            assert solver.ask([given, never(space.equal(quotient, Linear(right // divisor)))], 10) is False
            assert solver.ask([given, never(space.equal(left, Linear(right % divisor)))], 10) is False
            assert isinstance(solver.ask([given, space.equal(quotient, Linear(right // divisor))], 10), Assignment)

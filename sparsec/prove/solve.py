"""Conditions of a `Space` -> z3's answer, and the values of the unknowns where they hold together.

Invariant: only the rules that a query reaches are asserted; no answer within the time is no answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal, assert_never

import z3

from sparsec.prove.linear import All, AtLeastZero, Condition, Flag, IsZero, Known, Linear, Never, Some, Space

_STEPS_A_SECOND = 10_000_000


def solver_version() -> str:
    """As z3 says it."""
    return str(z3.get_version_string())


def _attempts() -> Iterator[tuple[int, int]]:
    """(arithmetic core, most steps) of one attempt after another; a million steps take 0.1 to 0.2 s.

    The time a query takes varies a hundredfold with the seed, so it is dropped early and asked anew. The older core is
    the faster one on most, the newer one on the hardest. Steps, not seconds, so that runs are alike.
    """
    for turn in count():
        yield 2, 2_000_000 << turn // 2
        yield 6, 1_000_000 << turn // 2


@dataclass(frozen=True, slots=True)
class Assignment:
    """Values of the unknowns that a query reached, and which of its flags hold; others may be anything."""

    space: Space
    values: Mapping[int, int]
    flags: Mapping[tuple[object, ...], bool]

    def of(self, value: Linear) -> int:
        return value.constant + sum(factor * self._of(unknown) for unknown, factor in value.terms)

    def holds(self, condition: Condition) -> bool:
        match condition:
            case Known(value):
                return value
            case AtLeastZero(value):
                return self.of(value) >= 0
            case IsZero(value):
                return self.of(value) == 0
            case Flag(name):
                return self.flags.get(name, False)
            case All(parts):
                return all(map(self.holds, parts))
            case Some(parts):
                return any(map(self.holds, parts))
            case Never(part):
                return not self.holds(part)
        assert_never(condition)

    def _of(self, unknown: int) -> int:
        low, high = self.space.ranges[unknown]
        return self.values.get(unknown, min(max(low, 0), high))


class Solver:
    """Asks z3 about conditions of one space; terms are translated once."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._context = z3.Context()
        self._unknowns: dict[int, z3.ArithRef] = {}
        self._flags: dict[tuple[object, ...], z3.BoolRef] = {}
        self._made: dict[int, tuple[Condition, z3.BoolRef, frozenset[int]]] = {}

    def ask(
        self, conditions: Iterable[Condition], timeout_s: float, attempts: int | None = None
    ) -> Assignment | Literal[False] | None:
        """An assignment under which all conditions hold; False if there is none; None if time or `attempts` ran out.

        The time is the processor's, so that a busy machine proves as much as an idle one.
        """
        given = list(conditions)
        if any(isinstance(each, Known) and not each.value for each in given):
            return False
        asserted, reached = self._assertions(given)
        stop = time.process_time() + timeout_s
        for attempt, (core, steps) in enumerate(islice(_attempts(), attempts)):
            left = stop - time.process_time()
            if left <= 0:
                break
            solver = z3.SimpleSolver(ctx=self._context)
            solver.set("arith.solver", core)
            solver.set("random_seed", attempt)
            solver.set("rlimit", min(steps, 1 + int(left * _STEPS_A_SECOND)))
            solver.set("timeout", 1000 + int(left * 10_000))  # of the clock, should steps not be counted for long
            for each in asserted:  # z3's own `add` looks at each sort again, which takes a tenth of a proof's time
                z3.Z3_solver_assert(self._context.ref(), solver.solver, each.as_ast())
            answer = solver.check()
            if answer == z3.unsat:
                return False
            if answer == z3.sat:
                model = solver.model()
                found = ((n, model.eval(self._unknown(n), model_completion=True)) for n in reached)
                flags = {name: z3.is_true(model.eval(flag)) for name, flag in self._flags.items()}
                return Assignment(self.space, {n: value.as_long() for n, value in found}, flags)
        return None

    def _assertions(self, given: list[Condition]) -> tuple[list[z3.BoolRef], set[int]]:
        """The conditions with the rules and ranges of all unknowns that they reach, and those unknowns."""
        asserted: list[z3.BoolRef] = []
        reached: set[int] = set()
        wanted: list[int] = []
        seen: set[int] = set()

        def add(condition: Condition) -> None:
            if id(condition) not in seen:
                seen.add(id(condition))
                made, unknowns = self._bool(condition)
                asserted.append(made)
                wanted.extend(unknowns - reached)
                reached.update(unknowns)

        for condition in given:
            add(condition)
        while wanted:
            unknown = wanted.pop()
            rules = self.space.rules[unknown]
            for rule in rules:
                add(rule)
            if not rules:
                low, high = self.space.ranges[unknown]
                made = self._unknown(unknown)
                asserted += [made >= low, made <= high]
        for unknown in sorted(reached & self.space.hints.keys()):
            for other, conditions in self.space.hints[unknown]:
                if other in reached:
                    asserted += [self._bool(condition)[0] for condition in conditions]
        return asserted, reached

    def _unknown(self, unknown: int) -> z3.ArithRef:
        if unknown not in self._unknowns:
            self._unknowns[unknown] = z3.Int(f"{self.space.names[unknown]}!{unknown}", self._context)
        return self._unknowns[unknown]

    def _linear(self, value: Linear) -> z3.ArithRef:
        parts = [self._unknown(u) * f if f != 1 else self._unknown(u) for u, f in value.terms]
        return z3.Sum([*parts, z3.IntVal(value.constant, self._context)])

    def _bool(self, condition: Condition) -> tuple[z3.BoolRef, frozenset[int]]:
        """The condition in z3, and the unknowns that it reads."""
        if id(condition) not in self._made:
            self._made[id(condition)] = (condition, *self._translate(condition))
        return self._made[id(condition)][1:]

    def _translate(self, condition: Condition) -> tuple[z3.BoolRef, frozenset[int]]:
        match condition:
            case Known(value):
                return z3.BoolVal(value, self._context), frozenset()
            case AtLeastZero(value):
                return self._linear(value) >= 0, frozenset(u for u, _ in value.terms)
            case IsZero(value):
                return self._linear(value) == 0, frozenset(u for u, _ in value.terms)
            case Flag(name):
                return self._flags.setdefault(name, z3.Bool(repr(name), self._context)), frozenset()
            case All(parts) | Some(parts):
                made = [self._bool(part) for part in parts]
                joined = (z3.And if isinstance(condition, All) else z3.Or)([each for each, _ in made])
                return joined, frozenset().union(*(read for _, read in made))
            case Never(part):
                inner, read = self._bool(part)
                return z3.Not(inner), read

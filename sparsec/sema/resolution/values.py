"""The values of checked Nodes, and what one evaluation carries along.

Invariant: a `Place` belongs to one item with fixed parameters, so its memo never has to be cleared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sparsec.diagnostics.codes_meaning import Code
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.sema.model import RunTimeLength
from sparsec.sema.node import Depends, Node
from sparsec.sema.terms import Sized, Terms

MAX_STEPS = 200_000
MAX_LEAVES = 256
VARYING = Depends.HEAD | Depends.GROUP | Depends.LAYER


@dataclass(frozen=True, slots=True)
class RangeValue:
    """A half-open range; an open end is None."""

    start: int | RunTimeLength | None
    stop: int | RunTimeLength | None


Value = int | bool | tuple["int | float | RangeValue", ...] | RangeValue | RunTimeLength | Sized


class Problem(Protocol):
    """Takes a problem found in the course of evaluation."""

    def __call__(self, code: Code, span: Span, /, **facts: object) -> None: ...


class OverBudget(Exception):
    """Evaluation passed MAX_STEPS."""


@dataclass(slots=True)
class Budget:
    """The steps that are left to a whole check or instantiation, and to its probes, which may be left out."""

    steps: int = MAX_STEPS
    probes: int = MAX_STEPS // 4

    def spend(self, steps: int = 1) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise OverBudget


@dataclass(slots=True, eq=False)
class Place:
    """Where a Node is evaluated: the values of the built-in names and of the item's parameters.

    `memo` holds what has been evaluated in this item, by Node and by the head, group or layer it depends on.
    """

    source: SourceFile
    builtins: dict[str, int]
    parameters: dict[str, Value | None]
    memo: dict[tuple[int, int], Value | None] = field(default_factory=dict)

    def line_of(self, span: Span) -> int:
        return self.source.line_of(span.start)

    def key(self, node: Node) -> tuple[int, int]:
        if not node.depends & VARYING:
            return id(node), -1
        name = "h" if node.depends & Depends.HEAD else "g" if node.depends & Depends.GROUP else "l"
        return id(node), self.builtins.get(name, -1)


@dataclass(slots=True, eq=False)
class Evaluator:
    """What an evaluation shares: where reports go, the file's parameters, the terms made, the budget.

    `pattern` gives the set of a named pattern at a place; `contained` gathers, for each pair of joined terms, the
    facts of the warning that one contains the other, None as soon as that fails for one head; `idle` is the Node
    that the warning points at. `certain`: what may not count, since something before it is not known, is not
    evaluated, so that every problem found is one whatever the rest turns out to be.
    """

    problem: Problem
    file_parameters: Mapping[str, Value | None]
    pattern: Callable[[Evaluator, Node, Place], Sized | None]
    input_ordinals: Mapping[str, int]
    budget: Budget
    certain: bool = False
    terms: Terms = field(default_factory=Terms)
    contained: dict[tuple[int, int], dict[str, str] | None] = field(default_factory=dict)
    idle: dict[tuple[int, int], Node] = field(default_factory=dict)

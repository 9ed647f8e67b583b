"""An obligation about a subject -> the claim: proved, refuted with a confirmed counterexample, or left open.

Invariant: `refuted` comes with a counterexample that the interpreter of the plan has confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from sparsec.prove.linear import Linear, every
from sparsec.prove.obligations import Obligation, Query
from sparsec.prove.solve import Assignment, Solver

PROVED, REFUTED, OPEN = "proved", "refuted", "not proved"
_ATTEMPTS = 4
"""At a whole query, before its cases are asked one after another."""
_SMALL = (300, 5000, 100_000)
"""Bounds under which a counterexample is looked for first: the smaller, the easier to read and to walk."""


@dataclass(frozen=True, slots=True)
class Claim:
    """`name` says what is claimed of `about`; status "proved" (for all positions and lengths), "refuted", "not proved".

    `seconds` are the processor's. `counterexample` gives the head h, the positions and the lengths at which a refuted
    claim fails, `picture` the predicate around them, `inputs` what the call's inputs are there, a line each.
    """

    name: str
    about: str
    status: str
    seconds: float
    counterexample: dict[str, int] | None = None
    picture: str = ""
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counterexample:
    """As of a Claim."""

    values: dict[str, int]
    picture: str
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProofSubject:
    """What claims are about.

    `sizes`: the unknowns that a readable counterexample has small. `confirmed`: (claim, assignment) -> where the claim
    fails by the plan's own interpreter, None if it does not.
    """

    about: str
    solver: Solver
    sizes: tuple[Linear, ...]
    confirmed: Callable[[str, Assignment], Counterexample | None]


def decide(subject: ProofSubject, obligation: Obligation, timeout_s: float) -> Claim:
    """The claim that the obligation becomes, decided or given up within the time, which is the processor's."""
    started = time.process_time()

    def left() -> float:
        return timeout_s - (time.process_time() - started)

    def impossible(query: Query) -> bool:
        half = left() / 2
        return _answer(subject.solver, query, lambda: left() - half) is False

    if obligation.by_lemmas(impossible):
        return Claim(obligation.name, subject.about, PROVED, time.process_time() - started)
    query = obligation.negation()
    answer = _answer(subject.solver, query, left)
    if isinstance(answer, Assignment):
        for found in _assignments(subject, query, answer, left):
            if at := subject.confirmed(obligation.name, found):
                seconds = time.process_time() - started
                return Claim(obligation.name, subject.about, REFUTED, seconds, at.values, at.picture, at.inputs)
    status = PROVED if answer is False else OPEN
    return Claim(obligation.name, subject.about, status, time.process_time() - started)


def _answer(solver: Solver, query: Query, left: Callable[[], float]) -> Assignment | Literal[False] | None:
    """An answer to the whole query, or, if that takes long, to one case after another."""
    answer = solver.ask(query.whole, left(), _ATTEMPTS)
    if answer is None:
        for case in query.cases:
            answer = solver.ask((*query.given, case), left())
            if answer is not False:
                break
    return answer


def _assignments(
    subject: ProofSubject, query: Query, first: Assignment, left: Callable[[], float]
) -> Iterator[Assignment]:
    """Answers to the query, the smallest first."""
    for bound in _SMALL:
        small = every(subject.solver.space.within(value, Linear(-bound), Linear(bound)) for value in subject.sizes)
        answer = subject.solver.ask((*query.whole, small), left()) if left() > 0 else None
        if isinstance(answer, Assignment):
            yield answer
    yield first

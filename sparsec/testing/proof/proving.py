"""Checked pattern -> claims about every launch that its kernels make, each proved, refuted or left open.

Invariant: `refuted` comes with a counterexample that the interpreter of the plan has confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from sparsec.ir.printer import head_ranges
from sparsec.ir.tiles import TileProgram
from sparsec.plan.kernel import HeadClass
from sparsec.sema.model import Heads, Random, Term
from sparsec.testing.proof import counterexample, meaning
from sparsec.testing.proof.claims import Failure, Question, tile_questions
from sparsec.testing.proof.launches import Launch, launches
from sparsec.testing.proof.linear import Condition, Linear, Space, every, never, some
from sparsec.testing.proof.settings import Case, Kind, Setting, setting
from sparsec.testing.proof.solve import Model, Solver
from sparsec.testing.proof.stated import Scope

PROVED, REFUTED, OPEN = "proved", "refuted", "not proved"
_ATTEMPTS = 4
"""At a whole question, before its cases are asked one after another."""
_SMALL = (300, 5000, 100_000)
"""Bounds under which a counterexample is looked for first: the smaller, the easier to read and to walk."""


@dataclass(frozen=True, slots=True)
class Claim:
    """`name` says what is claimed of `about`; status "proved" (for all positions and lengths), "refuted", "not proved".

    `counterexample` gives the head h, the positions and the lengths at which a refuted claim fails, `picture` the
    predicate around them.
    """

    name: str
    about: str
    status: str
    seconds: float
    counterexample: dict[str, int] | None = None
    picture: str = ""


def prove(
    pattern: Heads, *, head_dim: int = 64, dtype: str = "float32", target: str = "cpu", timeout_s: float = 10.0
) -> tuple[Claim, ...]:
    """The claims about `pattern` as compiled for a target name of `plan.target`, each decided within `timeout_s`.

    Raises TooManyBands or TooManyClasses.
    """
    found: list[Claim] = []
    for case, about in merged(launches(pattern, head_dim, dtype, target)):
        found += prove_tiles(case, about, pattern, timeout_s=timeout_s)
    return tuple(found)


def merged(found: tuple[Launch, ...]) -> Iterator[tuple[Case, str]]:
    """Each tile program once, with the constants of all the heads that any launch runs it for."""
    cases: dict[tuple[Kind, TileProgram, tuple[str, ...]], Case] = {}
    names: dict[tuple[Kind, TileProgram, tuple[str, ...]], list[str]] = {}
    for launch in found:
        for head_class in launch.classes:
            case = case_of(launch, head_class)
            key = (case.kind, case.program, case.names)
            rows = cases[key].rows if key in cases else ()
            cases[key] = replace(case, rows=tuple(dict.fromkeys(rows + case.rows)))
            names.setdefault(key, []).append(launch.name)
    for key, whole in cases.items():
        heads = tuple(sorted({head for head, _ in whole.rows}))
        yield whole, f"{', '.join(dict.fromkeys(names[key]))}; heads {head_ranges(heads)}"


def case_of(launch: Launch, head_class: HeadClass) -> Case:
    columns = {name: values for name, values in head_class.constants if not name.startswith("s")}
    rows = zip(*columns.values(), strict=True) if columns else [()] * len(head_class.heads)
    return Case(launch.kind, head_class.program, tuple(columns), tuple(zip(head_class.heads, rows, strict=True)))


def prove_tiles(case: Case, about: str, pattern: Heads, *, timeout_s: float = 10.0) -> tuple[Claim, ...]:
    """The claims about one tile program, for heads of `pattern`."""
    at = setting(case)
    solver = Solver(at.space)
    questions = (*tile_questions(at), Question("meaning", lambda: _misread(at, case, pattern)))
    return tuple(_decide(at, case, about, pattern, solver, question, timeout_s) for question in questions)


def _misread(at: Setting, case: Case, pattern: Heads) -> Failure:
    """The predicate and the language differ on the pair, for some head."""
    space, found = at.space, []
    pair = meaning.Pair(space, at.named["i"], at.named["j"], at.named["nk"], pattern.block, partial(_drawn, space))
    for row, terms in _by_row(case, pattern).items():
        numbers = dict(zip(case.names, row, strict=True))
        mine = every(space.equal(at.named[name], Linear(n)) for name, n in numbers.items() if name in at.named)
        literals = {name: Linear(n) for name, n in numbers.items()}
        lists = [(spec.width, *spec.lanes[numbers[spec.lane_row]]) for spec in case.program.lists]
        scope = Scope(space, literals, {}, lambda ordinal, lists=lists: space.flag("draws", *lists[ordinal]), at.scope)  # type: ignore[misc]
        live = scope.truth(case.program.live)
        for term in terms:
            meant = meaning.holds(term, pair)
            differ = some((every((live, never(meant))), every((meant, never(live)))))
            found.append(every((mine, differ)))
    return Failure((at.assumed, at.present), tuple(found))


def _by_row(case: Case, pattern: Heads) -> dict[tuple[int, ...], dict[Term, int]]:
    """The terms of the heads that have the same constants, with one head for each."""
    found: dict[tuple[int, ...], dict[Term, int]] = {}
    for head, row in case.rows:
        found.setdefault(row, {}).setdefault(pattern.terms[head], head)
    return found


def _drawn(space: Space, term: Random) -> Condition:
    return space.flag("draws", term.k, term.seed, term.lane)


def _decide(
    at: Setting, case: Case, about: str, pattern: Heads, solver: Solver, question: Question, timeout_s: float
) -> Claim:
    started = time.perf_counter()

    def left() -> float:
        return timeout_s - (time.perf_counter() - started)

    fails = question.fails()
    answer = _answer(solver, fails, left)
    status, values, shown = OPEN, None, ""
    if answer is False:
        status = PROVED
    elif isinstance(answer, Model):
        for model in _models(at, case, solver, fails, answer, left):
            values = _confirmed(at, case, pattern, question.name, model)
            if values is not None:
                status, shown = REFUTED, counterexample.picture(case, values)
                break
    return Claim(question.name, about, status, time.perf_counter() - started, values, shown)


def _answer(solver: Solver, fails: Failure, left: Callable[[], float]) -> Model | Literal[False] | None:
    """An answer to the whole question, or, if that takes long, to one case after another."""
    answer = solver.ask(fails.whole, left(), _ATTEMPTS)
    if answer is None:
        for case in fails.cases:
            answer = solver.ask((*fails.given, case), left())
            if answer is not False:
                break
    return answer


def _models(
    at: Setting, case: Case, solver: Solver, fails: Failure, first: Model, left: Callable[[], float]
) -> Iterator[Model]:
    """Answers to the question, the smallest first."""
    sizes = [value for name, value in at.named.items() if name not in case.names]
    for bound in _SMALL:
        small = every(at.space.within(value, Linear(-bound), Linear(bound)) for value in sizes)
        answer = solver.ask((*fails.whole, small), left()) if left() > 0 else None
        if isinstance(answer, Model):
            yield answer
    yield first


def _confirmed(at: Setting, case: Case, pattern: Heads, claim: str, model: Model) -> dict[str, int] | None:
    """The values of the model, for the first head for which the claim fails."""
    values = {name: model.of(value) for name, value in at.named.items()} | {"tile": model.of(at.tile)}
    for n, (head, _) in enumerate(case.rows):
        constants = case.constants(n)
        if all(values.get(name, number) == number for name, number in constants.items()):
            mine = {"h": head, **values, **constants}
            try:
                if counterexample.fails(case, claim, mine, pattern.terms[head], pattern.block):
                    return mine
            except counterexample.TooLong:
                return None
    return None

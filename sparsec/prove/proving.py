"""Checked pattern -> claims about every launch that its kernels make, each proved, refuted or left open.

Invariant: every launch and every slot map of the plans is the subject of each claim about its kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.printer import head_ranges
from sparsec.ir.tiles.program import TileProgram
from sparsec.plan.kernel import HeadClass
from sparsec.prove import counterexample, meaning
from sparsec.prove.caching import prove_cache
from sparsec.prove.claims import tile_questions
from sparsec.prove.deciding import Claim, Subject, decide
from sparsec.prove.launches import Launch, cached, launches
from sparsec.prove.linear import Linear, every, never, some
from sparsec.prove.questions import Failure, Question
from sparsec.prove.settings import Case, Kind, Setting, setting
from sparsec.prove.solve import Model, Solver
from sparsec.prove.spans import with_spans
from sparsec.prove.stated import Scope
from sparsec.sema.model import ResolvedPattern, Term


def prove(
    pattern: ResolvedPattern,
    *,
    head_dim: int = 64,
    dtype: str = "float32",
    target: str = "cpu",
    gradients: bool = True,
    timeout_s: float = 10.0,
) -> tuple[Claim, ...]:
    """The claims about `pattern` as compiled for a target name of `plan.target`, each decided within `timeout_s`
    of processor time.

    `gradients`: about the kernels of the gradients too. Raises TooManyBands or TooManyClasses.
    """
    found: list[Claim] = []
    plans = cached(pattern, head_dim, dtype, target)
    launched = launches(pattern, head_dim, dtype, target, plans)
    for case, about in merged(tuple(launch for launch in launched if gradients or not launch.of_gradients)):
        found += prove_tiles(case, about, pattern, timeout_s=timeout_s)
    return (*found, *(prove_cache(pattern, plans, timeout_s=timeout_s) if plans else ()))


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


def prove_tiles(case: Case, about: str, pattern: ResolvedPattern, *, timeout_s: float = 10.0) -> tuple[Claim, ...]:
    """The claims about one tile program, for heads of `pattern`."""
    subject, questions = questions_of(case, about, pattern)
    return tuple(decide(subject, question, timeout_s) for question in questions)


def questions_of(case: Case, about: str, pattern: ResolvedPattern) -> tuple[Subject, tuple[Question, ...]]:
    at = setting(case)
    _check_form(at, pattern.block)
    solver = Solver(at.space)
    at = with_spans(at, solver)
    subject = Subject(
        about,
        solver,
        tuple(value for name, value in at.named.items() if name not in case.names),
        lambda claim, model: _confirmed(at, case, pattern, claim, model),
        lambda values: counterexample.picture(case, values),
    )
    return subject, (*tile_questions(at), Question("meaning", lambda: _misread(at, case, pattern)))


def _check_form(at: Setting, block: int) -> None:
    """Raises InternalError for a program that is not of the form that claims rely on without asking: a list's truth is
    that of a whole tile, and a contiguous piece comes to one tile after another."""
    for spec in at.program.lists:
        if spec.block != block or block % at.program.query_tile or block % at.program.key_tile:
            raise InternalError(f"a list of draws is one of blocks of {block}, which tiles divide")
    trip = at.space.unknown("trip", 0, POSITION_LIMIT)
    for piece in (*at.program.full, *at.program.masked):
        if piece.contiguous:
            first, other = (at.scope.having(n=n).value(piece.tile) for n in (Linear(0), trip))
            if other - first != trip:
                raise InternalError("the tiles of a contiguous piece come one after another")


def _misread(at: Setting, case: Case, pattern: ResolvedPattern) -> Failure:
    """The predicate and the language differ on the pair, for some head."""
    space, found = at.space, []
    pair = meaning.Pair(
        space, at.named["i"], at.named["j"], at.named["nk"], pattern.block, partial(meaning.free, space)
    )
    for row, terms in _by_row(case, pattern).items():
        numbers = dict(zip(case.names, row, strict=True))
        mine = every(space.equal(at.named[name], Linear(n)) for name, n in numbers.items() if name in at.named)
        literals = {name: Linear(n) for name, n in numbers.items()}
        lists = [(spec.width, *spec.lanes[numbers[spec.lane_row]]) for spec in case.program.lists]
        scope = Scope(space, literals, {}, lambda ordinal, lists=lists: space.flag("draws", *lists[ordinal]), at.scope)  # type: ignore[misc]  # mypy infers no type for a default
        live = scope.truth(case.program.live)
        for term in terms:
            meant = meaning.holds(term, pair)
            differ = some((every((live, never(meant))), every((meant, never(live)))))
            found.append(every((mine, differ)))
    return Failure((at.assumed, at.present), tuple(found))


def _by_row(case: Case, pattern: ResolvedPattern) -> dict[tuple[int, ...], dict[Term, int]]:
    """The terms of the heads that have the same constants, with one head for each."""
    found: dict[tuple[int, ...], dict[Term, int]] = {}
    for head, row in case.rows:
        found.setdefault(row, {}).setdefault(pattern.terms[head], head)
    return found


def _confirmed(at: Setting, case: Case, pattern: ResolvedPattern, claim: str, model: Model) -> dict[str, int] | None:
    """The values of the model, for the first head for which the claim fails."""
    values = {name: model.of(value) for name, value in at.named.items()} | {"tile": model.of(at.tile)}
    for n, (head, _) in enumerate(case.rows):
        constants = case.constants(n)
        if all(values.get(name, number) == number for name, number in constants.items()):
            mine = {"h": head, **values, **constants}
            try:
                if counterexample.fails(case, claim, mine, pattern.terms[head], pattern.block):
                    return mine
            except counterexample.Unwalkable:
                return None
    return None

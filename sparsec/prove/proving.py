"""Checked pattern -> claims about every launch that its kernels make, each proved, refuted or left open.

Invariant: every launch and every slot map of the plans is the subject of each claim about its kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.band import InputTest
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.expr.nodes import Extent, Picked
from sparsec.ir.tiles.program import TileProgram, lets_for, names_read
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.kernel import HeadClass
from sparsec.prove import meaning, tile_counterexample
from sparsec.prove.cache_obligations import prove_cache
from sparsec.prove.decide import Claim, Counterexample, ProofSubject, decide
from sparsec.prove.formulas import LinearScope
from sparsec.prove.launches import Launch, cached, launches
from sparsec.prove.linear import Condition, Linear, Space, every, never, some
from sparsec.prove.obligations import Obligation, Query
from sparsec.prove.solve import Assignment, Solver
from sparsec.prove.strided_lemmas import with_spans
from sparsec.prove.supposed import Supposed
from sparsec.prove.tile_obligations import gathered, reach_obligations, tile_obligations
from sparsec.prove.tile_setting import BoundProgram, ProgramKind, TileSetting, tile_setting
from sparsec.sema.model import ResolvedPattern, Term
from sparsec.sema.printer import head_ranges

_OF_NUMBERS = ("counts", "int32", "signs")
"""Claims that hold or fail whatever inputs say."""


def prove(
    pattern: ResolvedPattern,
    *,
    head_dim: int = 64,
    dtype: str = "float32",
    target: str = "cpu",
    gradients: bool = True,
    timeout_s: float = 10.0,
) -> tuple[Claim, ...]:
    """The claims about `pattern` as compiled for a target name of `plan.target`; see `prove_compilation`."""
    of = Compilation(Lowered(pattern), head_dim, head_dim, dtype, target)
    return prove_compilation(of, gradients=gradients, timeout_s=timeout_s)


def prove_compilation(of: Compilation, *, gradients: bool = True, timeout_s: float = 10.0) -> tuple[Claim, ...]:
    """The claims about the plans of a compilation, each decided within `timeout_s` of processor time.

    `gradients`: about the kernels of the gradients too. Raises TooManyBands or TooManyClasses.
    """
    pattern, found = of.pattern, list[Claim]()
    plans = cached(of)
    launched = launches(of, plans)
    for bound, about in bound_programs(tuple(launch for launch in launched if gradients or not launch.of_gradients)):
        found += prove_tiles(bound, about, pattern, timeout_s=timeout_s)
    return (*found, *(prove_cache(pattern, plans, timeout_s=timeout_s) if plans else ()))


def bound_programs(found: tuple[Launch, ...]) -> Iterator[tuple[BoundProgram, str]]:
    """Each tile program once, with the constants of all the heads that any launch runs it for."""
    programs: dict[tuple[ProgramKind, TileProgram, tuple[str, ...]], BoundProgram] = {}
    names: dict[tuple[ProgramKind, TileProgram, tuple[str, ...]], list[str]] = {}
    for launch in found:
        for head_class in launch.classes:
            bound = bound_program(launch, head_class)
            key = (bound.kind, bound.program, bound.names)
            rows = programs[key].rows if key in programs else ()
            programs[key] = replace(bound, rows=tuple(dict.fromkeys(rows + bound.rows)))
            names.setdefault(key, []).append(launch.name)
    for key, whole in programs.items():
        heads = tuple(sorted({head for head, _ in whole.rows}))
        yield whole, f"{', '.join(dict.fromkeys(names[key]))}; heads {head_ranges(heads)}"


def bound_program(launch: Launch, head_class: HeadClass) -> BoundProgram:
    columns = {name: values for name, values in head_class.constants if not name.startswith("s")}
    rows = zip(*columns.values(), strict=True) if columns else [()] * len(head_class.heads)
    return BoundProgram(
        launch.kind, head_class.program, tuple(columns), tuple(zip(head_class.heads, rows, strict=True))
    )


def prove_tiles(
    bound: BoundProgram, about: str, pattern: ResolvedPattern, *, timeout_s: float = 10.0
) -> tuple[Claim, ...]:
    """The claims about one tile program, for heads of `pattern`."""
    found = []
    for subject, obligations in (obligations_of(bound, about, pattern), _of_reach(bound, about, pattern)):
        found += [decide(subject, obligation, timeout_s) for obligation in obligations]
    return tuple(found)


def obligations_of(
    bound: BoundProgram, about: str, pattern: ResolvedPattern
) -> tuple[ProofSubject, tuple[Obligation, ...]]:
    at = tile_setting(bound)
    _check_form(at, pattern.block)
    solver = Solver(at.space)
    at = with_spans(at, solver)
    subject = _subject(at, solver, bound, about, pattern)
    return subject, (*tile_obligations(at), Obligation("meaning", lambda: _misread(at, bound, pattern)))


def _of_reach(bound: BoundProgram, about: str, pattern: ResolvedPattern) -> tuple[ProofSubject, tuple[Obligation, ...]]:
    """What is claimed of lists of columns: a transposed program's rows are some of a list, wherever these lie."""
    program = bound.program
    gathers = tuple(gather for gather in program.gathers if gather.reach is not None)
    lets = lets_for(program.lets, names_read((), gathers))
    alone = replace(bound, program=replace(program, lets=lets, full=(), masked=(), gathers=gathers))
    at = tile_setting(alone, apart=bound.kind is ProgramKind.TRANSPOSED)
    subject = _subject(at, Solver(at.space), alone, f"{about}; listed columns", pattern)
    return subject, reach_obligations(at) if gathers else ()


def _subject(
    at: TileSetting, solver: Solver, bound: BoundProgram, about: str, pattern: ResolvedPattern
) -> ProofSubject:
    return ProofSubject(
        about,
        solver,
        tuple(value for name, value in at.named.items() if name not in bound.names),
        lambda claim, found: _confirmed(at, bound, pattern, claim, found),
    )


def _check_form(at: TileSetting, block: int) -> None:
    """Raises InternalError for a program that is not of the form that queries rely on without asking: a list's truth
    is that of a whole tile, and a contiguous segment comes to one tile after another."""
    for spec in at.program.lists:
        if spec.block != block or block % at.program.query_tile or block % at.program.key_tile:
            raise InternalError(f"a list of draws is one of blocks of {block}, which tiles divide")
    iteration = at.space.unknown("iteration", 0, POSITION_LIMIT)
    for segment in (*at.program.full, *at.program.masked):
        if segment.contiguous:
            first, other = (at.scope.having(n=n).value(segment.tile) for n in (Linear(0), iteration))
            if other - first != iteration:
                raise InternalError("the tiles of a contiguous segment come one after another")


def _misread(at: TileSetting, bound: BoundProgram, pattern: ResolvedPattern) -> Query:
    """The predicate and the language differ on the pair, for some head."""
    space, found = at.space, []
    pair = meaning.Pair(
        *(space, at.named["i"], at.named["j"], at.named["nk"], pattern.block),
        *(partial(meaning.free, space), partial(meaning.input_says, space)),
    )
    for row, terms in _by_row(bound, pattern).items():
        numbers = dict(zip(bound.names, row, strict=True))
        mine = every(space.equal(at.named[name], Linear(n)) for name, n in numbers.items() if name in at.named)
        literals = {name: Linear(n) for name, n in numbers.items()}
        lists = [(spec.width, *spec.lanes[numbers[spec.lane_row]]) for spec in bound.program.lists]
        scope = LinearScope(space, literals, {}, partial(_drawn, space, lists), at.scope, at.scope.picked)
        live = some((scope.truth(bound.program.live), *(scope.truth(each) for each in gathered(bound.program))))
        for term in terms:
            meant = meaning.holds(term, pair)
            differ = some((every((live, never(meant))), every((meant, never(live)))))
            found.append(every((mine, differ)))
    return Query((at.assumed, at.present), tuple(found))


def _drawn(space: Space, lists: Sequence[tuple[int, int, int]], ordinal: int) -> Condition:
    """Whether the pair's blocks are among the draws of the list, which are any: the same for equal lists."""
    return space.flag("draws", *lists[ordinal])


def _by_row(bound: BoundProgram, pattern: ResolvedPattern) -> dict[tuple[int, ...], dict[Term, int]]:
    """The terms of the heads that have the same constants, with one head for each."""
    found: dict[tuple[int, ...], dict[Term, int]] = {}
    for head, row in bound.rows:
        found.setdefault(row, {}).setdefault(pattern.terms[head], head)
    return found


def _confirmed(
    at: TileSetting, bound: BoundProgram, pattern: ResolvedPattern, claim: str, found: Assignment
) -> Counterexample | None:
    """The values of the assignment, for the first head for which the claim fails."""
    values = {name: found.of(value) for name, value in at.named.items()} | {"tile": found.of(at.tile)}
    place, tests = (
        tile_counterexample.tiled_pair(bound, values),
        bound.program.inputs if claim not in _OF_NUMBERS else (),
    )

    def said(test: InputTest, scope: Extent) -> bool:
        return found.holds(at.scope.picked(Picked(bound.program.inputs.index(test), scope)))

    supposed = Supposed(pattern.inputs, pattern.block).told(tests, said, place)
    for n, (head, _) in enumerate(bound.rows):
        constants = bound.constants(n)
        if all(values.get(name, number) == number for name, number in constants.items()):
            mine, term = {"h": head, **values, **constants}, pattern.terms[head]
            try:
                if tile_counterexample.fails(bound, claim, mine, term, supposed):
                    fails = partial(tile_counterexample.fails, bound, claim, mine, term)
                    least = supposed.least(tests, place, fails)
                    return Counterexample(mine, tile_counterexample.picture(bound, mine, least), least.lines())
            except tile_counterexample.Unwalkable:
                return None
    return None

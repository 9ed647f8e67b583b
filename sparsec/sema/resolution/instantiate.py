"""The second phase: a checked pattern with parameter values becomes, for known head counts, one term a head.

Without head counts everything that does not depend on them is still evaluated, for its problems. Invariant: a
`model.ResolvedPattern` comes back only if no error was found; equal heads then share one term object.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics.codes_meaning import Code
from sparsec.diagnostics.model import Diagnostic, Severity
from sparsec.diagnostics.source import Span
from sparsec.sema import model
from sparsec.sema.checked import Arm, CheckedFile, CheckedPattern
from sparsec.sema.checks.scope import Parameter
from sparsec.sema.node import MAX_HEADS, Depends, Node
from sparsec.sema.resolution.evaluate import boolean, evaluate, integer
from sparsec.sema.resolution.inputs import declarations, inherit_tiles, tiles_of
from sparsec.sema.resolution.score import counted_by_lists, score_of_pattern, score_statements
from sparsec.sema.resolution.values import MAX_STEPS, Budget, Evaluator, OverBudget, Place, Value
from sparsec.sema.terms import Sized

DEFAULT_BLOCK = 64
UNKNOWN_HEAD = -1


@dataclass(slots=True)
class Findings:
    """The problems of a file, each once: a second one of the same code at the same place adds nothing."""

    checked: CheckedFile
    note: str | None = None
    found: dict[tuple[str, Span], Diagnostic] = field(default_factory=dict)

    def __call__(self, code: Code, span: Span, /, **facts: object) -> None:
        if (code.code, span) not in self.found:
            notes = (self.note,) if self.note is not None and code is not codes.NO_ARM else ()
            self.found[code.code, span] = code.of(self.checked.source, span, facts, notes=notes)

    @property
    def failed(self) -> bool:
        return any(diagnostic.severity is Severity.ERROR for diagnostic in self.found.values())


@dataclass(slots=True, eq=False)
class Instance:
    """A pattern with fixed parameters: the counts it declares, its block and score, and its set by head.

    A list of slopes declares the heads too. `tiles`: of its inputs of kind `blocks`, and of those that the patterns it
    names have as far as they are evaluated; None where they are left out.
    """

    pattern: CheckedPattern
    place: Place
    block: int | None
    declared: tuple[int | None, int | None]
    score: model.Score
    sets: dict[int, Sized | None] = field(default_factory=dict)
    tiles: dict[str, tuple[int, int] | None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Instantiation:
    """The patterns of a file evaluated together: one Evaluator, each pattern once for each tuple of arguments."""

    checked: CheckedFile
    findings: Findings
    run: Evaluator
    instances: dict[tuple[str, int | None, tuple[Value | None, ...]], Instance] = field(default_factory=dict)
    of_place: dict[int, Instance] = field(default_factory=dict)


def begin(
    checked: CheckedFile, file_values: Mapping[str, Value], findings: Findings, budget: Budget | None = None
) -> Instantiation:
    """An Instantiation with the file's parameters evaluated, `file_values` in place of their defaults."""
    values: dict[str, Value | None] = dict(file_values)
    run = Evaluator(
        findings, values, lambda run, node, place: _referenced(started, node, place), {}, budget or Budget()
    )
    started = Instantiation(checked, findings, run)
    place = Place(checked.source, {}, {})
    for name, parameter in checked.parameters.items():
        if name not in values:
            values[name] = evaluate(parameter.default, place, run)
    return started


def instance_of(
    started: Instantiation,
    pattern: CheckedPattern,
    given: Mapping[str, Value | None],
    default_block: int | None = DEFAULT_BLOCK,
) -> Instance:
    """The instance of `pattern` with the `given` parameters; the others have their defaults."""
    place = Place(started.checked.source, {}, {})
    evaluate_parameters(pattern.parameters, given, place, started.run)
    key = (pattern.name, default_block, tuple(place.parameters.values()))
    if key in started.instances:
        return started.instances[key]
    started.run.budget.spend(8)
    block = default_block
    if pattern.block is not None:
        block = integer(pattern.block, place, started.run)
        if block is not None and (block not in range(16, 1025) or block & (block - 1)):
            started.run.problem(codes.BAD_BLOCK, pattern.block.span, value=block)
            block = None
    if block is not None:
        place.builtins["B"] = block
    score = score_of_pattern(pattern, place, started.run)
    instance = Instance(pattern, place, block, _declared(pattern, place, score, started), score)
    instance.tiles.update(tiles_of(pattern, place, started.run))
    started.instances[key] = instance
    started.of_place[id(place)] = instance
    return instance


def evaluate_parameters(
    parameters: tuple[Parameter, ...], given: Mapping[str, Value | None], place: Place, run: Evaluator
) -> None:
    """Fills `place.parameters` in order, so that a default may use the parameters before it."""
    for parameter in parameters:
        name = parameter.name
        place.parameters[name] = given[name] if name in given else evaluate(parameter.default, place, run)


def pattern_of(started: Instantiation, instance: Instance, heads: int, kv_heads: int) -> model.ResolvedPattern | None:
    """The pattern of `instance` for known counts; None if any error has been found."""
    pattern, place, findings = instance.pattern, instance.place, started.findings
    survey(started, instance)
    place.builtins.update(H=heads, G=kv_heads)
    terms: list[Sized | None] = []
    reached: set[int] = set()
    for head in range(heads):
        place.builtins.update(h=head, g=head // (heads // kv_heads))
        findings.note = f"for query head {head}, KV group {place.builtins['g']}"
        started.run.budget.spend()
        terms.append(_set_of(started, instance, reached))
    findings.note = None
    if all(sized is not None for sized in terms):
        for index, arm in enumerate(pattern.arms):
            if index not in reached:
                report_unreached(arm, "head", findings)
    found = [sized.term for sized in terms if sized is not None]
    if findings.failed or len(found) < heads or instance.block is None:
        return None
    inputs = declarations(pattern, place, instance.tiles)
    return model.ResolvedPattern(
        heads, kv_heads, tuple(found), instance.block, inputs, pattern.documents, instance.score
    )


def survey(started: Instantiation, instance: Instance) -> None:
    """Evaluates what does not depend on the head or the head counts, for its problems."""
    started.run.input_ordinals = {given.name: ordinal for ordinal, given in enumerate(instance.pattern.inputs)}
    anywhere = _anywhere(started, instance)
    for value in instance.pattern.lets:
        if value.depends & (Depends.HEAD | Depends.GROUP | Depends.COUNTS) == Depends.NOTHING:
            evaluate(value, anywhere.place, started.run)
    _set_of(started, anywhere, set())


def probe(started: Instantiation, instance: Instance) -> None:
    """Evaluates query head 0, which is there whatever the head counts: its problems are those of every count.

    Ends early where that takes long.
    """
    first = _anywhere(started, instance)
    known = {"h": 0, "g": 0, "H": instance.declared[0], "G": instance.declared[1]}
    first.place.builtins.update({name: value for name, value in known.items() if value is not None})
    started.run.certain = True
    started.findings.note = "for query head 0, whatever the head counts"
    budget = started.run.budget
    left, budget.steps = budget.steps, budget.probes
    with suppress(OverBudget):
        _set_of(started, first, set())
    budget.steps, budget.probes = left, max(budget.steps, 0)
    started.findings.note, started.run.certain = None, False


def _anywhere(started: Instantiation, instance: Instance) -> Instance:
    """The instance at a place where neither the head nor the head counts are known."""
    builtins = {} if instance.block is None else {"B": instance.block}
    place = Place(started.checked.source, builtins, instance.place.parameters)
    started.of_place[id(place)] = replace(instance, place=place, sets={})
    return started.of_place[id(place)]


def possible_arms(arms: tuple[Arm, ...], place: Place, run: Evaluator) -> tuple[list[int], bool]:
    """The arms that may be the first to hold at `place`, and whether one surely does."""
    possible = []
    for index, arm in enumerate(arms):
        holds = True if arm.condition is None else boolean(arm.condition, place, run)
        if holds is not False:
            possible.append(index)
        if holds:
            return possible, True
        if holds is None and run.certain:
            break
    return possible, False


def report_unreached(arm: Arm, what: str, findings: Findings) -> None:
    taken, false = f"the arms before it take every {what}", f"its condition is false for every {what} that is left"
    why = taken if arm.condition is None else false
    findings(codes.UNREACHABLE_ARM, arm.head, what=what, why=why)


def check_counts(heads: int | None, kv_heads: int | None, pattern: CheckedPattern, findings: Findings) -> bool:
    """Whether declared counts are in range and divide; reports them if not."""
    for node, count, what in ((pattern.heads, heads, "heads"), (pattern.kv_heads, kv_heads, "KV heads")):
        if node is not None and count is not None and not 1 <= count <= MAX_HEADS:
            findings(codes.COUNT_OUT_OF_RANGE, node.span, what=what, value=count)
            return False
    if heads is not None and kv_heads is not None and pattern.kv_heads is not None and heads % kv_heads:
        findings(codes.BAD_KV_HEADS, pattern.kv_heads.span, heads=heads, kv_heads=kv_heads)
        return False
    return True


def _declared(
    pattern: CheckedPattern, place: Place, score: model.Score, started: Instantiation
) -> tuple[int | None, int | None]:
    heads = integer(pattern.heads, place, started.run) if pattern.heads is not None else None
    kv_heads = integer(pattern.kv_heads, place, started.run) if pattern.kv_heads is not None else None
    if not check_counts(heads, kv_heads, pattern, started.findings):
        return None, None
    return counted_by_lists(score, pattern, heads, started.run), kv_heads


def _set_of(started: Instantiation, instance: Instance, reached: set[int]) -> Sized | None:
    """The set of the head at the instance's place, `causal` applied; the index of its arm is added to `reached`."""
    pattern, place, run = instance.pattern, instance.place, started.run
    arms, decided = possible_arms(pattern.arms, place, run)
    if run.certain and arms and not decided:
        return None
    values = [evaluate(pattern.arms[index].body, place, run) for index in arms]
    if not arms and pattern.arms:
        head = place.builtins.get("h")
        what = "any head" if head is None else f"query head {head}"
        run.problem(codes.NO_ARM, pattern.span, what=what, verb="attend")
    if len(arms) != 1 or not decided:
        return None
    reached.add(arms[0])
    value = values[0]
    if not isinstance(value, Sized) or "causal" not in pattern.statements:
        return value if isinstance(value, Sized) else None
    causal = run.terms.leaf(model.Causal(), place.line_of(pattern.statements["causal"]))
    return run.terms.intersection([value, causal])


def _referenced(started: Instantiation, node: Node, place: Place) -> Sized | None:
    """The set of a pattern named as a term, for the head at `place`; reports what the two do not agree on."""
    outer, pattern, run = started.of_place[id(place)], started.checked.patterns[str(node.value)], started.run
    given: dict[str, Value | None] = {}
    for parameter, arg in zip(pattern.parameters, node.args, strict=True):
        if arg is not None:
            given[parameter.name] = evaluate(arg, place, run)
    if None in given.values():
        return None
    inner = instance_of(started, pattern, given, outer.block)
    if not _agrees(started, inner, outer, node):
        return None
    head = place.builtins.get("h", UNKNOWN_HEAD)
    if head not in inner.sets:
        here = inner if head != UNKNOWN_HEAD else _anywhere(started, inner)
        here.place.builtins.update(
            {name: place.builtins[name] for name in ("h", "g", "H", "G") if name in place.builtins}
        )
        inner.sets[head] = _set_of(started, here, set())
    inherit_tiles(outer.pattern, outer.tiles, inner.pattern, inner.tiles, node, outer.place, started.run)
    return inner.sets[head]


def _agrees(started: Instantiation, inner: Instance, outer: Instance, node: Node) -> bool:
    names = {"inner": inner.pattern.name, "outer": outer.pattern.name}
    if inner.block is None or outer.block is None:
        return False
    sound = True
    if inner.pattern.block is not None and inner.block != outer.block:
        started.run.problem(codes.BLOCK_DISAGREES, node.span, inner_block=inner.block, outer_block=outer.block, **names)
        sound = False
    here = (outer.place.builtins.get("H"), outer.place.builtins.get("G"))
    here = here if None not in here else outer.declared
    for own, other in zip(inner.declared, here, strict=True):
        if own is not None and other is not None and own != other:
            shown = [_counts(counts) for counts in (inner.declared, here)]
            started.run.problem(
                codes.HEADS_DISAGREE, node.span, inner_heads=shown[0], outer_heads=shown[1], inner=names["inner"]
            )
            sound = False
            break
    ours, theirs = (score_statements(instance.score, instance.pattern) for instance in (outer, inner))
    for statement, said in theirs.items():
        if statement in ours and ours[statement] != said:
            started.run.problem(codes.SCORE_DISAGREES, node.span, statement=said, **names)
            sound = False
    return sound


def _counts(counts: tuple[int | None, int | None]) -> str:
    heads, kv_heads = counts
    return f"{heads} heads" if kv_heads is None else f"{heads} heads and {kv_heads} KV heads"


def over_budget(findings: Findings, span: Span) -> None:
    """Reports that the budget is spent."""
    findings.note = None
    findings(codes.TOO_MUCH_WORK, span, limit=MAX_STEPS)

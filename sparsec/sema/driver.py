"""The two phases as callers use them: `check` a file, then `instantiate` a pattern or `layers` of a model.

Invariant: `check` reports every problem it can find without head counts, and with the counts that the file itself
gives; a pattern that passes can still fail to instantiate for other parameters or counts, with the same diagnostics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from sparsec.diagnostics import codes_meaning as codes
from sparsec.diagnostics.model import CallError, Diagnostic, DiagnosticError, Severity
from sparsec.diagnostics.source import Span
from sparsec.sema.arguments import Given, split_arguments
from sparsec.sema.checked import CheckedFile, CheckedModel, CheckedPattern
from sparsec.sema.checks.file import check_structure, intact
from sparsec.sema.lint.warn import warnings_of
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.node import MAX_HEADS, MAX_LAYERS, Depends
from sparsec.sema.resolution.evaluate import evaluate, integer
from sparsec.sema.resolution.instantiate import (
    Findings,
    Instance,
    begin,
    evaluate_parameters,
    instance_of,
    over_budget,
    pattern_of,
    possible_arms,
    probe,
    report_unreached,
    survey,
)
from sparsec.sema.resolution.values import Budget, OverBudget, Place, Value
from sparsec.syntax import tree

# What can still be said within an item of which the parser left a part out, and what cannot be said beside one.
SURE_INSIDE = frozenset(
    {"E103", "E104", "E107", "E109", "E201", "E202", "E204", "E206", "E207", "E208", "E209", "E211"}
)
UNSURE_OUTSIDE = frozenset({"E101", "E203", "E205", "E301"})
# Arms out of order say nothing about which of them is reached.
MISPLACED_ARMS = frozenset({"E305", "E306", "E307"})
ARM_COVERAGE = frozenset({"E408", "E409"})
VARYING = Depends.HEAD | Depends.GROUP | Depends.COUNTS


@dataclass(frozen=True, slots=True)
class Binding:
    """A pattern's name with values for some of its own parameters and of the file's: what `layers` gives, hashable."""

    pattern: str
    values: tuple[tuple[str, Value], ...] = ()
    file_values: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class Resolved:
    """An instantiated pattern: its heads, and the warnings that hold for these parameters and counts."""

    heads: ResolvedPattern
    warnings: tuple[Diagnostic, ...]


def check(file: tree.File) -> tuple[CheckedFile, tuple[Diagnostic, ...]]:
    """The checked file and every problem found, in the order of the text."""
    structural: list[Diagnostic] = []
    checked = check_structure(file, structural)
    findings, budget = Findings(checked), Budget()
    sound = not any(diagnostic.severity is Severity.ERROR for diagnostic in structural)
    span = Span(0, 0)
    try:
        for pattern in checked.patterns.values():
            span = pattern.span
            _check_values(checked, Binding(pattern.name), findings, budget, sound, warn=True)
        for model in checked.models.values():
            span = model.span
            for binding in dict.fromkeys(_layers(checked, model, {}, {}, findings, budget) or ()):
                if binding.values:
                    _check_values(checked, binding, findings, budget, sound, warn=False)
    except OverBudget:
        over_budget(findings, span)
    found = [*structural, *findings.found.values()]
    if any(diagnostic.code in MISPLACED_ARMS for diagnostic in structural):
        found = [diagnostic for diagnostic in found if diagnostic.code not in ARM_COVERAGE]
    return checked, tuple(sorted(found, key=lambda diagnostic: (diagnostic.span.start, diagnostic.code)))


def check_damaged(file: tree.File, faults: Iterable[int]) -> tuple[Diagnostic, ...]:
    """The problems of a recovered file that are surely none of the consequences of what the parser left out.

    `faults`: where the text is wrong.
    """
    structural: list[Diagnostic] = []
    checked = check_structure(file, structural)
    broken = [item.span for item in file.items if item.broken]

    def within_broken(position: int) -> bool:
        return any(span.start <= position < span.stop for span in broken)

    named = all(map(within_broken, faults)) and not any(
        item.defined is not None and item.defined.text == tree.NAMELESS for item in file.items
    )
    unsure = UNSURE_OUTSIDE - {codes.UNKNOWN_NAME.code} if named else UNSURE_OUTSIDE

    def sure(diagnostic: Diagnostic) -> bool:
        inside = within_broken(file.source.offset_of(diagnostic.source, diagnostic.span.start))
        return diagnostic.code in SURE_INSIDE if inside else diagnostic.code not in unsure

    findings, budget, sound = Findings(checked), Budget(), intact(file)
    with suppress(OverBudget):
        for name, pattern in checked.patterns.items():
            if name in sound:
                _check_values(checked, Binding(pattern.name), findings, budget, sound=False, warn=False)
    return (*filter(sure, structural), *findings.found.values())


def instantiate(
    checked: CheckedFile, name: str, params: Mapping[str, Given], heads: int | None, kv_heads: int | None
) -> ResolvedPattern:
    """The heads of pattern `name`. Raises CallError for a wrong argument, DiagnosticError for a bad value."""
    return resolve(checked, bind(checked, name, params), heads, kv_heads).heads


def bind(checked: CheckedFile, name: str, params: Mapping[str, Given]) -> Binding:
    """Pattern `name` with parameter values; raises CallError for a wrong name or type."""
    own, of_file = split_arguments(params, checked.patterns[name].parameters, checked, f"pattern {name!r}")
    return Binding(name, tuple(own.items()), tuple(of_file.items()))


def resolve(checked: CheckedFile, binding: Binding, heads: int | None, kv_heads: int | None) -> Resolved:
    """The heads and warnings of a bound pattern; heads and kv_heads as in `Pattern.resolve`."""
    findings = Findings(checked)
    pattern = checked.patterns[binding.pattern]
    try:
        started = begin(checked, dict(binding.file_values), findings)
        instance = instance_of(started, pattern, dict(binding.values))
        _raise_errors(findings)
        counts = head_counts(pattern.name, instance.declared, heads, kv_heads)
        found = pattern_of(started, instance, *counts)
        if found is not None:
            warnings_of(pattern, found, started.run, findings, Budget())
    except OverBudget:
        over_budget(findings, pattern.span)
        found = None
    _raise_errors(findings)
    assert found is not None, "a pattern without errors has heads"
    return Resolved(found, tuple(findings.found.values()))


def declared_counts(checked: CheckedFile, binding: Binding) -> tuple[int | None, int | None, int]:
    """The heads, KV heads (None where the file leaves them to the caller) and block size of a bound pattern."""
    findings = Findings(checked)
    started = begin(checked, dict(binding.file_values), findings)
    instance = instance_of(started, checked.patterns[binding.pattern], dict(binding.values))
    _raise_errors(findings)
    assert instance.block is not None, "a pattern without errors has a block size"
    return (*instance.declared, instance.block)


def settled_heads(checked: CheckedFile, binding: Binding) -> ResolvedPattern | None:
    """The heads of a pattern of a file without errors; None where counts that matter are left to the caller."""
    started = begin(checked, dict(binding.file_values), Findings(checked))
    pattern = checked.patterns[binding.pattern]
    instance = instance_of(started, pattern, dict(binding.values))
    counts = _counts_for_check(pattern, instance)
    return None if counts is None else pattern_of(started, instance, *counts)


def head_counts(
    name: str, declared: tuple[int | None, int | None], heads: int | None, kv_heads: int | None
) -> tuple[int, int]:
    """The counts that the file and the call agree on; `kv_heads` is as many as `heads` if neither gives it."""
    for what, own, given in (("heads", declared[0], heads), ("kv_heads", declared[1], kv_heads)):
        if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
            raise CallError(f"pattern {name!r}: expected an integer for {what}, got {given!r}")
        if given is not None and not 1 <= given <= MAX_HEADS:
            raise CallError(f"pattern {name!r}: expected {what} from 1 to {MAX_HEADS}, got {given}")
        if own is not None and given is not None and own != given:
            raise CallError(f"pattern {name!r}: expected {what}={own}, as its file says, got {what}={given}")
    count = declared[0] if declared[0] is not None else heads
    if count is None:
        raise CallError(f"pattern {name!r}: expected heads=..., since its file gives none, got no heads")
    groups = declared[1] if declared[1] is not None else kv_heads if kv_heads is not None else count
    if count % groups:
        raise CallError(f"pattern {name!r}: expected kv_heads to divide heads={count}, got kv_heads={groups}")
    return count, groups


def layers(
    checked: CheckedFile, name: str, params: Mapping[str, Given], count: int | None = None
) -> tuple[Binding, ...]:
    """The bound pattern of each layer of model `name`; raises as `instantiate` does.

    `count`: how many layers, as the caller has it; CallError if the file says another number, or if neither says one.
    """
    model = checked.models[name]
    own, of_file = split_arguments(params, model.parameters, checked, f"model {name!r}")
    findings = Findings(checked)
    found: tuple[Binding, ...] | None = None
    try:
        found = _layers(checked, model, own, of_file, findings, Budget(), count)
    except OverBudget:
        over_budget(findings, model.span)
    _raise_errors(findings)
    if found is None:
        raise CallError(f"model {name!r}: expected layers=..., since its file gives none, got no layers")
    if count is not None and count != len(found):
        raise CallError(f"model {name!r}: expected layers={len(found)}, as its file says, got layers={count}")
    return found


def file_values(checked: CheckedFile, params: Mapping[str, Given]) -> dict[str, Value]:
    """The parameters of a file without errors, those of its own among `params` in place of the defaults.

    Raises CallError for a value of another type.
    """
    own = {name: value for name, value in params.items() if name in checked.parameters}
    given = split_arguments(own, (), checked, "the file")[1]
    found = begin(checked, given, Findings(checked)).run.file_parameters
    return {name: value for name, value in found.items() if value is not None}


def _layers(
    checked: CheckedFile,
    model: CheckedModel,
    own: Mapping[str, Value],
    of_file: Mapping[str, Value],
    findings: Findings,
    budget: Budget,
    given: int | None = None,
) -> tuple[Binding, ...] | None:
    """The binding of each layer, `given` of them where the file does not say; None if their number is not known."""
    started = begin(checked, of_file, findings, budget)
    place = Place(checked.source, {}, {})
    evaluate_parameters(model.parameters, own, place, started.run)
    count = integer(model.layers, place, started.run) if model.layers is not None else given
    if count is None:
        return None
    if model.layers is None and not 1 <= count <= MAX_LAYERS:
        raise CallError(f"model {model.name!r}: expected layers from 1 to {MAX_LAYERS}, got {count}")
    if model.layers is not None and not 1 <= count <= MAX_LAYERS:
        findings(codes.COUNT_OUT_OF_RANGE, model.layers.span, what="layers", value=count)
        return None
    place.builtins["L"] = count
    file_values = tuple(of_file.items())
    found: list[Binding] = []
    reached: set[int] = set()
    for layer in range(count):
        started.run.budget.spend()
        place.builtins["l"] = layer
        findings.note = f"for layer {layer}"
        arms, decided = possible_arms(model.arms, place, started.run)
        if not arms and model.arms:
            findings(codes.NO_ARM, model.span, what=f"layer {layer}", verb="use")
        if not decided:
            continue
        reached.update(arms)
        body = model.arms[arms[-1]].body
        if body.op != "pattern":
            continue
        pattern = checked.patterns[str(body.value)]
        values: list[tuple[str, Value]] = []
        for parameter, arg in zip(pattern.parameters, body.args, strict=True):
            value = evaluate(arg, place, started.run) if arg is not None else None
            if value is not None:
                values.append((parameter.name, value))
        found.append(Binding(pattern.name, tuple(values), file_values))
    findings.note = None
    if len(found) == count:
        for index, arm in enumerate(model.arms):
            if index not in reached:
                report_unreached(arm, "layer", findings)
    return tuple(found)


def _check_values(
    checked: CheckedFile, binding: Binding, findings: Findings, budget: Budget, sound: bool, warn: bool
) -> None:
    """Evaluates a pattern as far as it can be without a caller; warnings only in a file that is `sound` so far."""
    pattern, own = checked.patterns[binding.pattern], Findings(checked)
    try:
        started = begin(checked, {}, own, budget)
        instance = instance_of(started, pattern, dict(binding.values))
        counts = _counts_for_check(pattern, instance)
        if counts is None:
            survey(started, instance)
            probe(started, instance)
        else:
            found = pattern_of(started, instance, *counts)
            if found is not None and warn and sound:
                warnings_of(pattern, found, started.run, own, budget)
    finally:
        for key, diagnostic in own.found.items():
            findings.found.setdefault(key, diagnostic)


def _counts_for_check(pattern: CheckedPattern, instance: Instance) -> tuple[int, int] | None:
    """The counts that the file gives; 1 and 1 for a pattern that is the same for every head.

    None where the caller has a say that matters.
    """
    heads, kv_heads = instance.declared
    depends = Depends.NOTHING
    for arm in pattern.arms:
        depends |= arm.body.depends | (arm.condition.depends if arm.condition is not None else Depends.NOTHING)
    if heads is None:
        return None if depends & VARYING or pattern.references else (1, 1)
    if kv_heads is None and (depends & (Depends.GROUP | Depends.COUNTS) or pattern.references):
        return None
    return heads, kv_heads if kv_heads is not None else heads


def _raise_errors(findings: Findings) -> None:
    if findings.failed:
        raise DiagnosticError(tuple(findings.found.values()))

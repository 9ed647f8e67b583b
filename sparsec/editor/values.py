"""A checked Node of a text -> its value, or its values head by head, as the language writes them.

Invariant: an evaluation spends at most STEPS steps, and what it cannot settle has no value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sparsec.diagnostics.model import CallError, DiagnosticError, Severity
from sparsec.diagnostics.source import Span
from sparsec.editor.document import Document, Settings
from sparsec.editor.names import Symbol, SymbolKind
from sparsec.sema.checked import CheckedFile, CheckedModel, CheckedPattern
from sparsec.sema.driver import head_counts, layers
from sparsec.sema.model import ResolvedPattern, RunTimeLength
from sparsec.sema.node import MAX_LAYERS, Depends, Node, Type
from sparsec.sema.printer import head_ranges, term_text
from sparsec.sema.resolution.evaluate import decimal, evaluate, integer
from sparsec.sema.resolution.instantiate import (
    Findings,
    Instantiation,
    begin,
    evaluate_parameters,
    instance_of,
    pattern_of,
    survey,
)
from sparsec.sema.resolution.values import Budget, Evaluator, OverBudget, Place, RangeValue, Value
from sparsec.sema.terms import Sized
from sparsec.syntax.tree import LetStatement, ModelItem, PatternItem

STEPS = 20_000
MAX_LINES = 12  # of values that are shown
MAX_TEXT = 200  # characters of one
_OF_BLOCKS = (Type.BLOCKS, Type.BLOCK_LIST, Type.BLOCK_RANGE)
_PATTERN_VARYING = Depends.HEAD | Depends.GROUP | Depends.COUNTS


@dataclass(frozen=True, slots=True)
class Counts:
    """The head counts that values are for; `assumed`: the file leaves them open."""

    heads: int
    kv_heads: int
    assumed: bool

    def __str__(self) -> str:
        shown = f"{self.heads} heads, {self.kv_heads} KV heads"
        return f"{shown} assumed" if self.assumed else shown


@dataclass(frozen=True, slots=True)
class Values:
    """The distinct values by where they hold: `head 0..4`, or nothing if it is one value everywhere.

    `block`: the block size, of a length in blocks.
    """

    lines: tuple[tuple[str, str], ...]
    counts: Counts | None = None
    block: int | None = None


def assumed_counts(name: str, declared: tuple[int | None, int | None], settings: Settings) -> Counts | None:
    """The counts of the file, or of the settings where it has none; None if they do not fit together."""
    heads, kv_heads = declared
    if heads is not None:
        asked = None
    elif kv_heads is not None:
        asked = max(settings.heads // kv_heads, 1) * kv_heads
    else:
        asked = settings.heads
    for given in (settings.kv_heads if kv_heads is None else None, None):
        with suppress(CallError):
            return Counts(*head_counts(name, declared, asked, given), assumed=heads is None)
    return None


def resolved_pattern(document: Document, name: str, settings: Settings) -> tuple[ResolvedPattern, Counts] | None:
    """A pattern for the counts of the file or the settings; None if it has an error or takes too long."""
    checked = document.checked
    try:
        started = begin(checked, {}, Findings(checked), Budget())
        instance = instance_of(started, checked.patterns[name], {})
        counts = assumed_counts(name, instance.declared, settings)
        found = None if counts is None else pattern_of(started, instance, counts.heads, counts.kv_heads)
    except OverBudget:
        return None
    return (found, counts) if found is not None and counts is not None else None


def node_at(document: Document, item: str, name: str, span: Span) -> Node | None:
    """The Node of an item that a name at `span` stands for: with its arguments, if it is called."""
    found: Node | None = None
    pending, seen = list(_roots(document.checked, item)), set[int]()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        pending.extend(arg for arg in node.args if arg is not None)
        if not (node.span.start <= span.start and span.stop <= node.span.stop):
            continue
        own = name in (node.op, node.value) or node.op == "let"
        if own and (found is None or node.span.stop - node.span.start < found.span.stop - found.span.start):
            found = node
    return found


def node_of(document: Document, item: str, span: Span) -> Node | None:
    """The Node of an item that was made of the whole expression at `span`."""
    pending, seen = list(_roots(document.checked, item)), set[int]()
    while pending:
        node = pending.pop()
        if node.span == span and node.op not in ("error", "let"):
            return node
        if id(node) not in seen:
            seen.add(id(node))
            pending.extend(arg for arg in node.args if arg is not None)
    return None


def defined_node(document: Document, symbol: Symbol) -> Node | None:
    """The Node of the value that a parameter or a `let` is defined with."""
    checked, item = document.checked, document.names.items[symbol.item].name
    if item is None:
        return None
    owner = checked.patterns.get(item) or checked.models.get(item)
    parameters = {each.name: each for each in owner.parameters} if owner is not None else checked.parameters
    if symbol.kind is SymbolKind.LET and owner is not None:
        spans = {s.value.span for s in _lets(document, symbol) if s.name.span == symbol.span}
        return next((node for node in owner.lets if node.span in spans), None)
    return parameters[symbol.name].default if symbol.name in parameters else None


def _lets(document: Document, symbol: Symbol) -> Iterator[LetStatement]:
    for item in document.tree.items:
        if item.span.start == document.names.items[symbol.item].start and isinstance(item, PatternItem | ModelItem):
            yield from (statement for statement in item.statements if isinstance(statement, LetStatement))


def layers_of(document: Document, name: str) -> tuple[tuple[str, str], ...]:
    """The layers of a model by what they use: `0..4`, `s2(local = 8b)`.

    None in a file with errors, or that leaves their number to its caller.
    """
    if any(problem.severity is Severity.ERROR for problem in document.diagnostics):
        return ()
    try:
        bindings = layers(document.checked, name, {})
    except (CallError, DiagnosticError):
        return ()
    found: dict[str, list[int]] = {}
    for layer, binding in enumerate(bindings):
        types = {each.name: each.type for each in document.checked.patterns[binding.pattern].parameters}
        given = ", ".join(f"{key} = {value_text(value, types[key])}" for key, value in binding.values)
        found.setdefault(f"{binding.pattern}({given})" if given else binding.pattern, []).append(layer)
    return tuple((head_ranges(tuple(where)), text) for text, where in found.items())[:MAX_LINES]


def _roots(checked: CheckedFile, item: str) -> Iterator[Node]:
    if item in checked.parameters:
        yield checked.parameters[item].default
    elif item in checked.patterns:
        yield from _roots_of_pattern(checked.patterns[item])
    elif item in checked.models:
        yield from _roots_of_model(checked.models[item])


def _roots_of_pattern(pattern: CheckedPattern) -> Iterator[Node]:
    yield from (parameter.default for parameter in pattern.parameters)
    yield from pattern.lets
    for arm in pattern.arms:
        yield from (node for node in (arm.condition, arm.body) if node is not None)
    yield from (side for given in pattern.inputs for side in given.tile or ())
    single = (pattern.heads, pattern.kv_heads, pattern.block, pattern.scale, *pattern.modifiers.values())
    yield from (node for node in single if node is not None)


def _roots_of_model(model: CheckedModel) -> Iterator[Node]:
    yield from (parameter.default for parameter in model.parameters)
    yield from model.lets
    for arm in model.arms:
        yield from (node for node in (arm.condition, arm.body) if node is not None)
    if model.layers is not None:
        yield model.layers


def values_of(document: Document, item: str, node: Node, settings: Settings) -> Values | None:
    """The values of a Node of an item; None where it has none that is known."""
    checked = document.checked
    try:
        started = begin(checked, {}, Findings(checked), Budget(STEPS, STEPS))
        if item in checked.patterns:
            return _in_pattern(started, checked.patterns[item], node, settings)
        if item in checked.models:
            return _in_model(started, checked.models[item], node)
        return _one(_value(node, Place(checked.source, {}, {}), started.run), node)
    except OverBudget:
        return None


def _in_pattern(started: Instantiation, pattern: CheckedPattern, node: Node, settings: Settings) -> Values | None:
    instance = instance_of(started, pattern, {})
    survey(started, instance)
    names = [given.name for given in pattern.inputs]
    block = instance.block if node.type is Type.BLOCKS else None
    if not node.depends & _PATTERN_VARYING and node.op != "pattern":
        found = _one(_value(node, instance.place, started.run), node, names)
        return found and replace(found, block=block)
    counts = assumed_counts(pattern.name, instance.declared, settings)
    if counts is None:
        return None
    place, per_group = instance.place, counts.heads // counts.kv_heads
    place.builtins.update(H=counts.heads, G=counts.kv_heads)

    def at(head: int) -> Value | float | None:
        place.builtins.update(h=head, g=head // per_group)
        return _value(node, place, started.run)

    found = _each(at, counts.heads, "head", node, names)
    return found and replace(found, counts=counts, block=block)


def _in_model(started: Instantiation, model: CheckedModel, node: Node) -> Values | None:
    place = Place(started.checked.source, {}, {})
    evaluate_parameters(model.parameters, {}, place, started.run)
    if node.op == "pattern":
        return None
    layers = integer(model.layers, place, started.run) if model.layers is not None else None
    if layers is not None:
        place.builtins["L"] = layers
    if not node.depends & Depends.LAYER:
        return _one(_value(node, place, started.run), node)
    if layers is None or not 1 <= layers <= MAX_LAYERS:
        return None

    def at(layer: int) -> Value | float | None:
        place.builtins["l"] = layer
        return _value(node, place, started.run)

    return _each(at, layers, "layer", node, ())


def _value(node: Node, place: Place, run: Evaluator) -> Value | float | None:
    return decimal(node, place, run) if node.type is Type.DECIMAL else evaluate(node, place, run)


def _one(value: Value | float | None, node: Node, names: Sequence[str] = ()) -> Values | None:
    return None if value is None else Values((("", value_text(value, node.type, names)),))


def _each(
    at: Callable[[int], Value | float | None], count: int, what: str, node: Node, names: Sequence[str]
) -> Values | None:
    """The distinct values, in the order of their first index."""
    found: dict[str, list[int]] = {}
    for index in range(count):
        value = at(index)
        if value is None:
            return None
        found.setdefault(value_text(value, node.type, names), []).append(index)
    if len(found) == 1:
        return Values((("", next(iter(found))),))
    lines = [(f"{what} {head_ranges(tuple(where))}", text) for text, where in found.items()]
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], ("...", f"{len(lines) - MAX_LINES + 1} more")]
    return Values(tuple(lines))


def value_text(value: Value | float, type_: Type, names: Sequence[str] = ()) -> str:
    """A value as the language writes it, cut to MAX_TEXT characters; `names`: of the inputs."""
    text = _written(value, "b" if type_ in _OF_BLOCKS else "", names)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."


def _written(value: Value | float | None, unit: str, names: Sequence[str]) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value}{unit}"
        case float():
            return repr(value)
        case tuple():
            shown = [_written(item, unit, names) for item in value[:MAX_TEXT]]
            return f"[{', '.join(shown)}]"
        case RangeValue(start, stop):
            return f"{_written(start, unit, names)} .. {_written(stop, unit, names)}".strip()
        case RunTimeLength(ordinal):
            return names[ordinal] if ordinal < len(names) else "a run-time length"
        case Sized(term):
            return term_text(term, names)

"""The score statements of a checked pattern -> its `model.Score`, by the entries of `sema.modifiers`.

Invariant: every number of a score that comes back is one that the kernels can compute with; a wrong one is reported.
"""

from __future__ import annotations

from sparsec.diagnostics import codes_meaning as codes
from sparsec.sema.checked import CheckedPattern
from sparsec.sema.model import Score
from sparsec.sema.modifiers import (
    ENTRIES,
    LARGEST,
    SMALLEST,
    Modifier,
    ModifierEntry,
    Takes,
    given_of,
    modifier_of,
    statement_text,
)
from sparsec.sema.node import MAX_HEADS, Node
from sparsec.sema.resolution.evaluate import decimal, evaluate
from sparsec.sema.resolution.values import Evaluator, Place, RangeValue


def score_of_pattern(pattern: CheckedPattern, place: Place, run: Evaluator) -> Score:
    """What the score statements say; a number in error is left out."""
    scale = None if pattern.scale is None else _number("the scale", SMALLEST, pattern.scale, place, run)
    modifiers: list[Modifier] = []
    for keyword, node in pattern.modifiers.items():
        entry = ENTRIES[keyword]
        if node is None:
            modifiers.append(modifier_of(keyword, None))
        elif entry.takes is Takes.INPUT:
            modifiers.extend(modifier_of(keyword, ordinal) for ordinal in _ordinals(node, pattern))
        elif entry.takes is Takes.NUMBERS_OF_HEADS:
            modifiers.append(modifier_of(keyword, _numbers(entry, node, place, run)))
        elif (number := _number(f"the {entry.number}", entry.least, node, place, run)) is not None:
            modifiers.append(modifier_of(keyword, number))
    return Score(scale, tuple(modifiers))


def _ordinals(node: Node, pattern: CheckedPattern) -> list[int]:
    """Of the input that a Node names, through any number of `let`; none for a Node in error."""
    while node.op == "let" and node.args[0] is not None:
        node = node.args[0]
    return [ordinal for ordinal, given in enumerate(pattern.inputs) if node.op == "input" and given.name == node.value]


def _number(what: str, least: float, node: Node, place: Place, run: Evaluator) -> float | None:
    value = decimal(node, place, run)
    if value is not None and not least <= value <= LARGEST:
        wanted = f"a number from {least} to {LARGEST}, such as 1/128"
        run.problem(codes.BAD_SCORE, node.span, what=what, value=value, wanted=wanted)
        return None
    return value


def _numbers(entry: ModifierEntry, node: Node, place: Place, run: Evaluator) -> tuple[float, ...] | None:
    """The numbers of a list, one a head; None where one is wrong."""
    value = evaluate(node, place, run)
    if not isinstance(value, tuple):
        return None
    numbers: list[float] = []
    for item in value:
        if isinstance(item, RangeValue):
            run.problem(codes.WRONG_TYPE, node.span, role=f"a {entry.number}", expected="a decimal", actual="a range")
            return None
        numbers.append(float(item))
    for head, number in enumerate(numbers):
        if not entry.least <= number <= LARGEST:
            least = "0 or a number up to" if entry.least == 0 else f"a number from {entry.least} to"
            what, wanted = f"the {entry.number} of head {head}", f"{least} {LARGEST}: {entry.meaning}"
            run.problem(codes.BAD_SCORE, node.span, what=what, value=number, wanted=wanted)
            return None
    return tuple(numbers)


def counted_by_lists(score: Score, pattern: CheckedPattern, heads: int | None, run: Evaluator) -> int | None:
    """`heads`, or where the pattern does not say them the length of a list with a number for each head."""
    for modifier in score.modifiers:
        entry, given = modifier.entry, given_of(modifier)
        node = pattern.modifiers[entry.keyword]
        if node is None or not isinstance(given, tuple) or len(given) == heads:
            continue
        if heads is None and pattern.heads is not None:  # they are in error
            continue
        if heads is None and 1 <= len(given) <= MAX_HEADS:
            heads = len(given)
            continue
        expected = f"1 to {MAX_HEADS} heads" if heads is None else f"{heads} head{'s' * (heads != 1)}"
        alone = f", or write `{entry.keyword}` alone for {entry.alone}" if entry.alone else ""
        facts = {"statement": entry.keyword, "number": entry.number, "count": len(given), "alone": alone}
        run.problem(codes.NUMBERS_OF_HEADS, node.span, heads=expected, **facts)
    return heads


def score_statements(score: Score, pattern: CheckedPattern) -> dict[str, str]:
    """The score's statements by their keywords, a long list cut short."""
    scale = {} if score.scale is None else {"scale": statement_text("scale", score.scale)}
    given = {modifier.entry.keyword: given_of(modifier) for modifier in score.modifiers}
    names = [own.name for own in pattern.inputs]
    return scale | {keyword: statement_text(keyword, value, names)[:66] for keyword, value in given.items()}

"""Terms of heads, and of sequences, that differ in numbers alone -> one `.sparse` text with these numbers as
expressions, or as an input.

Invariant: the text is of keywords, numbers, `h`, `g` and the name of one input; who reads it checks that it means the
terms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sparsec.integrations.flex.terms import term_shape
from sparsec.sema import model
from sparsec.sema.arms import alike, among
from sparsec.sema.model import Documents, Edge, Term
from sparsec.sema.printer import term_text

FIRST_MARK = 1_900_000_000
"""Numbers from here on stand for the expressions that take their places."""
LENGTH_NAME = "length"
"""Of the input that differs between sequences."""


@dataclass(frozen=True, slots=True)
class Number:
    """An integer of a term: its value, the leaf that has it, and the leaf's field."""

    value: int
    leaf: Term
    field: str


def term_numbers(term: Term) -> list[Number]:
    """In the order in which `_rebuilt` comes upon them."""
    found: list[Number] = []

    def noted(number: Number) -> int:
        found.append(number)
        return number.value

    _rebuilt(term, noted)
    return found


def _rebuilt(term: Term, of: Callable[[Number], int]) -> Term:
    match term:
        case model.Union(terms) | model.Intersection(terms):
            return type(term)(tuple(_rebuilt(each, of) for each in terms))
        case model.Difference(left, right):
            return model.Difference(_rebuilt(left, of), _rebuilt(right, of))
        case model.Complement(inner):
            return model.Complement(_rebuilt(inner, of))
    changed: dict[str, Any] = {}
    for each in fields(term):
        value = getattr(term, each.name)
        if isinstance(value, Edge):
            changed[each.name] = Edge(of(Number(value.at, term, each.name)), value.from_end)
        elif isinstance(value, int) and not isinstance(value, bool):
            changed[each.name] = of(Number(value, term, each.name))
    return replace(term, **changed) if changed else term


def _spoken(term: Term, expressions: dict[int, str]) -> str:
    """The term's text with expressions in place of some of its numbers, by their places."""
    place = -1

    def marked(number: Number) -> int:
        nonlocal place
        place += 1
        return FIRST_MARK + place if place in expressions else number.value

    text = term_text(_rebuilt(term, marked))

    def said(mark: re.Match[str]) -> str:
        expression = expressions[int(mark[1]) - FIRST_MARK]
        return f"({expression}) * 1b" if mark[2] else expression

    return re.sub(r"\b(19\d{8})(b?)", said, text)


def pattern_text(
    name: str,
    terms: Sequence[Term],
    groups: int | None,
    *,
    block: int | None = None,
    causal: bool = False,
    documents: Documents = Documents.NONE,
    length: int | None = None,
    by_arms: bool = False,
) -> str:
    """A file with one pattern: `terms` of each head, within `causal` and documents. length: which number is the input's
    (of the only term). by_arms: heads that differ have arms of their own in any case."""
    heads = len(terms)
    lines = [f"heads {heads}" + ("" if groups is None else f" kv {groups}")] if len(set(terms)) > 1 else []
    lines += [f"block {block}"] if block is not None else []
    lines += [f"input {LENGTH_NAME} : length"] if length is not None else []
    lines += [documents.value] if documents is not Documents.NONE else []
    lines += ["causal"] if causal else []
    if len(set(terms)) == 1:
        expressions = {} if length is None else {length: LENGTH_NAME}
    else:
        found = None if by_arms else _by_head(terms, heads // (groups or heads))
        if found is None:
            arms = [f"where {among('h', members)} attend {term_text(term)}" for term, members in alike(terms).items()]
            return _item(name, [*lines, *arms])
        expressions = found
    return _item(name, [*lines, f"attend {_spoken(terms[0], expressions)}"])


def _item(name: str, lines: Sequence[str]) -> str:
    return "\n".join([f"pattern {name} {{", *(f"    {line}" for line in lines), "}", ""])


def _by_head(terms: Sequence[Term], heads_a_group: int) -> dict[int, str] | None:
    """For terms of one shape the numbers that differ, by their places, each as an expression of h or g."""
    if len({term_shape(term) for term in terms}) > 1:
        return None
    found: dict[int, str] = {}
    for place, of_heads in enumerate(zip(*map(term_numbers, terms), strict=True)):
        values = [number.value for number in of_heads]
        if len(set(values)) == 1:
            continue
        periods = {getattr(number.leaf, "period", 0) for number in of_heads} if of_heads[0].field == "phase" else {0}
        expression = _expression(values, periods.pop() if len(periods) == 1 else 0, heads_a_group)
        if expression is None:
            return None
        found[place] = expression
    return found


def _expression(values: Sequence[int], period: int, heads_a_group: int) -> str | None:
    """`a * h + b` or `a * g + b` with these values, modulo the period if there is one."""
    for name, of in (("h", 1), ("g", heads_a_group)):
        if of == len(values) or (name == "g" and of == 1):
            continue
        step = values[of] - values[0]
        for factor in sorted({step, step - period, step % period} if period else {step}, key=abs):
            said = [values[0] + factor * (head // of) for head in range(len(values))]
            if all((s - v) % period == 0 if period else s == v for s, v in zip(said, values, strict=True)):
                start = values[0]
                times = {1: name, -1: f"-{name}"}.get(factor, f"{factor} * {name}")
                if start == 0:
                    return times
                return f"{start} - {times[1:]}" if times.startswith("-") else f"{start} + {times}"
    return None

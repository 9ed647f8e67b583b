"""The modifiers of the score, one class each: what its statement takes, what its value is, what a kernel has to do.

A backend has a rule for each class, chosen by `match`. Invariant: the keyword of an entry is the statement's word in
the grammar, and the order of `KINDS` is that in which modifiers change a score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import ClassVar, assert_never, get_args

SMALLEST, LARGEST = 1e-30, 1e30
"""Of a number that a score statement takes: the kernels compute in float32."""

Given = float | tuple[float, ...] | None
"""What a statement gives: its number, its list, the ordinal of its input, or nothing."""


class Takes(Enum):
    """What stands behind the keyword of a statement."""

    NOTHING = "nothing"
    NUMBER = "a number"
    NUMBERS_OF_HEADS = "nothing, or a list of numbers, one a head"
    INPUT = "the name of an input of weights"


@dataclass(frozen=True, slots=True)
class ModifierEntry:
    """What the language and the compiler know of a modifier.

    `per_pair`: it changes the score of each pair; otherwise the soft-max's sum of a row. `needs_positions`: the change
    depends on i and j. `learned`: it has a parameter [heads], which a call passes as `sink`. `least`: the smallest
    number it takes. `number`, `meaning`: what one of its numbers is, and what it does. `alone`: the numbers that it has
    without a list.
    """

    keyword: str
    takes: Takes
    per_pair: bool
    needs_positions: bool = False
    learned: bool = False
    least: float = 0.0
    number: str = ""
    meaning: str = ""
    alone: str = ""


@dataclass(frozen=True, slots=True)
class Softcap:
    """A score s becomes x * tanh(s / x)."""

    x: float
    entry: ClassVar[ModifierEntry] = ModifierEntry(
        "softcap", Takes.NUMBER, per_pair=True, least=SMALLEST, number="softcap"
    )


@dataclass(frozen=True, slots=True)
class Alibi:
    """A score loses the slope of its head, at least 0, for each token between query and key; None: those published."""

    slopes: tuple[float, ...] | None = None
    entry: ClassVar[ModifierEntry] = ModifierEntry(
        "alibi",
        Takes.NUMBERS_OF_HEADS,
        per_pair=True,
        needs_positions=True,
        number="slope",
        meaning="what a score loses for each token of distance",
        alone="the published ones",
    )

    def of_heads(self, heads: int) -> tuple[float, ...]:
        """The slope of each of `heads` query heads."""
        return published_slopes(heads) if self.slopes is None else self.slopes


@dataclass(frozen=True, slots=True)
class LearnedSink:
    """The sum of each row has one more logit, the head's, with no value."""

    entry: ClassVar[ModifierEntry] = ModifierEntry("learned_sink", Takes.NOTHING, per_pair=False, learned=True)


@dataclass(frozen=True, slots=True)
class KeyBias:
    """A score gains the weight of its key: `ordinal` indexes ResolvedPattern.inputs, whose kind there is WEIGHTS."""

    ordinal: int
    entry: ClassVar[ModifierEntry] = ModifierEntry("key_bias", Takes.INPUT, per_pair=True)


Modifier = Softcap | Alibi | KeyBias | LearnedSink
KINDS: tuple[Callable[..., Modifier], ...] = get_args(Modifier)
"""The class of each modifier, in the order in which they change a score."""
ENTRIES: dict[str, ModifierEntry] = {kind.entry.keyword: kind.entry for kind in get_args(Modifier)}
"""By the keyword of the statement, in that order."""
OF_NUMBERS = tuple(each.keyword for each in ENTRIES.values() if each.takes in (Takes.NUMBER, Takes.NUMBERS_OF_HEADS))
"""Keywords of the statements that take numbers."""


def modifier_of(keyword: str, given: Given) -> Modifier:
    """The modifier that a statement stands for."""
    kind = KINDS[tuple(ENTRIES).index(keyword)]
    return kind() if ENTRIES[keyword].takes is Takes.NOTHING else kind(given)


def given_of(modifier: Modifier) -> Given:
    """What the modifier's statement gives: `modifier_of` makes the same modifier of it."""
    values: list[Given] = [getattr(modifier, field.name) for field in fields(modifier)]
    return values[0] if values else None


def part_of(modifier: Modifier, heads: int, part: slice) -> Modifier:
    """The modifier, as it is for `heads` query heads, of a part of them."""
    match modifier:
        case Alibi():
            return Alibi(modifier.of_heads(heads)[part])
        case Softcap() | KeyBias() | LearnedSink():
            return modifier
        case _:
            assert_never(modifier)


def decimal_places() -> str:
    """In words, where a decimal may stand."""
    entries = ENTRIES.values()
    numbers = [f"`{entry.keyword}`" for entry in entries if entry.takes is Takes.NUMBER]
    lists = [f"a list of {e.number}s for `{e.keyword}`" for e in entries if e.takes is Takes.NUMBERS_OF_HEADS]
    *others, last = ("`scale`", *numbers, *lists)
    return f"{', '.join(others)} and {last}"


def statement_text(keyword: str, given: Given, names: Sequence[str] = ()) -> str:
    """The statement, with its numbers as Python prints them; `names`: those of the inputs, by ordinal."""
    if given is None:
        return keyword
    if isinstance(given, int) and keyword == KeyBias.entry.keyword:
        return f"{keyword} {names[given] if names else f'input{given}'}"
    return f"{keyword} [{', '.join(map(repr, given))}]" if isinstance(given, tuple) else f"{keyword} {given!r}"


def published_slopes(heads: int) -> tuple[float, ...]:
    """ALiBi's slopes (Press et al. 2022): for n heads, n a power of two, the powers of 2^(-8/n); for another number
    those of the largest power of two below it, then every other one of twice as many."""
    n = 1 << (heads.bit_length() - 1)
    first = tuple(2.0 ** (-8 * (t + 1) / n) for t in range(n))
    return first + tuple(2.0 ** (-8 * (2 * t + 1) / (2 * n)) for t in range(heads - n))

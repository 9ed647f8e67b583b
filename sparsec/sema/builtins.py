"""The built-in names of the language: its terms, functions and values, and what each of them takes.

Invariant: the fields of a term's class are the values of its slots in order (a range gives two, its ends), and then
`blocks` if it keeps lengths in blocks. All that reads, checks, prints or records a term goes by its slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, assert_never

from sparsec.sema import model
from sparsec.sema.model import Leaf
from sparsec.sema.node import LIMIT, Depends

MAX_DRAWS = 4096
"""Of `random`, for one query block."""


class SlotKind(Enum):
    """What an argument of a built-in term is."""

    LENGTH = "tokens or blocks"
    SAME = "a length in the unit of the first argument"
    PHASE = "the same, or a plain integer; kept modulo the first argument"
    COUNT = "a number of blocks, with or without the `b`"
    INTEGER = "a plain integer"
    RANGE = "a range of tokens or blocks"


@dataclass(frozen=True, slots=True)
class Slot:
    """One argument of a built-in term. `least` is the smallest value, `most` the largest, in its own unit.

    An `optional` one is 0 if left out, or the query head with `of_head`. `told`: it is printed even if it is 0. A call
    gives one that is `named`, and every optional one, by its name.
    `run_time`: a RunTimeLength may stand there, which may be 0.
    """

    name: str
    takes: SlotKind
    least: int = 0
    most: int = LIMIT
    optional: bool = False
    of_head: bool = False
    told: bool = False
    named: bool = False
    run_time: bool = False

    @property
    def by_name(self) -> bool:
        """Whether a call gives it by its name alone."""
        return self.named or self.optional


@dataclass(frozen=True, slots=True)
class BuiltInTerm:
    """A term: its class in `sema.model`, and its arguments."""

    kind: type[Leaf]
    slots: tuple[Slot, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The fields of the class."""
        return tuple(field.name for field in fields(self.kind))

    def of(self, *values: Any) -> Leaf:
        """The term whose fields have these values."""
        make: Callable[..., Leaf] = self.kind
        return make(*values)


@dataclass(frozen=True, slots=True)
class BuiltInFunction:
    """A function of numbers: the names of its arguments, for hints; `more` may follow."""

    arguments: tuple[str, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class BuiltInValue:
    """A name with a value: what that depends on, and what it is."""

    depends: int
    meaning: str


_N = Slot("n", SlotKind.LENGTH, 1)
_PERIODIC = (Slot("s", SlotKind.LENGTH, 1), Slot("phase", SlotKind.PHASE, -LIMIT, optional=True))
_RANGE = (Slot("range", SlotKind.RANGE),)

TERMS: dict[str, BuiltInTerm] = {
    "full": BuiltInTerm(model.Full),
    "none": BuiltInTerm(model.Nothing),
    "causal": BuiltInTerm(model.Causal),
    "window": BuiltInTerm(
        model.Window, (Slot("n", SlotKind.LENGTH, 1, run_time=True), Slot("ahead", SlotKind.SAME, optional=True))
    ),
    "sink": BuiltInTerm(model.Sink, (Slot("n", SlotKind.LENGTH, run_time=True),)),
    "stride": BuiltInTerm(model.Stride, _PERIODIC),
    "dilated": BuiltInTerm(model.Dilated, _PERIODIC),
    "chunk": BuiltInTerm(
        model.Chunk,
        (_N, Slot("back", SlotKind.INTEGER, optional=True), Slot("ahead", SlotKind.INTEGER, optional=True)),
    ),
    "near2d": BuiltInTerm(
        model.Near2d,
        (
            Slot("width", SlotKind.INTEGER, 1, named=True),
            Slot("rows", SlotKind.INTEGER, named=True),
            Slot("columns", SlotKind.INTEGER, named=True),
        ),
    ),
    "columns": BuiltInTerm(model.Columns, _RANGE),
    "rows": BuiltInTerm(model.Rows, _RANGE),
    "global": BuiltInTerm(model.Global, (Slot("n", SlotKind.LENGTH),)),
    "random": BuiltInTerm(
        model.Random,
        (
            Slot("k", SlotKind.COUNT, 1, MAX_DRAWS),
            Slot("seed", SlotKind.INTEGER, -LIMIT, optional=True, told=True),
            Slot("lane", SlotKind.INTEGER, -LIMIT, optional=True, of_head=True, told=True),
        ),
    ),
}

FUNCTIONS: dict[str, BuiltInFunction] = {
    "min": BuiltInFunction(("a", "b"), more=True),
    "max": BuiltInFunction(("a", "b"), more=True),
    "tokens": BuiltInFunction(("x",)),
}

VALUES: dict[str, BuiltInValue] = {
    "h": BuiltInValue(Depends.HEAD, "the query head"),
    "g": BuiltInValue(Depends.GROUP, "the KV group"),
    "H": BuiltInValue(Depends.COUNTS, "the number of query heads"),
    "G": BuiltInValue(Depends.COUNTS, "the number of KV heads"),
    "B": BuiltInValue(Depends.BLOCK, "the block size"),
    "l": BuiltInValue(Depends.LAYER, "the layer"),
    "L": BuiltInValue(Depends.LAYERS, "the number of layers"),
}


def usage(name: str) -> str:
    """How a built-in term or function is written, for hints: `window(n, ahead = ...)`."""
    if name in FUNCTIONS:
        return f"{name}({', '.join(FUNCTIONS[name].arguments)})"
    parts = [
        f"{slot.name} = ..." if slot.by_name else "a..b" if slot.takes is SlotKind.RANGE else slot.name
        for slot in TERMS[name].slots
    ]
    return f"{name}({', '.join(parts)})" if parts else name


End = model.Edge | model.RunTimeLength | None
Argument = int | model.RunTimeLength | tuple[End, End]
"""The value of a slot: a number, or the ends of a range."""


def built(name: str, arguments: Sequence[Argument], *, in_blocks: bool, block: int | None) -> Leaf | None:
    """The term of settled arguments, lengths in blocks with `in_blocks`; None for want of a known block size."""
    term = TERMS[name]
    values: list[Any] = []
    for slot, argument in zip(term.slots, arguments, strict=True):
        if isinstance(argument, tuple):
            values += argument
        elif slot.takes is SlotKind.PHASE:
            period = arguments[0]
            assert isinstance(period, int) and isinstance(argument, int), (
                "a phase follows the length that it is taken modulo"
            )
            values.append(argument % period)
        else:
            values.append(argument)
    if "blocks" in term.names:
        return term.of(*values, in_blocks)
    if in_blocks and term.slots and term.slots[0].takes is SlotKind.LENGTH:
        if block is None:
            return None
        return term.of(values[0] * block, *values[1:])
    return term.of(*values)


def printed(leaf: Leaf, names: Sequence[str] = ()) -> str:
    """The canonical text of a leaf: keywords and final integers, nothing that a user wrote but `names`.

    Those are of the inputs; without them the input of ordinal 0 is `input0`.
    """

    def of_input(ordinal: int) -> str:
        return names[ordinal] if names else f"input{ordinal}"

    def end(value: End) -> str:
        match value:
            case None:
                return ""
            case model.RunTimeLength(ordinal):
                return of_input(ordinal)
            case model.Edge(at):
                return f"{at}{unit}"
            case _:
                assert_never(value)

    if isinstance(leaf, model.Input):
        return of_input(leaf.ordinal)
    name = name_of_term(leaf)
    unit = "b" if getattr(leaf, "blocks", False) else ""
    values = iter([getattr(leaf, field) for field in TERMS[name].names])
    parts = []
    for slot in TERMS[name].slots:
        value = next(values)
        own = unit if slot.takes in (SlotKind.LENGTH, SlotKind.SAME) else ""
        if slot.takes is SlotKind.RANGE:
            parts.append("..".join(map(end, (value, next(values)))))
        elif isinstance(value, model.RunTimeLength):
            parts.append(of_input(value.ordinal))
        elif not slot.by_name:
            parts.append(f"{value}{own}")
        elif value or slot.told or not slot.optional:
            parts.append(f"{slot.name}={value}{own}")
    return f"{name}({', '.join(parts)})" if parts else name


def name_of_term(leaf: Leaf) -> str:
    """The name of a built-in term, by its class."""
    return next(name for name, term in TERMS.items() if term.kind is type(leaf))

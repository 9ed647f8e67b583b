"""A resolved pattern to plain data for JSON, and back: how a pattern leaves the process that read it.

Invariant: what `heads_of` accepts keeps every invariant of `sema.model` and the limits of the language, whoever wrote
the data; it raises ValueError for anything else. Of a user's text only the names of inputs leave, which calls go by.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sparsec.sema import model
from sparsec.sema.builtins import TERMS, BuiltInTerm, End, Slot, SlotKind, printed
from sparsec.sema.checks.scope import reserved
from sparsec.sema.inputs import TERM_KINDS, UNITS
from sparsec.sema.model import (
    Documents,
    Edge,
    InputDecl,
    InputKind,
    InputUnit,
    Leaf,
    Origin,
    ResolvedPattern,
    RunTimeLength,
    Score,
    Term,
)
from sparsec.sema.modifiers import ENTRIES, LARGEST, SMALLEST, Given, ModifierEntry, Takes, given_of, modifier_of
from sparsec.sema.node import LIMIT, MAX_DEPTH, MAX_HEADS
from sparsec.sema.resolution.values import MAX_LEAVES, MAX_STEPS
from sparsec.syntax.lexer import MAX_TOKENS, MAX_WORD

_DEPTH = MAX_DEPTH + 2  # a leaf is two levels of a term, and `causal` is met around the whole of it
_LEAVES = MAX_LEAVES + 1
_ALL_LEAVES = 4 * MAX_STEPS  # of all heads together: evaluation pays one step for four
_TERMS: Mapping[str, BuiltInTerm] = {term.kind.__name__: term for term in TERMS.values()}
"""By the names of their classes."""


def heads_data(pattern: ResolvedPattern) -> dict[str, Any]:
    """`pattern` as lists, numbers and strings; equal terms once.

    `nodes`: each a kind and its values, where a number in the place of a term is an earlier node; `terms`: the node of
    each head. An end of a range is a number, or the ordinal of an input in a list; so is a run-time length.
    """
    nodes: dict[str, int] = {}
    rows: list[list[Any]] = []
    made: dict[int, int] = {}  # of a term's identity: `pattern` keeps them all alive

    def node(term: Term) -> int:
        if id(term) not in made:
            row = _row(term, node)
            number = nodes.setdefault(repr(row), len(rows))
            if number == len(rows):
                rows.append(row)
            made[id(term)] = number
        return made[id(term)]

    terms = [node(term) for term in pattern.terms]
    return {
        "heads": pattern.heads,
        "kv_heads": pattern.kv_heads,
        "block": pattern.block,
        "documents": pattern.documents.value,
        "inputs": inputs_data(pattern.inputs),
        "score": score_data(pattern.score),
        "nodes": rows,
        "terms": terms,
    }


def _row(term: Term, node: Callable[[Term], int]) -> list[Any]:
    match term:
        case model.Union(terms) | model.Intersection(terms):
            return [type(term).__name__, [node(each) for each in terms]]
        case model.Difference(left, right):
            return ["Difference", node(left), node(right)]
        case model.Complement(inner):
            return ["Complement", node(inner)]
        case model.At(inner, origin):
            return ["At", node(inner), origin.line]
    values = (getattr(term, field.name) for field in fields(term))
    return [type(term).__name__, *map(_value, values)]


def _value(value: Edge | RunTimeLength | int | None) -> Any:
    match value:
        case Edge(at):
            return at
        case RunTimeLength(ordinal):
            return [ordinal]
        case _:
            return value


def heads_of(data: Any) -> ResolvedPattern:
    """What `heads_data` was made from. Raises ValueError for other data."""
    names = ("heads", "kv_heads", "block", "documents", "inputs", "score", "nodes", "terms")
    given = _mapping("a pattern", data, names)
    heads = _integer("heads", given["heads"], 1, MAX_HEADS)
    kv_heads = _integer("kv_heads", given["kv_heads"], 1, heads)
    block = _integer("block", given["block"], 16, 1024)
    if heads % kv_heads or block & (block - 1):
        raise ValueError(f"expected kv_heads that divide {heads} and a power of 2, got {kv_heads} and {block}")
    documents = Documents(given["documents"])
    inputs = inputs_of(given["inputs"])
    if documents is not Documents.NONE and any(decl.kind is InputKind.TREE for decl in inputs):
        raise ValueError("expected no tree in packed documents")
    built = _Nodes(block, inputs)
    for row in _list("nodes", given["nodes"]):
        built.add(row)
    numbers = [_integer("a term", number, 0, len(built.terms) - 1) for number in _list("terms", given["terms"])]
    if len(numbers) != heads or sum(built.leaves[n] for n in set(numbers)) > _ALL_LEAVES:
        raise ValueError(f"expected {heads} terms of at most {_ALL_LEAVES} leaves together, got {len(numbers)}")
    return ResolvedPattern(
        heads,
        kv_heads,
        tuple(built.terms[number] for number in numbers),
        block,
        inputs,
        documents,
        score_of(given["score"], heads, inputs),
    )


class _Nodes:
    """The terms read so far. Each refers to earlier ones alone, so there is no cycle; leaves count as in a tree."""

    def __init__(self, block: int, inputs: Sequence[InputDecl]) -> None:
        self.block = block
        self.inputs = inputs
        self.terms: list[Term] = []
        self.leaves: list[int] = []
        self.depths: list[int] = []

    def add(self, row: Any) -> None:
        kind, *values = _list("a node", row) or [None]
        inner: list[int] = []
        match kind, values:
            case (("Union" | "Intersection"), [list(numbers)]) if numbers:
                inner = [self._earlier(number) for number in numbers]
                terms = tuple(self.terms[number] for number in inner)
                term: Term = model.Union(terms) if kind == "Union" else model.Intersection(terms)
            case "Difference", [left, right]:
                inner = [self._earlier(left), self._earlier(right)]
                term = model.Difference(*(self.terms[number] for number in inner))
            case "Complement", [number]:
                inner = [self._earlier(number)]
                term = model.Complement(self.terms[inner[0]])
            case "At", [number, line]:
                inner = [self._earlier(number)]
                leaf = self.terms[inner[0]]
                if isinstance(leaf, model.Union | model.Intersection | model.Difference | model.Complement | model.At):
                    raise ValueError(f"expected a leaf at a line, got {type(leaf).__name__}")
                term = model.At(leaf, Origin(_integer("a line", line, 1, LIMIT), printed(leaf)))
            case "Input", [ordinal]:
                term = model.Input(_ordinal("a term", ordinal, self.inputs, TERM_KINDS))
            case str(), _ if kind in _TERMS:
                term = _leaf(kind, values, self.block, self.inputs)
            case _:
                raise ValueError(f"expected a term, got {row!r:.80}")
        leaves = sum(self.leaves[number] for number in inner) or 1
        depth = 1 + max((self.depths[number] for number in inner), default=0)
        if leaves > _LEAVES or depth > _DEPTH:
            raise ValueError(f"expected a term of at most {_LEAVES} leaves and {_DEPTH} levels, got {leaves}, {depth}")
        self.terms.append(term)
        self.leaves.append(leaves)
        self.depths.append(depth)

    def _earlier(self, number: Any) -> int:
        return _integer("a term", number, 0, len(self.terms) - 1)


def _leaf(kind: str, values: Sequence[Any], block: int, inputs: Sequence[InputDecl]) -> Leaf:
    term = _TERMS[kind]
    if len(values) != len(term.names):
        raise ValueError(f"expected {kind} with {list(term.names)}, got {len(values)} values")
    given = dict(zip(term.names, values, strict=True))
    blocks = given.get("blocks", False)
    if not isinstance(blocks, bool):
        raise ValueError(f"expected a boolean, got {blocks!r:.80}")
    most = LIMIT // block if blocks else LIMIT
    rest, found = iter(values), list[Any]()
    for slot in term.slots:
        what = f"{slot.name} of {kind}"
        if slot.takes is SlotKind.RANGE:
            found += _ends(what, next(rest), next(rest), most, () if blocks else inputs)
        elif slot.takes is SlotKind.PHASE:
            found.append(_integer(what, next(rest), 0, found[0] - 1))
        else:
            found.append(_length(what, next(rest), slot, most, () if blocks else inputs))
    return term.of(*found, *rest)


def _length(what: str, value: Any, slot: Slot, most: int, inputs: Sequence[InputDecl]) -> int | RunTimeLength:
    if slot.run_time and isinstance(value, list):
        return _run_time(what, value, inputs)
    return _integer(what, value, slot.least, min(slot.most, most))


def _run_time(what: str, value: list[Any], inputs: Sequence[InputDecl]) -> RunTimeLength:
    return RunTimeLength(_ordinal(what, value[0] if len(value) == 1 else None, inputs, (InputKind.LENGTH,)))


def _ordinal(what: str, value: Any, inputs: Sequence[InputDecl], kinds: Sequence[InputKind]) -> int:
    """The ordinal of an input of one of `kinds`."""
    found = _integer(f"the input of {what}", value, 0, len(inputs) - 1)
    if inputs[found].kind not in kinds:
        raise ValueError(
            f"expected an input of {[kind.value for kind in kinds]}, got one of {inputs[found].kind.value}"
        )
    return found


def _ends(what: str, first: Any, last: Any, most: int, inputs: Sequence[InputDecl]) -> tuple[End, End]:
    start, stop = (_end(what, end, most, inputs) for end in (first, last))
    least = start.at if isinstance(start, Edge) else None if start is not None else 0
    if isinstance(stop, Edge):
        at = stop.at
        if at == 0 or (least is not None and least >= at and (least < 0) == (at < 0)):
            raise ValueError(f"expected a range with something in it, got {first}..{last}")
    return start, stop


def _end(what: str, end: Any, most: int, inputs: Sequence[InputDecl]) -> End:
    if end is None or isinstance(end, list):
        return None if end is None else _run_time(what, end, inputs)
    at = _integer(what, end, -most, most)
    return Edge(at, at < 0)


def inputs_data(inputs: Sequence[InputDecl]) -> list[list[Any]]:
    """`inputs` as lists of strings and numbers."""
    return [
        [decl.name, decl.kind.value, decl.unit.value, decl.tile and list(decl.tile), decl.line, decl.column]
        for decl in inputs
    ]


def inputs_of(data: Any) -> tuple[InputDecl, ...]:
    """What `inputs_data` was made from. Raises ValueError for other data."""
    found: dict[str, InputDecl] = {}
    for row in _list("inputs", data):
        match _list("an input", row):
            case [str(name), kind, unit, tile, line, column] if name not in found:
                found[name] = InputDecl(
                    _name(name),
                    InputKind(kind),
                    _integer("a line", line, 1, LIMIT),
                    _integer("a column", column, 1, LIMIT),
                    InputUnit(unit),
                    None if tile is None else _tile(tile),
                )
            case _:
                raise ValueError(f"expected an input, got {row!r:.80}")
    if len(found) > MAX_TOKENS or not all(map(_sound, found.values())):
        raise ValueError(f"expected kinds of inputs as the language has them, got {data!r:.80}")
    return tuple(found.values())


def _name(name: str) -> str:
    if len(name) > MAX_WORD or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name in reserved():
        raise ValueError(f"expected a name of at most {MAX_WORD} characters, got {name!r:.80}")
    return name


def _tile(data: Any) -> tuple[int, int]:
    sides = [_integer("the side of a tile", side, 1, LIMIT) for side in _list("a tile", data)]
    if len(sides) != 2:
        raise ValueError(f"expected two sides of a tile, got {sides!r:.80}")
    return sides[0], sides[1]


def _sound(decl: InputDecl) -> bool:
    """Whether the unit and the tile are of the kind."""
    units = (InputUnit.TOKENS, *UNITS.get(decl.kind, ()))
    return decl.unit in units and (decl.tile is None or decl.kind is InputKind.BLOCKS)


def score_data(score: Score) -> dict[str, Any]:
    """`score` as numbers and lists: its scale, and by each modifier's keyword what its statement gives."""
    given = {modifier.entry.keyword: given_of(modifier) for modifier in score.modifiers}
    return {
        "scale": score.scale,
        "modifiers": {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()},
    }


def score_of(data: Any, heads: int, inputs: Sequence[InputDecl] = ()) -> Score:
    """What `score_data` was made from, for `heads` query heads and `inputs`. Raises ValueError for other data."""
    given = _mapping("a score", data, ("scale", "modifiers"))
    scale, found = given["scale"], given["modifiers"]
    if not isinstance(found, dict) or not set(found) <= set(ENTRIES):
        raise ValueError(f"expected modifiers of the score, got {found!r:.80}")
    return Score(
        None if scale is None else _number("scale", scale, SMALLEST),
        tuple(
            modifier_of(name, _given(entry, found[name], heads, inputs))
            for name, entry in ENTRIES.items()
            if name in found
        ),
    )


def _given(entry: ModifierEntry, value: Any, heads: int, inputs: Sequence[InputDecl]) -> Given:
    """What the statement of a modifier gives."""
    if entry.takes is Takes.INPUT:
        return _ordinal(entry.keyword, value, inputs, (InputKind.WEIGHTS,))
    if entry.takes is Takes.NUMBER:
        return _number(entry.keyword, value, entry.least)
    if value is None and (entry.alone or entry.takes is Takes.NOTHING):
        return None
    if entry.takes is Takes.NOTHING or len(_list(entry.keyword, value)) != heads:
        raise ValueError(f"expected {entry.takes.value} for {entry.keyword} of {heads} heads, got {value!r:.80}")
    return tuple(_number(entry.keyword, number, entry.least) for number in value)


def _number(what: str, value: Any, least: float) -> float:
    if not isinstance(value, float) or not least <= value <= LARGEST:
        raise ValueError(f"expected {what} from {least} to {LARGEST}, got {value!r:.80}")
    return value


def _mapping(what: str, data: Any, names: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(data, dict) or set(data) != set(names):
        raise ValueError(f"expected {what} with {', '.join(names)}, got {data!r:.80}")
    return data


def _list(what: str, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError(f"expected {what} as a list, got {data!r:.80}")
    return data


def _integer(what: str, value: Any, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"expected {what} from {least} to {most}, got {value!r:.80}")
    return value

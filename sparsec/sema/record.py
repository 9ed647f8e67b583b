"""A resolved pattern to plain data for JSON, and back: how a pattern leaves the process that read it.

Invariant: what `heads_of` accepts keeps every invariant of `sema.model` and the limits of the language, whoever wrote
the data; it raises ValueError for anything else. Names, spans and texts stay behind, so no byte of a user's text does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sparsec.sema import model
from sparsec.sema.builtins import TERMS, BuiltInTerm, SlotKind, printed
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

_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]{0,255}")
_DEPTH = MAX_DEPTH + 2  # a leaf is two levels of a term, and `causal` is met around the whole of it
_LEAVES = MAX_LEAVES + 1
_ALL_LEAVES = 4 * MAX_STEPS  # of all heads together: evaluation pays one step for four
_TERMS: Mapping[str, BuiltInTerm] = {term.kind.__name__: term for term in TERMS.values()}
"""By the names of their classes."""


def heads_data(pattern: ResolvedPattern) -> dict[str, Any]:
    """`pattern` as lists, numbers and strings; equal terms once.

    `nodes`: each a kind and its values, where a number in the place of a term is an earlier node; `terms`: the node of
    each head.
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
        "score": score_data(pattern.score),
        "inputs": [input_data(each) for each in pattern.inputs],
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
    return [type(term).__name__, *map(_plain, values)]


def _plain(value: Any) -> Any:
    match value:
        case Edge(at):
            return at
        case RunTimeLength(ordinal):
            return [ordinal]
    return value


def heads_of(data: Any) -> ResolvedPattern:
    """What `heads_data` was made from. Raises ValueError for other data."""
    names = ("heads", "kv_heads", "block", "documents", "score", "inputs", "nodes", "terms")
    given = _mapping("a pattern", data, names)
    heads = _integer("heads", given["heads"], 1, MAX_HEADS)
    kv_heads = _integer("kv_heads", given["kv_heads"], 1, heads)
    block = _integer("block", given["block"], 16, 1024)
    if heads % kv_heads or block & (block - 1):
        raise ValueError(f"expected kv_heads that divide {heads} and a power of 2, got {kv_heads} and {block}")
    inputs = tuple(map(input_of, _list("inputs", given["inputs"])))
    if len({each.name for each in inputs}) < len(inputs):
        raise ValueError("expected inputs of different names, got one twice")
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
        Documents(given["documents"]),
        score_of(given["score"], heads),
    )


class _Nodes:
    """The terms read so far. Each refers to earlier ones alone, so there is no cycle; leaves count as in a tree."""

    def __init__(self, block: int, inputs: tuple[InputDecl, ...]) -> None:
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
            case str(), _ if kind in _TERMS:
                term = _leaf(kind, values, self.block, self.inputs)
            case "Input", [ordinal]:
                term = model.Input(_integer("an input", ordinal, 0, len(self.inputs) - 1))
                if self.inputs[term.ordinal].kind in (InputKind.LENGTH, InputKind.WEIGHTS):
                    raise ValueError(f"expected an input that is a term, got {row!r:.80}")
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


def _leaf(kind: str, values: Sequence[Any], block: int, inputs: tuple[InputDecl, ...]) -> Leaf:
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
            found += _ends(what, next(rest), next(rest), most, inputs)
        elif isinstance(first := next(rest), list) and kind in ("Window", "Sink") and not found and not blocks:
            found.append(_length(what, first, inputs))
        elif slot.takes is SlotKind.PHASE:
            found.append(_integer(what, first, 0, found[0] - 1))
        else:
            found.append(_integer(what, first, slot.least, min(slot.most, most)))
    return term.of(*found, *rest)


def _length(what: str, data: list[Any], inputs: tuple[InputDecl, ...]) -> RunTimeLength:
    if len(data) != 1:
        raise ValueError(f"expected {what} as a number or an input, got {data!r:.80}")
    length = RunTimeLength(_integer(what, data[0], 0, len(inputs) - 1))
    if inputs[length.ordinal].kind is not InputKind.LENGTH:
        raise ValueError(f"expected {what} as an input of kind length, got {inputs[length.ordinal].kind.value}")
    return length


End = Edge | RunTimeLength | None


def _ends(what: str, first: Any, last: Any, most: int, inputs: tuple[InputDecl, ...]) -> tuple[End, End]:
    if isinstance(first, list) or isinstance(last, list):
        return _end(what, first, most, inputs), _end(what, last, most, inputs)
    start, stop = (None if end is None else _integer(what, end, -most, most) for end in (first, last))
    if stop is not None and (stop == 0 or ((start or 0) >= stop and ((start or 0) < 0) == (stop < 0))):
        raise ValueError(f"expected a range with something in it, got {start}..{stop}")
    return (None if start is None else Edge(start, start < 0)), (None if stop is None else Edge(stop, stop < 0))


def _end(what: str, end: Any, most: int, inputs: tuple[InputDecl, ...]) -> End:
    if isinstance(end, list):
        return _length(what, end, inputs)
    if end is None:
        return None
    at = _integer(what, end, -most, most)
    return Edge(at, at < 0)


def input_data(input_: InputDecl) -> dict[str, Any]:
    """`input_` as strings and numbers."""
    tile = None if input_.tile is None else list(input_.tile)
    place = {"line": input_.line, "column": input_.column}
    return {"name": input_.name, "kind": input_.kind.value, "unit": input_.unit.value, "tile": tile, **place}


def input_of(data: Any) -> InputDecl:
    """What `input_data` was made from. Raises ValueError for other data."""
    given = _mapping("an input", data, ("name", "kind", "unit", "tile", "line", "column"))
    name, tile = given["name"], given["tile"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"expected the name of an input, got {name!r:.80}")
    if tile is not None and len(_list("a tile", tile)) != 2:
        raise ValueError(f"expected a tile of two lengths, got {tile!r:.80}")
    return InputDecl(
        name,
        InputKind(given["kind"]),
        _integer("a line", given["line"], 1, LIMIT),
        _integer("a column", given["column"], 1, LIMIT),
        InputUnit(given["unit"]),
        None if tile is None else (_integer("a tile", tile[0], 1, LIMIT), _integer("a tile", tile[1], 1, LIMIT)),
    )


def score_data(score: Score) -> dict[str, Any]:
    """`score` as numbers and lists: its scale, and by each modifier's keyword what its statement gives."""
    given = {modifier.entry.keyword: given_of(modifier) for modifier in score.modifiers}
    return {
        "scale": score.scale,
        "modifiers": {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()},
    }


def score_of(data: Any, heads: int) -> Score:
    """What `score_data` was made from, for `heads` query heads. Raises ValueError for other data."""
    given = _mapping("a score", data, ("scale", "modifiers"))
    scale, found = given["scale"], given["modifiers"]
    if not isinstance(found, dict) or not set(found) <= set(ENTRIES):
        raise ValueError(f"expected modifiers of the score, got {found!r:.80}")
    return Score(
        None if scale is None else _number("scale", scale, SMALLEST),
        tuple(modifier_of(name, _given(entry, found[name], heads)) for name, entry in ENTRIES.items() if name in found),
    )


def _given(entry: ModifierEntry, value: Any, heads: int) -> Given:
    """What the statement of a modifier gives."""
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

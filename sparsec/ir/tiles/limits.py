"""The predicate of a tile program -> what it asks in one tile: limits of the columns of a row, and the rest of pairs.

What is the same throughout a tile is asked of the tile, or of a row of it: a bound that is a multiple of the tile's
width, a congruence of blocks each of which holds whole tiles. Invariant: a pair of the tile passes iff the predicate
holds for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import reduce
from typing import TypeVar, cast

from sparsec.ir.bands.bounds import LIMIT
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.fold import children, names_in, nodes_in
from sparsec.ir.expr.nodes import (
    ONE,
    TRUE,
    Add,
    And,
    Bool,
    Expr,
    FloorDiv,
    Int,
    Less,
    Mul,
    Not,
    Or,
    Picked,
    Sub,
    Tree,
    Truth,
    Var,
)

FIRST = Var("first")
"""The tile's first column, a multiple of its width."""
NEVER, ALWAYS = Int(-LIMIT), Int(LIMIT)
"""Upper limits of no column, and of all; lower limits the other way round."""


@dataclass(frozen=True, slots=True)
class RowLimits:
    """The columns from `lower` on and before `upper`, both of a row in a tile, whose `pair` passes; None: no limit."""

    lower: Expr | None
    upper: Expr | None
    pair: Bool


@dataclass(frozen=True, slots=True)
class Limits:
    """A pair passes that is in `common`, and in one of `parts` if there are any."""

    common: RowLimits
    parts: tuple[RowLimits, ...]

    @property
    def intervals(self) -> bool:
        """Whether the parts are intervals of a row, none of which tests pairs."""
        return bool(self.parts) and all(part.pair == TRUE for part in self.parts)


class _Kind(Enum):
    LOWER = "lower"
    UPPER = "upper"
    ROW = "row"
    PAIR = "pair"


_Atom = tuple[_Kind, Tree]
_Way = tuple[_Atom, ...]
"""Atoms that hold together."""
_T = TypeVar("_T", bound=Tree)


def limits_of(predicate: Bool, inside: Bool, column: Var, width: int) -> Limits:
    """`predicate` and `inside` in a tile of `width` columns, which `column` goes over."""
    ways: list[_Way] = [
        tuple(dict.fromkeys(_atom(each, column, width) for each in _inside(And, way)))
        for way in _inside(Or, _pushed(predicate, negated=False))
    ]
    common = tuple(atom for atom in ways[0] if all(atom in way for way in ways))
    ways = [tuple(atom for atom in way if atom not in common) for way in ways]
    common = (*common, *(_atom(each, column, width) for each in _inside(And, inside)))
    ways = [()] if () in ways else _merged(ways)
    if len(ways) == 1:
        return Limits(_part((*common, *ways[0])), ())
    return Limits(_part(common), tuple(map(_part, ways)))


def _merged(ways: list[_Way]) -> list[_Way]:
    """Ways without a test of pairs and without upper limits are one, by the least lower limit; and the reverse."""
    of_rows = [way for way in ways if _kinds(way) == {_Kind.ROW}]
    for kind in (_Kind.LOWER, _Kind.UPPER):
        limited = [way for way in ways if _kinds(way) - {_Kind.ROW} == {kind}]
        if limited:
            limits = [_limit(way, kind) for way in (*limited, *of_rows)]
            best = reduce(x.minimum if kind is _Kind.LOWER else x.maximum, limits)
            ways = [((kind, best),), *(way for way in ways if way not in limited and way not in of_rows)]
            of_rows = []
    if of_rows:
        some = reduce(x.either, (_all_of(way) for way in of_rows))
        ways = [((_Kind.ROW, some),), *(way for way in ways if way not in of_rows)]
    return ways


def _kinds(way: _Way) -> set[_Kind]:
    return {kind for kind, _ in way}


def _all_of(way: _Way, kind: _Kind = _Kind.ROW) -> Bool:
    return reduce(x.both, (cast(Bool, tree) for of, tree in way if of is kind), cast(Bool, TRUE))


def _limit(way: _Way, kind: _Kind) -> Expr:
    """The limit of rows for which the conditions hold; of others one that no column is within."""
    limits = [cast(Expr, tree) for of, tree in way if of is kind]
    if kind is _Kind.LOWER:
        return x.select(_all_of(way), reduce(x.maximum, limits) if limits else NEVER, ALWAYS)
    return x.select(_all_of(way), reduce(x.minimum, limits) if limits else ALWAYS, NEVER)


def _part(way: _Way) -> RowLimits:
    kinds = _kinds(way)
    lower, upper, pair = None, None, _all_of(way, _Kind.PAIR)
    if _Kind.UPPER in kinds or (_Kind.ROW in kinds and _Kind.LOWER not in kinds):
        upper = _limit(way, _Kind.UPPER)
        way = tuple(atom for atom in way if atom[0] is not _Kind.ROW)
    if _Kind.LOWER in kinds:
        lower = _limit(way, _Kind.LOWER)
    return RowLimits(lower, upper, pair)


def _inside(of: type[And] | type[Or], tree: Bool) -> Iterator[Bool]:
    if isinstance(tree, of):
        yield from _inside(of, tree.left)
        yield from _inside(of, tree.right)
    elif tree != TRUE or of is Or:
        yield tree


def _pushed(tree: Bool, *, negated: bool) -> Bool:
    """The condition, or its negation, with negations of no more than what lists and inputs say."""
    match tree:
        case Truth(value):
            return Truth(value != negated)
        case Not(operand):
            return _pushed(operand, negated=not negated)
        case And(a, b) | Or(a, b):
            of = x.both if isinstance(tree, And) != negated else x.either
            return of(_pushed(a, negated=negated), _pushed(b, negated=negated))
        case Less(a, b) if negated:
            return x.at_most(b, a)
    return x.negate(tree) if negated else tree


def _atom(condition: Bool, column: Var, width: int) -> _Atom:
    condition = _of_tile(condition, column, width)
    if column.name not in names_in(condition) and not any(isinstance(node, Picked) for node in nodes_in(condition)):
        return _Kind.ROW, condition
    if isinstance(condition, Less):
        left, right = condition.left, condition.right
        if (beyond := _beyond(left, column)) is not None and column.name not in names_in(right):
            limit = x.sub(right, Int(beyond))
            return (_Kind.ROW, x.less(FIRST, limit)) if _is_multiple(limit, width) else (_Kind.UPPER, limit)
        if (beyond := _beyond(right, column)) is not None and column.name not in names_in(left):
            limit = x.add(x.sub(left, Int(beyond)), ONE)
            return (_Kind.ROW, x.at_most(limit, FIRST)) if _is_multiple(limit, width) else (_Kind.LOWER, limit)
    return _Kind.PAIR, condition


def _beyond(value: Expr, column: Var) -> int | None:
    """What is added to the column; None for a value of another form."""
    match value:
        case Var() if value == column:
            return 0
        case Add(Var() as variable, Int(number)) if variable == column:
            return number
        case Sub(Var() as variable, Int(number)) if variable == column:
            return -number
    return None


def _is_multiple(value: Expr, width: int) -> bool:
    match value:
        case Int(number) | Mul(_, Int(number)):
            return number % width == 0
        case Add(a, b) | Sub(a, b):
            return _is_multiple(a, width) and _is_multiple(b, width)
    return value == FIRST


def _of_tile(tree: _T, column: Var, width: int) -> _T:
    """The same in a tile, with what is told of its blocks by its first column."""
    match tree:
        case FloorDiv(variable, Int(unit), nonneg) if variable == column and unit % width == 0:
            return cast(_T, FloorDiv(FIRST, Int(unit), nonneg))
    inside = children(tree)
    if not inside:
        return tree
    changed = {
        each.name: _of_tile(part, column, width)
        for each in fields(tree)
        if (part := getattr(tree, each.name)) in inside
    }
    return replace(tree, **changed)

"""A tile program -> unknowns for one of its tiles of rows and one pair, and what may be assumed of them.

Rows and columns are queries and keys, or, of a transposed program, keys and queries, as in `ir.expr.scalars.Frame`.
Invariant: every call of a kernel, in which |offset| + Nq and Nk stay below 2**29, is a choice of the unknowns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import assert_never

from sparsec.ir.bands.band import Asks, InputTest
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.nodes import Extent
from sparsec.ir.expr.scalars import Interval
from sparsec.ir.tiles.program import Segment, TileProgram, names_read
from sparsec.prove.formulas import LinearScope
from sparsec.prove.linear import YES, Condition, Linear, Space, every, some
from sparsec.prove.meaning import input_says
from sparsec.prove.supposed import asks_of


class ProgramKind(Enum):
    FORWARD = "forward"
    IN_DOCUMENT = "in a document"
    TRANSPOSED = "transposed"


@dataclass(frozen=True, slots=True)
class BoundProgram:
    """A tile program, and the head constants that it is run with: (head, a value for each of `names`)."""

    kind: ProgramKind
    program: TileProgram
    names: tuple[str, ...]
    rows: tuple[tuple[int, tuple[int, ...]], ...]

    def constants(self, n: int) -> dict[str, int]:
        return dict(zip(self.names, self.rows[n][1], strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class TileSetting:
    """One pair (i, j), in tile `tile` of columns; `present`: whether the pair's column exists.

    `begin` and `end` bound the columns that exist, counted as tiles are; `named` is what a counterexample tells;
    `spans`: those of the segments that are shown to be right (`prove.strided_lemmas`).
    """

    kind: ProgramKind
    program: TileProgram
    scope: LinearScope
    assumed: Condition
    tile: Linear
    column: Linear
    begin: Linear
    end: Linear
    named: dict[str, Linear]
    spans: Mapping[Segment, Interval] = field(default_factory=dict)

    @property
    def space(self) -> Space:
        return self.scope.space

    @property
    def width(self) -> int:
        """Columns of a tile."""
        return self.program.query_tile if self.kind is ProgramKind.TRANSPOSED else self.program.key_tile

    @property
    def present(self) -> Condition:
        return self.space.within(self.column, self.begin, self.end)

    @property
    def live(self) -> Condition:
        return self.scope.truth(self.program.live)


def tile_setting(bound: BoundProgram, *, apart: bool = False) -> TileSetting:
    """`apart`: the rows, from the first to the last, need share no tile."""
    kind, program, space = bound.kind, bound.program, Space()
    transposed = kind is ProgramKind.TRANSPOSED
    rows, columns = program.query_tile, program.key_tile
    if transposed:
        rows, columns = columns, rows
    rows = POSITION_LIMIT if apart else rows
    least = 0 if transposed or kind is ProgramKind.IN_DOCUMENT else -POSITION_LIMIT
    row_tile = space.unknown("row tile", least // rows, POSITION_LIMIT // rows - 1) * rows
    first, row, last = (row_tile + space.unknown(name, 0, rows - 1) for name in ("first", "row", "last"))
    tile = space.unknown("tile", -(2**31) // columns, (2**31 - 1) // columns)  # another's first column is no int32
    column = tile * columns + space.unknown("column", 0, columns - 1)
    n_keys = space.unknown("key tiles", 0, POSITION_LIMIT // program.key_tile - 1) * program.key_tile
    n_keys = n_keys + space.unknown("last keys", 0, program.key_tile - 1)
    assumed = [space.at_least(row, first), space.at_least(last, row)]
    values = {"nk": n_keys}
    match kind:
        case ProgramKind.FORWARD:
            begin, end = Linear(0), n_keys
            values |= {"i0": first, "i1": last, "i": row, "j": column}
        case ProgramKind.IN_DOCUMENT:
            begin, end = (space.unknown(name, 0, POSITION_LIMIT - 1) for name in ("begin", "end"))
            assumed += [space.at_least(first, begin), space.less(last, end), space.at_least(n_keys, end)]
            values |= {"i0": first, "i1": last, "i": row, "j": column, "begin": begin, "end": end}
        case ProgramKind.TRANSPOSED:
            base = space.unknown("base", -POSITION_LIMIT // columns, POSITION_LIMIT // columns - 1) * columns
            begin, end = space.unknown("begin", 0, columns - 1), space.unknown("end", 1, POSITION_LIMIT + columns - 2)
            offset, n_queries = base + begin, end - begin
            assumed += [space.less(begin, end), space.less(last, n_keys)]
            assumed += [space.less(n_queries + far, Linear(POSITION_LIMIT)) for far in (offset, offset * -1)]
            values |= {"j0": first, "j1": last, "j": row, "i": base + column, "base": base, "begin": begin, "end": end}
    read = [n for n, name in enumerate(bound.names) if name in _names(program)]
    choices = dict.fromkeys(tuple(row[n] for n in read) for _, row in bound.rows)
    for n, of_heads in zip(read, zip(*choices, strict=True), strict=True):
        values[bound.names[n]] = space.unknown(bound.names[n], min(of_heads), max(of_heads))
    numbers = [values[bound.names[n]] for n in read]
    assumed.append(some(every(map(space.equal, numbers, map(Linear, choice))) for choice in choices))
    scope = LinearScope(
        space,
        dict(values),
        {let.name: let.value for let in program.lets},
        lambda ordinal: space.flag("list", ordinal),
        picked=lambda asked: _picked(space, program.inputs[asked.ordinal], asked.scope),
    )
    return TileSetting(kind, program, scope, every(assumed), tile, column, begin, end, values)


def _picked(space: Space, test: InputTest, scope: Extent) -> Condition:
    """What an input says: of the pair, anything; of its tile, what the pair does not rule out."""
    if test.asks is Asks.KEPT:  # a cache's lists have every key that is asked for
        return YES
    pair = input_says(space, test.ordinal, asks_of(test))
    match scope:
        case Extent.PAIR:
            return pair
        case Extent.SOME:
            return some((pair, space.flag("some", test.ordinal, test.asks.value)))
        case Extent.EVERY:
            return every((pair, space.flag("every", test.ordinal, test.asks.value)))
    assert_never(scope)


def freed(at: TileSetting, names: Iterable[str]) -> TileSetting:
    """The setting with any numbers for lets of these names, within the ranges that theirs have."""
    space, scope = at.space, at.scope
    lets = sorted(name for name in names if name in scope.lets)
    numbers = {name: space.unknown(name, *space.range_of(scope.name(name))) for name in lets}
    return replace(at, scope=LinearScope(space, at.named | numbers, scope.lets, scope.listed, picked=scope.picked))


def _names(program: TileProgram) -> frozenset[str]:
    """The names that the program reads."""
    lets = [let.value for let in program.lets]
    tests = [program.live, *(gather.live for gather in program.gathers)]
    read = names_read((*program.full, *program.masked), program.gathers)
    return read.union(*map(names_in, (*lets, *tests)))

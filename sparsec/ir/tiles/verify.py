"""What every tile program must be, as statements, held against sets of pairs at sample lengths and offsets.

`verify_program` asks for the pairs of the program's own bands; `verify_rows` takes any set, such as a reference mask.
Invariant: a program that `project` or `project_transposed` made passes; another one raises InternalError with the
statement that it breaks, and a witness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.band import Band, Draws, InputTest
from sparsec.ir.bands.classes import equal_heads
from sparsec.ir.bands.interpreter import Bools, Ints, drawn, pairs
from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.ir.expr.fold import picks_in
from sparsec.ir.expr.nodes import TRUE, Extent, Picked
from sparsec.ir.expr.scalars import DOCUMENT, TRANSPOSED, Frame, Interval
from sparsec.ir.tiles.interpreter import Positions, Visit, transposed_visits, visits
from sparsec.ir.tiles.program import TileProgram

_Item = TypeVar("_Item")

HEADS = 4
"""Heads of a class, at most, with other constants each, whose tiles are looked at."""
ROW_TILES = 5
"""Tiles of rows, at most, of one sample."""


@dataclass(frozen=True, slots=True)
class SampleRows:
    """One tile of rows [first, stop) under a program, and the columns that exist.

    Column c stands for position base + c; those from `begin` to `end` exist. Of a forward program base is 0, and rows
    are queries; of a transposed one they are keys.
    """

    frame: Frame
    program: TileProgram
    constants: Mapping[str, int]
    first: int
    stop: int
    n_keys: int
    base: int
    begin: int
    end: int

    @property
    def width(self) -> int:
        """Columns of a tile."""
        return self.program.query_tile if self.frame is TRANSPOSED else self.program.key_tile

    @property
    def values(self) -> dict[str, int]:
        """The program's inputs, constants and lets."""
        frame = self.frame
        found = {**self.constants, "nk": self.n_keys, frame.first.name: self.first, frame.last.name: self.stop - 1}
        if frame in (DOCUMENT, TRANSPOSED):
            found |= {"begin": self.begin, "end": self.end}
        if frame is TRANSPOSED:
            found["base"] = self.base
        for let in self.program.lets:
            found[let.name] = evaluate(let.value, found)
        return found

    @property
    def visited(self) -> tuple[Visit, ...]:
        rows = self.first, self.stop
        if self.frame is TRANSPOSED:
            queries = self.base + self.begin, self.base + self.end
            return transposed_visits(self.program, self.constants, rows, self.n_keys, queries, asked)
        document = (self.begin, self.end) if self.frame is DOCUMENT else None
        return visits(self.program, self.constants, rows, self.n_keys, document, asked)

    @property
    def positions(self) -> tuple[Ints, Ints]:
        """Those of the rows and of the columns that exist."""
        return np.arange(self.first, self.stop), np.arange(self.base + self.begin, self.base + self.end)

    @property
    def predicate(self) -> Bools:
        """bool [rows, columns that exist]: what `live` says of each pair."""
        program, (rows, columns) = self.program, self.positions
        row, column = rows[:, None], columns[None, :]
        i, j = (column, row) if self.frame is TRANSPOSED else (row, column)
        listed = {}
        for n, spec in enumerate(program.lists):
            seed, lane = spec.lanes[self.constants[spec.lane_row]]
            listed[n] = drawn(Draws(spec.width, seed, lane, spec.block), i, j)
        scope = {**self.constants, "nk": self.n_keys, "i": i, "j": j}
        picked = {Picked(n, Extent.PAIR): sampled(test, i, j) for n, test in enumerate(program.inputs)}
        answers: dict[Any, Bools] = {**listed, **picked}
        live = np.asarray(holds(program.live, scope, answers), np.bool_) | np.zeros((len(rows), len(columns)), np.bool_)
        for gather in program.gathers:
            own = picked[Picked(gather.test, Extent.PAIR)] & holds(gather.live, scope, answers)
            if (twice := np.argwhere(live & own)).size:
                raise _broken("no pair of a gather comes twice", self, _pair(self, *twice[0].tolist()))
            if gather.reach is not None:
                near = _tiles_in(gather.reach, self.values)
                places = (columns - self.base) // self.width if self.frame is TRANSPOSED else columns
                outside = np.argwhere(own & ~((places >= near.start) & (places < near.stop)))
                if outside.size:
                    raise _broken("the reach of a gather has its pairs", self, _pair(self, *outside[0].tolist()))
            live |= own
        return live

    @property
    def of_tiles(self) -> Bools:
        """bool [rows, columns that exist]: the pairs that are not those of a gather."""
        return replace(self, program=replace(self.program, gathers=())).predicate

    def __str__(self) -> str:
        row, column = self.frame.row.name, self.frame.column.name
        exist = f"{column} from {self.base + self.begin} to {self.base + self.end}"
        constants = "".join(f", {name}={value}" for name, value in self.constants.items())
        return f"rows {row} from {self.first} to {self.stop}, {exist}, nk={self.n_keys}{constants}"


def sampled(test: InputTest, i: Ints, j: Ints) -> Bools:
    """An input's pairs, as good as any: sparse here, dense there, and the same at each call."""
    block = (i // 64 * 37 + j // 64 * 101 + test.ordinal * 7 + len(test.asks.value)) % 8
    pair = (i * 2654435761 + j * 40503 + test.ordinal * 977) >> 7
    picked: Bools = np.where(block < 2, pair % 64 == 0, block == 2)
    return picked


def asked(test: InputTest, scope: Extent, queries: Positions, keys: Positions) -> bool:
    """What `sampled` says of a tile, with a tile in three where it cannot tell."""
    found = sampled(test, np.arange(*queries)[:, None], np.arange(*keys)[None, :])
    unsure = (queries[0] // 64 + keys[0] // 64) % 3 == 0
    return bool(found.any() or unsure) if scope is Extent.SOME else bool(found.all() and not unsure)


def verify_program(
    program: TileProgram, bands: tuple[Band, ...], constants: tuple[tuple[str, tuple[int, ...]], ...], frame: Frame
) -> None:
    """Raises InternalError if the program of a class does not visit its bands' pairs as `TileProgram` says.

    `constants`: one value for each head of the class, the rows of its tables among them. `bands`: in a program made
    with frame TRANSPOSED, the transposed ones.
    """
    heads = len(constants[0][1]) if constants else 1
    of_heads = [own for _, own in equal_heads(tuple(range(heads)), constants)]
    for own in _spread(of_heads, HEADS):
        for rows in _samples(program, own, frame):
            live = pairs(bands, own, *rows.positions, rows.n_keys, transposed=frame is TRANSPOSED, inputs=sampled)
            verify_rows(rows, live)


def verify_rows(at: SampleRows, live: Bools) -> tuple[Visit, ...]:
    """The tiles visited. Raises InternalError if they do not compute `live`, bool [rows, columns that exist]."""
    _verify_segments(at)
    visited = at.visited
    _verify_visits(at, visited, at.of_tiles if at.program.gathers else live)
    if (different := np.argwhere(at.predicate != live)).size:
        raise _broken("the predicate holds for the live pairs alone", at, _pair(at, *different[0].tolist()))
    return visited


def _verify_segments(at: SampleRows) -> None:
    values, program = at.values, at.program
    for segment in (*program.full, *program.masked):
        count = evaluate(segment.count, values)
        if count < 0:
            raise _broken("a count is never negative", at, f"{count} of {segment.origin}")
        if segment.listed is not None:
            if at.frame is TRANSPOSED or segment.contiguous or segment.span is not None:
                raise _broken("a listed segment is of a forward program, its tiles in any order", at, segment.origin)
            continue
        tiles = [evaluate(segment.tile, {**values, "n": n}) for n in range(-1, count + 1)]
        if segment.contiguous and tiles != list(range(tiles[0], tiles[0] + len(tiles))):
            raise _broken("tiles of a contiguous segment follow each other", at, f"{tiles} of {segment.origin}")
        if segment.span is not None:
            inside = [tile in _tiles_in(segment.span, values) for tile in tiles]
            if inside != [False, *(True for _ in range(count)), False]:
                raise _broken(
                    "the iterations of a span are those whose tile lies in it", at, f"{tiles} of {segment.origin}"
                )
    for segment in program.full:
        if segment.listed is None and segment.when != TRUE and not picks_in(segment.when):
            raise _broken("a full segment that is not listed and asks no input has no condition", at, segment.origin)
    _verify_ranges(at, values)


def _verify_ranges(at: SampleRows, values: Mapping[str, int]) -> None:
    ranges = at.program.ranges
    full = [tile for each in ranges.full for tile in _tiles_in(each, values)]
    if full != sorted(set(full)):
        raise _broken("full ranges are in order and disjoint", at, str(full))
    named = {*full, *(tile for each in ranges.visited for tile in _tiles_in(each, values))}
    untested = [p for p in (*at.program.full, *at.program.masked) if p.contiguous and p.when == TRUE]
    run = [evaluate(p.tile, {**values, "n": n}) for p in untested for n in range(evaluate(p.count, values))]
    if sorted(run) != sorted(named):
        raise _broken(
            "contiguous segments without a test run through the ranges", at, f"{sorted(run)}, {sorted(named)}"
        )


def _tiles_in(tiles: Interval, values: Mapping[str, int]) -> range:
    return range(evaluate(tiles.start, values), evaluate(tiles.stop, values))


def _verify_visits(at: SampleRows, visited: Sequence[Visit], live: Bools) -> None:
    tiles = [visit.tile for visit in visited]
    if twice := sorted({tile for tile in tiles if tiles.count(tile) > 1}):
        raise _broken("each visited tile comes once", at, f"tiles {twice}")
    width = at.width
    if outside := [tile for tile in tiles if tile * width >= at.end or (tile + 1) * width <= at.begin]:
        raise _broken("a visited tile has a column that exists", at, f"tiles {outside}")
    tile_of = np.arange(at.begin, at.end) // width
    for visit in visited:
        if not visit.full:
            continue
        block = live[:, tile_of == visit.tile]
        if block.shape[1] < width:
            raise _broken("every column of a full tile exists", at, f"tile {visit.tile}")
        if not block.all():
            row, column = np.argwhere(~block)[0].tolist()
            pair = _pair(at, row, visit.tile * width + column - at.begin)
            raise _broken("a full tile is live for every row", at, f"tile {visit.tile}, {pair}")
    missed = live & ~np.isin(tile_of, tiles)
    if missed.any():
        raise _broken("every live pair lies in a visited tile", at, _pair(at, *np.argwhere(missed)[0].tolist()))


def _pair(at: SampleRows, row: int, column: int) -> str:
    """The pair at these indices."""
    rows, columns = at.positions
    return f"{at.frame.row.name}={rows[row]}, {at.frame.column.name}={columns[column]}"


def _samples(program: TileProgram, constants: Mapping[str, int], frame: Frame) -> Iterator[SampleRows]:
    """Tiles of rows: alone, at an edge, before position 0, of a square, and far out, where strides have come round."""
    q, k = program.query_tile, program.key_tile
    for n_q, n_k, offset in (
        (1, 1, 0),
        (1, 3 * k + 1, 3 * k),
        (q + 3, 4 * k - 1, 4 * k - 4 - q),
        (4 * q + 5, 4 * k + 5, 0),
        (2 * q + 1, 2 * k, -q - 2),
        (3 * q, 40 * k + 7, 36 * k),
        (4096 + q // 2, 4096 + q // 2, 0),
    ):
        if frame is TRANSPOSED:
            base = offset // q * q
            for first, stop in _tiles(0, n_k, k):
                yield SampleRows(frame, program, constants, first, stop, n_k, base, offset - base, offset - base + n_q)
        elif frame is DOCUMENT:
            begin, end = max(offset, 0), min(max(offset, 0) + n_q, n_k)
            for first, stop in _tiles(begin, end, q):
                yield SampleRows(frame, program, constants, first, stop, n_k, 0, begin, end)
        else:
            for first, stop in _tiles(offset, offset + n_q, q):
                yield SampleRows(frame, program, constants, first, stop, n_k, 0, 0, n_k)


def _tiles(begin: int, end: int, size: int) -> list[tuple[int, int]]:
    """Of the tiles of the absolute grid, cut to [begin, end): all, or ROW_TILES of them."""
    whole = range(begin // size, -(-end // size))
    return [(max(begin, tile * size), min(end, tile * size + size)) for tile in _spread(whole, ROW_TILES)]


def _spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """All items, or `count` of them: the first, the last, and others in between."""
    if len(items) <= count:
        return list(items)
    return [items[n * (len(items) - 1) // (count - 1)] for n in range(count)]


def _broken(statement: str, at: SampleRows, witness: str) -> InternalError:
    return InternalError(f"expected of tile programs: {statement}; got, for {at}: {witness}")

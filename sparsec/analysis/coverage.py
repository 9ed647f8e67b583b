"""Head classes -> how much of each distinct head is live at one length, and where: the stuff of pictures and ratios.

Invariant: memory is one query tile's row of keys and a grid of cells, never Nq x Nk; when the length makes an exact
count long, evenly spread query tiles stand for the others and `exact` is False.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sparsec.ir.bands.classes import BlockMask, equal_heads
from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.ir.tiles.interpreter import draws
from sparsec.ir.tiles.program import Segment, TileProgram
from sparsec.pipeline import Lowered
from sparsec.plan.build import head_classes
from sparsec.plan.kernel import HeadClass

TILE = 64
"""Rows and columns of the tiles in which a pattern is counted."""

QUERY_TILE_LIMIT = 1024
"""Query tiles looked at for one head; a longer sequence is sampled."""
PAIR_LIMIT = 1 << 25
"""Pairs of partial tiles tested for one head; beyond, fewer query tiles are sampled."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class HeadCoverage:
    """One distinct head for n queries on n keys.

    `full` and `partial` count tiles by cell, [cell rows, cell columns]; `tiles` counts what the cells hold in all (0:
    the cell holds no tile). `live_pairs` is of one head; an estimate unless `exact`. `causal`: no pair has j > i.
    """

    heads: tuple[int, ...]
    query_tile: int
    key_tile: int
    tiles_per_cell: tuple[int, int]
    full: Ints
    partial: Ints
    tiles: Ints
    live_pairs: float
    causal: bool
    exact: bool


def coverage(
    classes: tuple[HeadClass, ...], length: int, cells: tuple[int, int], *, only: int | None = None
) -> tuple[HeadCoverage, ...]:
    """Every distinct head of `classes` (or just the one like head `only`), in the order of its first head.

    `cells`: the largest numbers of rows and of columns of the grids.
    """
    found = []
    for head_class in classes:
        for heads, constants in equal_heads(head_class.heads, head_class.constants):
            if only is None or only in heads:
                found.append(_head(head_class.program, constants, heads, length, cells))
    return tuple(sorted(found, key=lambda head: head.heads))


def dense_pairs(found: tuple[HeadCoverage, ...], length: int) -> tuple[int, bool]:
    """The pairs of dense attention that these heads, all of a pattern's, are held against, and whether it is causal.

    Causal if no head looks ahead.
    """
    causal = all(head.causal for head in found)
    return sum(len(head.heads) for head in found) * (length * (length + 1) // 2 if causal else length**2), causal


@dataclass(frozen=True, slots=True)
class VisitedRow:
    """What one query tile visits; `first` and `last` are its rows, half-open."""

    first: int
    last: int
    full: Ints
    partial: Ints
    drawn: tuple[tuple[int, ...], ...]


def _head(
    program: TileProgram, constants: Mapping[str, int], heads: tuple[int, ...], length: int, cells: tuple[int, int]
) -> HeadCoverage:
    rows_of_tiles, columns_of_tiles = -(-length // program.query_tile), -(-length // program.key_tile)
    per_cell = -(-rows_of_tiles // cells[0]), -(-columns_of_tiles // cells[1])
    shape = -(-rows_of_tiles // per_cell[0]), -(-columns_of_tiles // per_cell[1])
    full, partial, tiles = (np.zeros(shape, np.int64) for _ in range(3))
    column_sizes = np.bincount(np.arange(columns_of_tiles) // per_cell[1], minlength=shape[1])
    rows = []
    for tile in spread(rows_of_tiles, QUERY_TILE_LIMIT):
        row = visited_tiles(program, constants, tile, length)
        rows.append(row)
        cell = tile // per_cell[0]
        tiles[cell] += column_sizes
        for counts, visited in ((full, row.full), (partial, row.partial)):
            counts[cell] += np.bincount(visited // per_cell[1], minlength=shape[1])
    sample = _sample(rows, program)
    pairs, queries, ahead = 0, 0, False
    for row in sample:
        live, beyond = _live(program, constants, row, length)
        pairs, queries, ahead = pairs + live, queries + row.last - row.first, ahead or beyond
    return HeadCoverage(
        heads=heads,
        query_tile=program.query_tile,
        key_tile=program.key_tile,
        tiles_per_cell=per_cell,
        full=full,
        partial=partial,
        tiles=tiles,
        live_pairs=pairs * (length / queries),
        causal=not ahead,
        exact=queries == length,
    )


def spread(count: int, limit: int) -> list[int]:
    """All of range(count), or `limit` of them, one at a varying place of each equal part: no stride can hide."""
    if count <= limit:
        return list(range(count))
    return sorted({min(int((n + n * 0.618034 % 1) * count / limit), count - 1) for n in range(limit)})


def _sample(rows: list[VisitedRow], program: TileProgram) -> list[VisitedRow]:
    """The rows, thinned until testing the pairs of their partial tiles stays within PAIR_LIMIT."""
    pairs = sum(len(row.partial) for row in rows) * program.query_tile * program.key_tile
    if pairs <= PAIR_LIMIT:
        return rows
    return [rows[n] for n in spread(len(rows), max(len(rows) * PAIR_LIMIT // pairs, 16))]


def visited_tiles(program: TileProgram, constants: Mapping[str, int], tile: int, length: int) -> VisitedRow:
    """What the query tile number `tile` visits, of `length` queries on as many keys."""
    first, last = tile * program.query_tile, min((tile + 1) * program.query_tile, length)
    values: dict[str, int | Ints] = {**constants, "i0": first, "i1": last - 1, "nk": length}
    for let in program.lets:
        values[let.name] = evaluate(let.value, values, {})
    drawn = tuple(draws(spec, constants[spec.lane_row], first // spec.block) for spec in program.lists)
    full, partial = (
        np.concatenate([_tiles(program, segment, values, drawn) for segment in segments] or [np.empty(0, np.int64)])
        for segments in (program.full, program.masked)
    )
    return VisitedRow(first, last, full, partial, drawn)


def _tiles(
    program: TileProgram, segment: Segment, values: Mapping[str, int | Ints], drawn: tuple[tuple[int, ...], ...]
) -> Ints:
    """The tiles that a segment visits."""
    n = np.arange(int(evaluate(segment.count, values, {})), dtype=np.int64)
    scope = {**values, "n": n}
    if segment.listed is not None:
        per_block = program.lists[segment.listed].block // program.key_tile
        scope["entry"] = np.asarray(drawn[segment.listed], np.int64)[n // per_block]
    tile: Ints = np.broadcast_to(evaluate(segment.tile, scope, {}), n.shape)
    when = holds(segment.when, {**scope, "tile": tile}, _listed(program, drawn, tile))
    visited: Ints = tile[np.broadcast_to(when, n.shape)]
    return visited


def _listed(program: TileProgram, drawn: tuple[tuple[int, ...], ...], tile: Ints) -> dict[int, Bools]:
    """For each list, which of the key tiles are in blocks that it names."""
    return {n: np.isin(tile * program.key_tile // spec.block, drawn[n]) for n, spec in enumerate(program.lists)}


def _live(program: TileProgram, constants: Mapping[str, int], row: VisitedRow, length: int) -> tuple[int, bool]:
    """The live pairs of one query tile, and whether any has j > i."""
    i = np.arange(row.first, row.last)[:, None]
    keys = (row.partial[:, None] * program.key_tile + np.arange(program.key_tile)).ravel()
    inside = keys < length
    keys = keys[inside]
    tile = keys // program.key_tile
    scope: dict[str, int | Ints] = {**constants, "nk": length, "i": i, "j": keys[None, :]}
    live = np.broadcast_to(holds(program.live, scope, _listed(program, row.drawn, tile)), (len(i), len(keys)))
    dense = len(row.full) * program.key_tile * len(i)
    beyond = bool(np.any((row.full + 1) * program.key_tile - 1 > row.first)) or bool(np.any(live & (keys > i)))
    return dense + int(np.count_nonzero(live)), beyond


def pattern_coverage(
    lowered: Lowered, length: int, cells: tuple[int, int] = (1, 1), *, only: int | None = None
) -> tuple[HeadCoverage, ...]:
    """The coverage of each distinct head in tiles of at most TILE x TILE; `documents` count as one, and inputs as if
    they named every pair that they may.

    Raises TooManyBands, TooManyClasses.
    """
    return coverage(head_classes(whatever_inputs_name(lowered.mask), TILE, TILE), length, cells, only=only)


def whatever_inputs_name(mask: BlockMask) -> BlockMask:
    """The mask without its tests of inputs: every pair that they may name."""
    return replace(
        mask,
        classes=tuple(
            replace(of, bands=tuple(dict.fromkeys(replace(band, inputs=()) for band in of.bands)))
            for of in mask.classes
        ),
    )

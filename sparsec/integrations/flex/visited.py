"""Tile program -> the tiles that one tile of queries visits at a length, by numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.ir.tiles.interpreter import draws
from sparsec.ir.tiles.program import Segment, TileProgram

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def visited_tiles(program: TileProgram, constants: Mapping[str, int], tile: int, length: int) -> tuple[Ints, Ints]:
    """The full and the partial tiles that query tile `tile` visits, of `length` queries on as many keys."""
    first, last = tile * program.query_tile, min((tile + 1) * program.query_tile, length)
    values: dict[str, int | Ints] = {**constants, "i0": first, "i1": last - 1, "nk": length}
    for let in program.lets:
        values[let.name] = evaluate(let.value, values, {})
    drawn = tuple(draws(spec, constants[spec.lane_row], first // spec.block) for spec in program.lists)
    full, partial = (
        np.concatenate([_tiles(program, segment, values, drawn) for segment in segments] or [np.empty(0, np.int64)])
        for segments in (program.full, program.masked)
    )
    return full, partial


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

"""A pattern and a length -> how much work the queries before a position are: pairs in tiles that a kernel visits.

Invariant: what inputs may leave out counts too; of a long sequence evenly spread query tiles stand for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from sparsec.analysis.coverage import TILE, spread, whatever_inputs_name
from sparsec.distributed.needs import Ints
from sparsec.distributed.shards import Work
from sparsec.ir.bands.classes import equal_heads
from sparsec.ir.expr.evaluate import evaluate
from sparsec.ir.tiles.program import TileProgram
from sparsec.pipeline import Lowered
from sparsec.plan.build import head_classes

TILES_LIMIT = 4096
"""Query tiles looked at."""


def work_before(lowered: Lowered, length: int) -> Work:
    """Of all heads together. Raises TooManyBands, TooManyClasses."""
    of_heads = list(_rows(lowered, length))
    edges = of_heads[0][2]
    of_row = sum((len(heads) * of_row for heads, of_row, _ in of_heads), np.zeros(len(edges) - 1))
    before = np.concatenate([[0.0], np.cumsum(of_row * np.diff(edges))])

    def work(positions: Ints) -> Ints:
        return np.asarray(np.rint(np.interp(positions, edges, before)), np.int64)

    return work


def _rows(lowered: Lowered, length: int) -> Iterator[tuple[tuple[int, ...], Ints, Ints]]:
    """Equal heads; for them the keys that a row of each query tile looked at visits, and the rows for which it stands:
    from an edge to the next."""
    classes = head_classes(whatever_inputs_name(lowered.mask), TILE, TILE)
    height = min(of.program.query_tile for of in classes)
    tiles = np.array(spread(-(-length // height), TILES_LIMIT), np.int64)
    edges = np.append(tiles, -(-length // height)) * height
    edges[0], edges[-1] = 0, length
    for of in classes:
        for heads, constants in equal_heads(of.heads, of.constants):
            visited = _tiles_visited(of.program, constants, tiles * height, height, length)
            yield heads, visited * of.program.key_tile, edges


def work_of_heads(lowered: Lowered, length: int) -> tuple[int, ...]:
    """The work of the whole sequence, of each head. Raises TooManyBands, TooManyClasses."""
    found: dict[int, int] = {}
    for heads, of_row, edges in _rows(lowered, length):
        found |= dict.fromkeys(heads, round(float((of_row * np.diff(edges)).sum())))
    return tuple(found[head] for head in range(lowered.pattern.heads))


def _tiles_visited(program: TileProgram, constants: Mapping[str, int], first: Ints, height: int, length: int) -> Ints:
    """For the rows from each position on, the candidate tiles of all segments."""
    values: dict[str, int | Ints] = {
        **constants,
        "i0": first,
        "i1": np.minimum(first + height, length) - 1,
        "nk": length,
    }
    for let in program.lets:
        values[let.name] = evaluate(let.value, values, {})
    total = np.zeros(len(first), np.int64)
    for segment in (*program.full, *program.masked):
        total += evaluate(segment.count, values, {})
    return total

"""Compares the tiles that a kernel plan visits with a mask, one query tile at a time.

Invariant: a tile is counted for the rows of its query tile that exist; a tile with fewer keys than `key_tile` is
never full.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparsec.ir.expr.nodes import holds
from sparsec.ir.tiles.interpreter import draws, visits
from sparsec.plan.kernel import HeadClass, KernelPlan


@dataclass(frozen=True, slots=True)
class TileCount:
    """Tiles visited by all heads; `empty`: without a live pair; `needless`: full ones that are run with a mask."""

    visited: int
    full: int
    empty: int
    needless: int


def check_tiles(plan: KernelPlan, mask: Tensor, q_offset: int) -> TileCount:
    """Raises AssertionError if the plan's tiles do not compute `mask` (bool [heads, Nq, Nk], row r at q_offset + r).

    Holds: no tile twice; every tile in range; every live pair visited; a full tile all live; the predicate right on
    a grid of pairs of each masked tile.
    """
    counts = [0, 0, 0, 0]
    for head_class in plan.classes:
        for position, head in enumerate(head_class.heads):
            constants = {name: values[position] for name, values in head_class.constants}
            size = head_class.program.query_tile
            stop = q_offset + mask.shape[1]
            for tile in range(q_offset // size, -(-stop // size)):
                rows = max(tile * size, q_offset), min(tile * size + size, stop)
                live = mask[head, rows[0] - q_offset : rows[1] - q_offset]
                found = _check_row(head_class, constants, rows, live, f"head {head}, rows {rows[0]}..{rows[1]}")
                counts = [a + b for a, b in zip(counts, found, strict=True)]
    return TileCount(*counts)


def _check_row(
    head_class: HeadClass, constants: dict[str, int], rows: tuple[int, int], live: Tensor, where: str
) -> tuple[int, int, int, int]:
    program = head_class.program
    width, n_keys = program.key_tile, live.shape[1]
    visited = visits(program, constants, rows, n_keys)
    tiles = [visit.tile for visit in visited]
    if len(set(tiles)) != len(tiles):
        raise AssertionError(f"{where}: a key tile is visited twice: {sorted(tiles)}")
    if not all(0 <= tile < -(-n_keys // width) for tile in tiles):
        raise AssertionError(f"{where}: a key tile out of range: {tiles}")
    per_key = live.any(dim=0)
    needed = {key // width for key in per_key.nonzero().flatten().tolist()}
    if not needed <= set(tiles):
        raise AssertionError(f"{where}: live key tiles not visited: {sorted(needed - set(tiles))}")
    full = empty = needless = 0
    for visit in visited:
        block = live[:, visit.tile * width : (visit.tile + 1) * width]
        whole = bool(block.all()) and block.shape[1] == width
        if visit.full:
            if not whole:
                raise AssertionError(f"{where}: key tile {visit.tile} is run without a mask and is not full")
        else:
            _check_predicate(head_class, constants, rows, visit.tile, live, where)
        full += visit.full
        empty += not bool(block.any())
        needless += whole and not visit.full
    return len(visited), full, empty, needless


def _check_predicate(
    head_class: HeadClass, constants: dict[str, int], rows: tuple[int, int], tile: int, live: Tensor, where: str
) -> None:
    program, n_keys = head_class.program, live.shape[1]
    drawn = [draws(spec, constants[spec.lane_row], rows[0] // spec.block) for spec in program.lists]
    listed = {n: tile * program.key_tile // spec.block in drawn[n] for n, spec in enumerate(program.lists)}
    first, last = tile * program.key_tile, min((tile + 1) * program.key_tile, n_keys) - 1
    for i in sorted({rows[0], (rows[0] + rows[1]) // 2, rows[1] - 1}):
        for j in sorted({first, (first + last) // 2, last}):
            answer = holds(program.live, {**constants, "nk": n_keys, "i": i, "j": j}, listed)
            expected = bool(live[i - rows[0], j])
            if answer != expected:
                raise AssertionError(f"{where}: the predicate at i={i}, j={j} is {answer}, the mask {expected}")

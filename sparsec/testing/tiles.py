"""Compares the tiles that a kernel plan visits with a mask, one query tile at a time.

Invariant: a tile is counted for the rows of its query tile that exist; a tile with fewer keys than `key_tile` is
never full.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sparsec.ir.bands.classes import equal_heads
from sparsec.ir.bands.interpreter import Bools
from sparsec.ir.expr.scalars import FORWARD
from sparsec.ir.tiles.verify import SampleRows, verify_rows
from sparsec.plan.kernel import KernelPlan


@dataclass(frozen=True, slots=True)
class TileCount:
    """Tiles visited by all heads; `empty`: without a live pair; `needless`: full ones that are run with a mask."""

    visited: int
    full: int
    empty: int
    needless: int


def check_tiles(plan: KernelPlan, mask: Tensor, q_offset: int) -> TileCount:
    """Raises InternalError if the plan's tiles do not compute `mask` (bool [heads, Nq, Nk], row r at q_offset + r).

    What has to hold is stated in `ir.tiles.verify`.
    """
    n_q, n_k = mask.shape[1:]
    counts = np.zeros(4, np.int64)
    for head_class in plan.classes:
        size = head_class.program.query_tile
        for heads, constants in equal_heads(head_class.heads, head_class.constants):
            for head in heads:
                for tile in range(q_offset // size, -(-(q_offset + n_q) // size)):
                    first, stop = max(tile * size, q_offset), min(tile * size + size, q_offset + n_q)
                    rows = SampleRows(FORWARD, head_class.program, constants, first, stop, n_k, 0, 0, n_k)
                    counts += _counted(rows, mask[head, first - q_offset : stop - q_offset].numpy())
    return TileCount(*counts.tolist())


def _counted(rows: SampleRows, live: Bools) -> tuple[int, int, int, int]:
    """Visited, full, empty and needless tiles."""
    full = empty = needless = 0
    visited = verify_rows(rows, live)
    for visit in visited:
        block = live[:, visit.tile * rows.width : (visit.tile + 1) * rows.width]
        whole = bool(block.all()) and block.shape[1] == rows.width
        full += visit.full
        empty += not block.any()
        needless += whole and not visit.full
    return len(visited), full, empty, needless

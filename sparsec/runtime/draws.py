"""List specs -> the int32 tables of random draws that kernels read, for the query blocks of one call."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from sparsec.ir.tiles import ListSpec


def draw_tables(
    lists: tuple[ListSpec, ...], n_queries: int, q_offset: int, device: torch.device
) -> tuple[torch.Tensor, ...]:
    """One table a list: int32 [lanes, query blocks, width], from query block q_offset // block on (see ListSpec)."""
    tables = []
    for spec in lists:
        first = q_offset // spec.block
        blocks = max((q_offset + n_queries - 1) // spec.block - first + 1, 0)
        tables.append(_table(spec, first, blocks).to(device))
    return tuple(tables)


@lru_cache(maxsize=32)
def _table(spec: ListSpec, first: int, blocks: int) -> torch.Tensor:
    lanes = np.array(
        [(seed * 0x9E3779B97F4A7C15 + lane * 0xBF58476D1CE4E5B9) % 2**64 for seed, lane in spec.lanes], np.uint64
    )
    query_block = np.arange(first, first + blocks, dtype=np.int64)
    known = query_block >= 0
    position = np.where(known, query_block, 0).astype(np.uint64)
    counter = lanes.astype(np.uint64)[:, None, None] + (position * np.uint64(0x94D049BB133111EB))[None, :, None]
    counter = counter + np.arange(1, spec.width + 1, dtype=np.uint64)
    drawn = (_finalised(counter) % (position + np.uint64(1))[None, :, None]).astype(np.int32)
    drawn = np.where(known[None, :, None], drawn, np.int32(-1))
    for t in range(1, spec.width):
        repeated = (drawn[:, :, :t] == drawn[:, :, t : t + 1]).any(axis=2)
        drawn[:, :, t] = np.where(repeated, -1, drawn[:, :, t])
    return torch.from_numpy(np.ascontiguousarray(drawn))


def _finalised(z: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """The SplitMix64 finaliser (Steele, Lea and Flood 2014), modulo 2**64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

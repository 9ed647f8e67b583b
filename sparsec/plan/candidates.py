"""The table's candidates: tiles, warps, stages and register limits of each kind of kernel that are worth timing.

Invariant: no candidate twice for one kind, head dimension and dtype; what is taken without any timing comes first, then
the most promising ones.
"""

from __future__ import annotations

from sparsec.plan.picks import Kind, Pick
from sparsec.plan.target import (
    DECODE_ROWS,
    LaunchShape,
    backward_shape,
    backward_tile_sizes,
    cached_shape,
    cached_tile_sizes,
    decode_shape,
    decode_tile_sizes,
    launch_shape,
    tile_sizes,
    transposed_tile_sizes,
)

# Up to head dimension 128 none of these, compiled ahead of time for Hopper, spills 100 bytes or more a thread.
_TRIED: dict[tuple[Kind, int], tuple[Pick, ...]] = {
    (Kind.FORWARD, 64): (
        Pick(128, 64, 8, 3, 128),
        Pick(128, 128, 8, 2),
        Pick(128, 128, 8, 3),
        Pick(128, 64, 4, 3),
        Pick(128, 64, 4, 4),
        Pick(64, 64, 4, 3),
        Pick(64, 128, 4, 3),
        Pick(128, 64, 8, 4, 128),
        Pick(256, 64, 8, 3),
    ),
    (Kind.FORWARD, 128): (
        Pick(128, 128, 8, 2),
        Pick(128, 64, 8, 2),
        Pick(128, 64, 8, 4),
        Pick(64, 64, 4, 3),
        Pick(64, 128, 4, 2),
        Pick(128, 128, 8, 3),
        Pick(128, 32, 8, 4),
    ),
    (Kind.FORWARD, 256): (
        Pick(128, 64, 8, 1),
        Pick(64, 64, 4, 2),
        Pick(128, 32, 8, 3),
        Pick(64, 32, 4, 3),
        Pick(64, 64, 8, 2),
    ),
    (Kind.GRAD_QUERIES, 64): (
        Pick(128, 64, 8, 3),
        Pick(128, 128, 8, 2),
        Pick(64, 64, 4, 3),
        Pick(64, 128, 4, 2),
        Pick(128, 64, 4, 2),
        Pick(128, 64, 8, 2, 128),
    ),
    (Kind.GRAD_QUERIES, 128): (
        Pick(128, 64, 8, 3),
        Pick(64, 64, 4, 2),
        Pick(64, 128, 8, 2),
        Pick(128, 32, 8, 3),
        Pick(64, 64, 8, 2),
    ),
    (Kind.GRAD_QUERIES, 256): (Pick(64, 64, 8, 1), Pick(128, 32, 8, 2)),
    (Kind.GRAD_KEYS, 64): (
        Pick(64, 128, 8, 3),
        Pick(128, 128, 8, 2),
        Pick(64, 64, 4, 3),
        Pick(32, 128, 8, 3),
    ),
    (Kind.GRAD_KEYS, 128): (
        Pick(32, 128, 8, 3),
        Pick(64, 64, 8, 2),
        Pick(32, 64, 4, 2),
    ),
    (Kind.GRAD_KEYS, 256): (Pick(32, 64, 8, 1), Pick(16, 64, 8, 2), Pick(32, 32, 4, 2)),
    (Kind.CHUNK, 64): (Pick(128, 64, 8, 2), Pick(128, 128, 8, 2), Pick(64, 64, 4, 3), Pick(128, 64, 8, 3, 128)),
    (Kind.CHUNK, 128): (Pick(128, 64, 8, 2), Pick(64, 64, 4, 3), Pick(64, 64, 4, 2), Pick(128, 32, 8, 4)),
    (Kind.CHUNK, 256): (Pick(64, 32, 4, 2), Pick(64, 64, 8, 2)),
    (Kind.DECODE, 64): tuple(
        Pick(DECODE_ROWS, n, w, s) for n, w, s in ((64, 2, 4), (128, 4, 3), (32, 2, 4), (64, 4, 2))
    ),
    (Kind.DECODE, 128): tuple(
        Pick(DECODE_ROWS, n, w, s) for n, w, s in ((64, 4, 2), (32, 4, 4), (128, 4, 2), (64, 8, 3))
    ),
    (Kind.DECODE, 256): tuple(Pick(DECODE_ROWS, n, w, s) for n, w, s in ((32, 4, 3), (64, 4, 2), (32, 8, 4))),
}


def candidates_of(target: str, kind: Kind, head_dim: int, dtype: str) -> tuple[Pick, ...]:
    """What the table and the rules say, then the others."""
    first = ruled(target, kind, head_dim, dtype)
    return first, *(pick for pick in tried(kind, head_dim) if pick != first)


def tried(kind: Kind, head_dim: int) -> tuple[Pick, ...]:
    """Those for the nearest head dimension above; none above 256."""
    above = next((dim for dim in (64, 128, 256) if head_dim <= dim), None)
    return () if above is None else _TRIED[kind, above]


def ruled(target: str, kind: Kind, head_dim: int, dtype: str) -> Pick:
    """What the table and the rules give."""
    match kind:
        case Kind.FORWARD:
            tiles = tile_sizes(target, head_dim, dtype)[:2]
            shape = launch_shape(target, head_dim, dtype, *tiles)
        case Kind.GRAD_QUERIES:
            tiles = backward_tile_sizes(target, head_dim, dtype)
            shape = backward_shape(target, head_dim, dtype, *tiles, of_keys=False)
        case Kind.GRAD_KEYS:
            tiles = transposed_tile_sizes(target, head_dim, dtype)
            shape = backward_shape(target, head_dim, dtype, *tiles, of_keys=True)
        case Kind.CHUNK:
            tiles = cached_tile_sizes(target, head_dim, dtype)
            shape = cached_shape(target, head_dim, dtype, *tiles)
        case Kind.DECODE:
            tiles = decode_tile_sizes(target, head_dim, dtype)
            shape = decode_shape(target, head_dim, dtype, *tiles)
    return _pick(tiles, shape)


def _pick(tiles: tuple[int, int], shape: LaunchShape) -> Pick:
    return Pick(*tiles, shape.warps, shape.stages, shape.maxnreg)

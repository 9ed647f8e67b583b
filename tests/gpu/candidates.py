"""What a sweep tries: tiles, warps, stages and register limits of each kind of kernel, the rules' own first.

Invariant: no candidate twice for one kind, head dimension and dtype; the most promising ones come first, so that a
sweep which is cut off has tried them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpu import REHEARSAL

from sparsec.plan.target import (
    DECODE_ROWS,
    Kind,
    LaunchShape,
    Pick,
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

HEAD_DIMS, DTYPES = ((64,), ("bfloat16",)) if REHEARSAL else ((64, 128, 256), ("bfloat16", "float16"))
_MOST = 2 if REHEARSAL else 12
"""Of one kind, head dimension and dtype."""

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


@dataclass(frozen=True, slots=True)
class Candidate:
    """`rule`: what the rules give where nothing is picked."""

    kind: Kind
    head_dim: int
    dtype: str
    pick: Pick
    rule: bool

    def as_row(self) -> dict[str, Any]:
        """As `picks.picks_of` reads it."""
        pick = self.pick
        return {
            "kind": self.kind.value,
            "head_dim": self.head_dim,
            "dtype": self.dtype,
            "query_tile": pick.query_tile,
            "key_tile": pick.key_tile,
            "warps": pick.warps,
            "stages": pick.stages,
            "maxnreg": pick.maxnreg,
            "rule": self.rule,
        }


def candidates(target: str) -> Iterator[Candidate]:
    """All, for a target of `plan.target`: bfloat16 first, every kind's rule before the others' candidates."""
    for dtype in DTYPES:
        places = [(kind, head_dim) for head_dim in HEAD_DIMS for kind in Kind]
        for kind, head_dim in places:
            yield Candidate(kind, head_dim, dtype, ruled(target, kind, head_dim, dtype), True)
        for kind, head_dim in places:
            rule = ruled(target, kind, head_dim, dtype)
            others = [pick for pick in _tried(target, kind, head_dim) if pick != rule]
            for pick in others[: _MOST - 1]:
                yield Candidate(kind, head_dim, dtype, pick, False)


def ruled(target: str, kind: Kind, head_dim: int, dtype: str) -> Pick:
    """What the rules give, on a table without picks."""
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


def _tried(target: str, kind: Kind, head_dim: int) -> tuple[Pick, ...]:
    found = _TRIED[kind, head_dim]
    if target != "interpreter":
        return found
    return tuple(Pick(min(p.query_tile, 32), min(p.key_tile, 16), p.warps, p.stages, p.maxnreg) for p in found)

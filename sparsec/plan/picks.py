"""Families of targets, kinds of kernels, and the tiles of each that a sweep on a card measured best.

Invariant: `PICKS` is what `tests/gpu/picks.py` reads out of the sweeps of `tests/bench/results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Family(Enum):
    CPU = "cpu"
    INTERPRETER = "interpreter"
    AMPERE = "ampere"
    """And every NVIDIA GPU not named below: asynchronous copies, warp-level tensor cores."""
    HOPPER = "hopper"
    BLACKWELL = "blackwell"
    CDNA = "cdna"


class Kind(Enum):
    """The kernels that have tiles of their own: of a forward pass, of its gradients, and over a KV cache."""

    FORWARD = "forward"
    GRAD_QUERIES = "grad_queries"
    GRAD_KEYS = "grad_keys"
    CHUNK = "chunk"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Pick:
    """Tiles and launch of one kind of kernel. Of Kind.DECODE, `query_tile` is DECODE_ROWS."""

    query_tile: int
    key_tile: int
    warps: int
    stages: int
    maxnreg: int | None = None


Tiles = tuple[tuple[Kind, Pick], ...]
"""What a compilation takes before what the table and the rules say: picks of some kinds, in the kinds' order."""
PICKS: Mapping[tuple[Family, Kind, int, str], Pick] = {
    (Family.HOPPER, Kind.FORWARD, 64, "bfloat16"): Pick(64, 64, 4, 3),
    (Family.HOPPER, Kind.FORWARD, 128, "bfloat16"): Pick(64, 64, 4, 3),
    (Family.HOPPER, Kind.FORWARD, 128, "float16"): Pick(64, 64, 4, 3),
    (Family.HOPPER, Kind.GRAD_QUERIES, 64, "bfloat16"): Pick(64, 64, 4, 3),
    (Family.HOPPER, Kind.GRAD_QUERIES, 128, "bfloat16"): Pick(64, 64, 4, 2),
    (Family.HOPPER, Kind.GRAD_QUERIES, 128, "float16"): Pick(64, 64, 4, 2),
    (Family.HOPPER, Kind.GRAD_QUERIES, 256, "bfloat16"): Pick(128, 32, 8, 2),
    (Family.HOPPER, Kind.GRAD_KEYS, 64, "bfloat16"): Pick(64, 64, 4, 3),
    (Family.HOPPER, Kind.GRAD_KEYS, 128, "bfloat16"): Pick(32, 64, 4, 2),
    (Family.HOPPER, Kind.GRAD_KEYS, 128, "float16"): Pick(32, 64, 4, 2),
    (Family.HOPPER, Kind.GRAD_KEYS, 256, "bfloat16"): Pick(32, 32, 4, 2),
    (Family.HOPPER, Kind.CHUNK, 64, "bfloat16"): Pick(128, 64, 8, 3, 128),
    (Family.HOPPER, Kind.DECODE, 64, "bfloat16"): Pick(16, 32, 2, 4),
    (Family.HOPPER, Kind.DECODE, 128, "bfloat16"): Pick(16, 64, 4, 2),
    (Family.HOPPER, Kind.DECODE, 256, "bfloat16"): Pick(16, 32, 4, 3),
}
"""By family, kind, head dimension (64, 128, 256) and dtype: what `tests/gpu/picks.py` reads out of a card's sweep."""

"""The kernel plan: everything a template prints, decided. Pure data; targets differ only in tile sizes and schedule.

Invariant: heads of all classes are exactly 0..heads-1, each once; `constants[name][n]` belongs to `heads[n]`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.ir.tiles import TileProgram


@dataclass(frozen=True, slots=True)
class HeadClass:
    """Query heads whose bands are equal up to the head constants; one tile program serves them all."""

    heads: tuple[int, ...]
    constants: tuple[tuple[str, tuple[int, ...]], ...]
    program: TileProgram
    origins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """Forward attention of one pattern. `scale` None means 1/sqrt(head_dim); dtype float32, bfloat16 or float16."""

    heads: int
    kv_heads: int
    head_dim: int
    dtype: str
    scale: float | None
    classes: tuple[HeadClass, ...]

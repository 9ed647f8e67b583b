"""What a pattern costs: the bytes of its KV cache and the share of pairs that it computes, against dense attention.

Invariant: counts are of one sequence; dense attention is causal and keeps every key of every KV head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsec.plan.kv.layout import CacheLayout, capacity
from sparsec.plan.kv.printer import print_region

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
LENGTHS = (32_768, 131_072, 1_048_576)
"""Tokens at which reports price a cache, beside the length asked for."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A layer's attention: query heads, KV heads, dimensions of keys and of values, and dtype by name."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    dtype: str

    @property
    def slot_bytes(self) -> int:
        """Of one key and its value, in one KV head."""
        return (self.head_dim + self.value_dim) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class CachePrice:
    """Bytes of a cache with room for `tokens` tokens, and of one that keeps every key."""

    tokens: int
    bytes: int
    dense_bytes: int

    @property
    def saved(self) -> float:
        return 1 - self.bytes / self.dense_bytes


@dataclass(frozen=True, slots=True)
class GroupPrice:
    """KV groups that keep the same kinds of keys: what these are, and the slots of one group."""

    groups: tuple[int, ...]
    keeps: tuple[str, ...]
    slots: int


def price(layers: Sequence[CacheLayout], geometry: Geometry, tokens: int) -> CachePrice:
    """The cache of the given layers together."""
    slots = sum(layout.slots(tokens) for layout in layers)
    dense = len(layers) * geometry.kv_heads * tokens
    return CachePrice(tokens, slots * geometry.slot_bytes, dense * geometry.slot_bytes)


def group_prices(layout: CacheLayout, tokens: int) -> tuple[GroupPrice, ...]:
    """The groups of a layout by what they keep, phases left out; in the order of their first group."""
    found: dict[tuple[str, ...], list[int]] = {}
    for group, regions in enumerate(layout.groups):
        found.setdefault(tuple(print_region(region) for region in regions), []).append(group)
    return tuple(
        GroupPrice(
            tuple(groups), keeps, max(sum(capacity(r, tokens) for r in layout.groups[group]) for group in groups)
        )
        for keeps, groups in found.items()
    )

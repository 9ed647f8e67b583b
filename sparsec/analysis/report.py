"""A pattern, or a model's layers -> a cost report: what they compute and what their KV cache holds, against dense.

Invariant: layers that share a pattern are reported once, with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsec.analysis.cost import LENGTHS, CachePrice, Geometry, GroupPrice, group_prices, price
from sparsec.analysis.coverage import dense_pairs, pattern_coverage
from sparsec.pipeline import Lowered
from sparsec.plan.kv.layout import CacheLayout


@dataclass(frozen=True, slots=True)
class Part:
    """One pattern and the layers that have it, and its cache's layout (None: it has no cache)."""

    name: str
    layers: tuple[int, ...]
    lowered: Lowered
    layout: CacheLayout | None


@dataclass(frozen=True, slots=True)
class PartReport:
    """`live_pairs`: of all heads of one layer (an estimate unless `exact`); `dense_pairs`: of dense attention, `causal`
    if no head looks ahead. `at_most`: inputs may leave out some of the live pairs.

    `flops` are of a forward pass over the live pairs of one layer. `growth`: why the cache grows, where it need not.
    """

    name: str
    layers: tuple[int, ...]
    live_pairs: float
    dense_pairs: int
    causal: bool
    exact: bool
    at_most: bool
    flops: float
    groups: tuple[GroupPrice, ...]
    cache: CachePrice | None
    growth: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """`prices`: the caches of all layers together, at several lengths; empty if some layer has none."""

    tokens: int
    geometry: Geometry
    parts: tuple[PartReport, ...]
    prices: tuple[CachePrice, ...]

    @property
    def layers(self) -> int:
        return sum(len(part.layers) for part in self.parts)

    @property
    def live_share(self) -> float:
        """Live pairs over dense ones, over all layers."""
        live = sum(part.live_pairs * len(part.layers) for part in self.parts)
        return live / sum(part.dense_pairs * len(part.layers) for part in self.parts)


def report(parts: Sequence[Part], geometry: Geometry, tokens: int) -> Report:
    """The costs of sequences of `tokens` tokens. Raises TooManyBands, TooManyClasses."""
    layouts = [part.layout for part in parts for _ in part.layers]
    lengths = sorted({*LENGTHS, tokens})
    known = [layout for layout in layouts if layout is not None]
    prices = tuple(price(known, geometry, length) for length in lengths) if len(known) == len(layouts) else ()
    return Report(tokens, geometry, tuple(_part(part, geometry, tokens) for part in parts), prices)


def _part(part: Part, geometry: Geometry, tokens: int) -> PartReport:
    covered = pattern_coverage(part.lowered, tokens)
    live = sum(each.live_pairs * len(each.heads) for each in covered)
    dense, causal = dense_pairs(covered, tokens)
    layout = part.layout
    return PartReport(
        part.name,
        part.layers,
        live,
        dense,
        causal,
        all(each.exact for each in covered),
        bool(part.lowered.pattern.inputs),
        2 * (geometry.head_dim + geometry.value_dim) * live,
        () if layout is None else group_prices(layout, tokens),
        None if layout is None else price([layout], geometry, tokens),
        () if layout is None else tuple(str(growth) for growth in layout.growth),
    )

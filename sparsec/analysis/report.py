"""A pattern, or a model's layers -> a cost report: what they compute and what their KV cache holds, against dense.

Invariant: layers that share a pattern are reported once, with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparsec.analysis.cost import LENGTHS, CachePrice, Geometry, GroupPrice, group_prices, price
from sparsec.analysis.coverage import dense_pairs, of_pairs, pattern_coverage, whole_view
from sparsec.analysis.report_text import live_text, report_text
from sparsec.diagnostics.progress import no_progress, told_of_kinds
from sparsec.diagnostics.tables import count, percent, table_html
from sparsec.pipeline import Lowered
from sparsec.plan.kv.layout import CacheLayout


@dataclass(frozen=True, slots=True)
class Part:
    """One pattern and the layers that have it, its cache's layout (None: it has no cache), and the layers' geometry
    (None: that of the report)."""

    name: str
    layers: tuple[int, ...]
    lowered: Lowered
    layout: CacheLayout | None
    geometry: Geometry | None = None


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
    geometry: Geometry


@dataclass(frozen=True, slots=True)
class Report:
    """`prices`: the caches of all layers together, at several lengths; empty if some layer has none. `geometry`: of the
    layers whose part has none of its own."""

    tokens: int
    geometry: Geometry
    parts: tuple[PartReport, ...]
    prices: tuple[CachePrice, ...]

    @property
    def layers(self) -> int:
        return sum(len(part.layers) for part in self.parts)

    @property
    def shapes(self) -> str:
        """The head counts and dimensions of the layers, in words."""
        each = (part.geometry for part in self.parts)
        found = (f"{at.heads} query heads on {at.kv_heads} KV heads of {at.head_dim}" for at in each)
        return " and ".join(dict.fromkeys(found))

    @property
    def live_share(self) -> float:
        """Live pairs over dense ones, over all layers."""
        live = sum(part.live_pairs * len(part.layers) for part in self.parts)
        return live / sum(part.dense_pairs * len(part.layers) for part in self.parts)

    def __str__(self) -> str:
        """As `sparsec explain` prints it."""
        return f"{self._title}\n\n{report_text(self)}"

    @property
    def _title(self) -> str:
        return f"{self.shapes}, {self.geometry.dtype}, {count(self.tokens, 'token')}"

    def _repr_html_(self) -> str:
        """For a notebook: what is computed, pattern by pattern, and what the caches of all layers hold."""
        computed = [
            (part.name, str(len(part.layers)), live_text(part), of_pairs(part.causal), f"{part.flops / 1e12:.3g}")
            for part in self.parts
        ]
        caches = [
            (str(each.tokens), f"{each.bytes / 2**20:.4g}", f"{each.dense_bytes / 2**20:.4g}", percent(each.saved))
            for each in self.prices
        ]
        head = ("pattern", "layers", "live", "of", "TFLOP, forward, one layer")
        tables = [table_html(self._title, head, computed)]
        if caches:
            tables.append(table_html("KV cache", ("tokens", "MiB", "MiB, dense", "saved"), caches))
        return "\n".join(tables)


def report(parts: Sequence[Part], geometry: Geometry, tokens: int, told: Callable[[str], None] = no_progress) -> Report:
    """The costs of sequences of `tokens` tokens; `told` of each part. Raises TooManyBands, TooManyClasses."""
    lengths = sorted({*LENGTHS, tokens})
    known = [(part, part.layout) for part in parts if part.layout is not None]
    prices = tuple(_together(known, geometry, length) for length in lengths) if len(known) == len(parts) else ()
    found = []
    for done, part in enumerate(parts):
        told_of_kinds(told, "counting live pairs", part.name, done, len(parts))
        found.append(_part(part, part.geometry or geometry, tokens))
    return Report(tokens, geometry, tuple(found), prices)


def _together(parts: Sequence[tuple[Part, CacheLayout]], geometry: Geometry, tokens: int) -> CachePrice:
    each = [price([layout] * len(part.layers), part.geometry or geometry, tokens) for part, layout in parts]
    return CachePrice(tokens, sum(one.bytes for one in each), sum(one.dense_bytes for one in each))


def _part(part: Part, geometry: Geometry, tokens: int) -> PartReport:
    covered = pattern_coverage(part.lowered, tokens)
    live = sum(each.live_pairs * len(each.heads) for each in covered)
    dense, causal = dense_pairs(covered, whole_view(tokens))
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
        geometry,
    )

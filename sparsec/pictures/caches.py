"""The layout of a KV cache -> a picture: which keys each region holds as a sequence grows.

A key of a region is drawn while a later query may need it; a key that several hold is that of the first, which keeps it
longest. Invariant: groups that keep equal keys are drawn once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparsec.analysis.coverage import Floats, HeadCoverage, coverage_of_bands, whole_view
from sparsec.diagnostics.tables import count, percent
from sparsec.ir.bands.band import Band
from sparsec.ir.bands.bounds import constant, query
from sparsec.ir.bands.liveness import Region
from sparsec.pictures.labels import name_members
from sparsec.pictures.page import page
from sparsec.pictures.saving import save_drawing
from sparsec.pictures.shades import levels
from sparsec.pictures.svg import INKS, Layer, Panel, Picture, draw_svg
from sparsec.pictures.text import ASCII, Shades, draw
from sparsec.plan.kv.layout import CacheLayout, capacity
from sparsec.plan.kv.printer import print_region

PANELS = 16
"""The most kinds of groups that are drawn."""


@dataclass(frozen=True, slots=True)
class GroupRegions:
    """KV groups with equal regions: the union of the regions up to each, one more at a time."""

    groups: tuple[int, ...]
    regions: tuple[Region, ...]
    unions: tuple[HeadCoverage, ...]

    def own(self, region: int) -> Floats:
        """Of each cell, the share that this region holds and none before it."""
        before = self.unions[region - 1].live if region else np.zeros_like(self.unions[0].live)
        share: Floats = np.maximum(self.unions[region].live - before, 0)
        return share


@dataclass(frozen=True)
class CacheDrawing:
    """The caches of a pattern's KV groups over the first `keys` tokens of a sequence."""

    name: str
    layout: CacheLayout
    keys: int

    @cached_property
    def kinds(self) -> tuple[GroupRegions, ...]:
        """The groups that keep equal keys."""
        found: dict[tuple[Region, ...], list[int]] = {}
        for group, regions in enumerate(self.layout.groups):
            found.setdefault(regions, []).append(group)
        cells = (96, 96) if len(found) <= 2 else (64, 64)
        return tuple(
            GroupRegions(tuple(groups), regions, self._unions(tuple(groups), regions, cells, min(len(found), PANELS)))
            for regions, groups in list(found.items())[:PANELS]
        )

    def _unions(
        self, groups: tuple[int, ...], regions: tuple[Region, ...], cells: tuple[int, int], share: int
    ) -> tuple[HeadCoverage, ...]:
        bands = tuple(held_band(region) for region in regions)
        return tuple(
            coverage_of_bands(bands[:number], groups, whole_view(self.keys), cells, share=share)
            for number in range(1, len(bands) + 1)
        ) or (coverage_of_bands((), groups, whole_view(self.keys), cells),)

    @property
    def title(self) -> str:
        return f"KV cache of {self.name}: {count(self.keys, 'token')}"

    @property
    def inks(self) -> tuple[str, ...]:
        """What each colour stands for: the first kinds of regions in words; the last colour has all others too."""
        words = list(dict.fromkeys(print_region(region) for kind in self.kinds for region in kind.regions))
        return tuple(words[: len(INKS)]) if len(words) <= len(INKS) else (*words[: len(INKS) - 1], "other keys")

    def picture(self) -> Picture:
        """A panel for each kind of groups."""
        inks = self.inks
        panels = []
        for kind in self.kinds:
            layers = tuple(
                Layer(_ink(inks, print_region(region)), levels(kind.own(n))) for n, region in enumerate(kind.regions)
            )
            first = kind.unions[0]
            slots = sum(capacity(region, self.keys) for region in kind.regions)
            title, note = name_members("KV group", kind.groups), f"{slots} of {self.keys} slots"
            panels.append(Panel(title, first.rows, first.columns, layers, note))
        whole = self.layout.slots(self.keys) / (self.keys * len(self.layout.groups))
        details = f"{percent(whole)} of the slots of a cache of every key"
        hidden = len(set(self.layout.groups)) - len(self.kinds)
        if hidden:
            details += f"; {hidden} more kinds of groups are not drawn"
        return Picture(self.title, details, tuple(panels), "tokens so far", "key j", inks or ("nothing",))

    def text(self, width: int = 80, shades: Shades = ASCII) -> str:
        """The share of keys that all regions hold, in characters."""
        held = [kind.unions[-1] for kind in self._coarse().kinds]
        said = [
            f"{name_members('KV group', kind.groups)}: {'; '.join(map(print_region, kind.regions)) or 'nothing'}"
            for kind in self.kinds
        ]
        drawn = draw(held, whole_view(self.keys), width, shades, what="KV group", rows="tokens so far")
        return "\n".join([self.title, "", drawn, *said, ""])

    def _coarse(self) -> CacheDrawing:
        return _TextCache(self.name, self.layout, self.keys)

    def svg(self) -> str:
        return draw_svg(self.picture())

    def html(self) -> str:
        return page(self.title, [self.svg()])

    def json(self) -> str:
        """Of each kind of groups: its regions in words, and the share of each cell that each region holds."""
        kinds = [
            {
                "groups": list(kind.groups),
                "rows": kind.unions[0].rows.tolist(),
                "columns": kind.unions[0].columns.tolist(),
                "regions": [
                    {"keeps": print_region(region), "held": np.round(kind.own(n), 6).tolist()}
                    for n, region in enumerate(kind.regions)
                ],
            }
            for kind in self.kinds
        ]
        return json.dumps({"of": self.title, "groups": kinds})

    save = save_drawing

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.svg()


class _TextCache(CacheDrawing):
    def _unions(
        self, groups: tuple[int, ...], regions: tuple[Region, ...], cells: tuple[int, int], share: int
    ) -> tuple[HeadCoverage, ...]:
        return super()._unions(groups, regions, (16, 32), share)


def held_band(region: Region) -> Band:
    """The keys of a region that a query at position i, or a later one, may need: those before it that last as long."""
    lower = () if region.start == 0 else (constant(region.start),)
    upper = () if region.stop is None else (constant(region.stop),)
    reach = () if region.reach is None else (query(1 - region.reach),)
    residues = () if region.residue is None else (region.residue,)
    return Band(lower=(*lower, *reach), upper=(*upper, query(1)), congruences=residues)


def _ink(inks: tuple[str, ...], words: str) -> int:
    return inks.index(words) if words in inks else len(inks) - 1

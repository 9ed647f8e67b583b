"""Bands -> the layout of a cache; layout and block mask -> the plan of attention over it.

Invariant: a tile program visits only keys that the layout still holds when the queries come, or that come with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from sparsec.diagnostics.model import SparsecError
from sparsec.ir.bands.classes import BandClass, BlockMask, HeadBands
from sparsec.ir.bands.kept import KeptMarks
from sparsec.ir.bands.liveness import Growth, Region, is_causal, regions
from sparsec.ir.bands.normalise import Effort, TooManyBands, normalise
from sparsec.ir.tiles.project import project
from sparsec.plan.build import fitting_tiles, head_class_of
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.kv.layout import CacheLayout, SlotMap, shape_of, shared_numbers, slot_map_of
from sparsec.sema.inputs import named
from sparsec.sema.model import Documents, ResolvedPattern


class NoCache(SparsecError):
    """A pattern that no cache serves: a query may attend to a key that comes after it, or documents are packed."""


@dataclass(frozen=True, slots=True)
class GroupClass:
    """KV groups that share a slot map; `constants[n]` is (name, value for each of `groups`)."""

    groups: tuple[int, ...]
    constants: tuple[tuple[str, tuple[int, ...]], ...]
    slots: SlotMap


@dataclass(frozen=True)
class CachedPlan:
    """Attention of queries to the keys of a cache, and to those that come with them.

    `attend`: as for a forward pass with nk keys, the last of them the newest query's; `slots[n]` says where its class n
    finds a key that is in the cache already, the slot maps' constants being among the class's own. `store` says where
    each group's new keys go. `regions`: the most that a group has; a kernel reads a table [kv_heads, regions, 2] of
    each region's base and capacity. `kept`: of a cache that has lists of marked keys, which the layout is then beside.
    """

    attend: KernelPlan
    slots: tuple[SlotMap, ...]
    store: tuple[GroupClass, ...]
    layout: CacheLayout
    kept: KeptMarks | None = None

    @cached_property
    def regions(self) -> int:
        return self.layout.most_regions


def cache_layout(pattern: ResolvedPattern, bands_of: HeadBands, effort: Effort) -> CacheLayout:
    """The layout of the cache of a pattern with these bands. Raises NoCache, TooManyBands."""
    if pattern.documents is not Documents.NONE:
        raise NoCache("its documents are packed into one sequence")
    share = pattern.heads // pattern.kv_heads
    found: dict[tuple[int, ...], tuple[tuple[Region, ...], tuple[Growth, ...]]] = {}
    groups: list[tuple[Region, ...]] = []
    growth: list[Growth] = []
    for group in range(pattern.kv_heads):
        distinct = {id(bands): bands for bands in bands_of[group * share : (group + 1) * share]}
        key = tuple(distinct)
        if key not in found:
            try:
                bands = normalise((band for bands in distinct.values() for band in bands), effort)
            except TooManyBands as error:
                raise type(error)(f"{error} for the heads of KV group {group} together", group) from error
            for band in bands:
                if not is_causal(band):
                    origin = named(band.origin, pattern.inputs) or "its set"
                    raise NoCache(f"`{origin}` lets a query attend to a later key")
            found[key] = regions(bands)
        groups.append(found[key][0])
        growth += found[key][1]
    first = {each.reason: each for each in reversed(growth)}  # one of each kind says enough
    said = (replace(each, origin=named(each.origin, pattern.inputs)) for each in reversed(first.values()))
    return CacheLayout(tuple(groups), tuple(said))


def plan_cached(
    pattern: ResolvedPattern,
    layout: CacheLayout,
    mask: BlockMask,
    *,
    head_dim: int,
    value_dim: int | None = None,
    dtype: str,
    query_tile: int,
    key_tile: int,
    kept: KeptMarks | None = None,
    gathers_columns: bool = False,
) -> CachedPlan:
    """The plan of attention over a cache, with tiles of at most the given sizes."""
    tiles = fitting_tiles(mask, query_tile, key_tile)
    share = pattern.heads // pattern.kv_heads
    classes, slots = [], []
    for band_class in mask.classes:
        for part in _by_layout(band_class, layout, share):
            numbers, constants = shared_numbers(tuple(layout.groups[head // share] for head in part.heads))
            head_class = head_class_of(part, project(part, *tiles, gathers_columns=gathers_columns))
            classes.append(replace(head_class, constants=(*head_class.constants, *constants)))
            slots.append(slot_map_of(numbers))
    attend = KernelPlan(
        pattern.heads,
        pattern.kv_heads,
        head_dim,
        head_dim if value_dim is None else value_dim,
        dtype,
        pattern.score,
        tuple(classes),
        declared=pattern.inputs,
    )
    return CachedPlan(attend, tuple(slots), store_classes(layout), layout, kept)


def _by_layout(band_class: BandClass, layout: CacheLayout, share: int) -> list[BandClass]:
    """The class, split into heads whose groups share a slot map."""
    parts: dict[tuple[Region, ...], list[int]] = {}
    for n, head in enumerate(band_class.heads):
        parts.setdefault(shape_of(layout.groups[head // share]), []).append(n)
    return [
        replace(
            band_class,
            heads=tuple(band_class.heads[n] for n in members),
            constants=tuple((name, tuple(values[n] for n in members)) for name, values in band_class.constants),
        )
        for members in parts.values()
    ]


def store_classes(layout: CacheLayout) -> tuple[GroupClass, ...]:
    """The KV groups of a layout by their slot maps, each once."""
    parts: dict[tuple[Region, ...], list[int]] = {}
    for group, kept in enumerate(layout.groups):
        parts.setdefault(shape_of(kept), []).append(group)
    found = []
    for members in parts.values():
        numbers, constants = shared_numbers(tuple(layout.groups[group] for group in members))
        found.append(GroupClass(tuple(members), constants, slot_map_of(numbers)))
    return tuple(found)

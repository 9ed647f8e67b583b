"""A pattern's cached launch plan and the module of its kernels -> what is launched on one device, class by class.

Invariant: in how many parts keys are taken follows from shapes and the device alone, never from lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Self

import torch
from torch import Tensor

from sparsec.backends.triton.launches import KernelEntry, processors_of
from sparsec.backends.triton.programs import wanted
from sparsec.ir.bands.kept import KeptMarks
from sparsec.ir.bands.liveness import Region
from sparsec.plan.heads import PackTable
from sparsec.plan.launch import CachedLaunch, LaunchClass
from sparsec.plan.list_shapes import gather_rows, gather_shape, kept_shape
from sparsec.plan.target import (
    DECODE_ROWS,
    MERGED,
    PLAIN,
    STORE_ROWS,
    WALKED_TILES,
    LaunchShape,
    decode_program_rows,
    decode_rows,
    decode_splits,
)
from sparsec.runtime.devices import captured, device_tensor


@dataclass(frozen=True, slots=True)
class CachedText:
    """What kernels over a cache, or over pages, are made from: `emit` gives the text of what `plan` launches."""

    plan: CachedLaunch
    emit: Callable[[], str]
    allow_tf32: bool = False

    @classmethod
    def load(cls, plan: CachedLaunch, source: str) -> Self:
        """The kernels of `source`, which was printed for what `plan` launches."""
        return cls(plan, lambda: source)

    @property
    def source(self) -> str:
        return self.emit()

    def build(self) -> None:
        """Kernels are built at their first launch."""


@dataclass(frozen=True, slots=True)
class ClassKernels:
    """Of one class, for a chunk or for so many query rows; None for a kernel that it lacks.

    `visits` finds the tiles that inputs add, `tiles` attends to these and to all others, `gather` takes lists of rows,
    `kept` lists of kept keys.
    """

    visits: KernelEntry | None
    tiles: KernelEntry | None
    gather: KernelEntry | None
    kept: KernelEntry | None
    slots: int
    """Programs of `tiles` for one query tile: one a head of a chunk, or one a pack."""
    packs: int
    """Programs of `gather` for one row."""
    kept_packs: int
    """Programs of `kept` for the rows that it takes at a time."""
    stretch: int
    """How many these are, of a chunk."""
    listed: tuple[int, ...]
    """The tests of the plan whose lists `gather` takes."""


@dataclass(frozen=True, slots=True)
class Parts:
    """In how many parts a class takes its keys: those of tiles, behind them those that rows list, then kept ones."""

    tiles: int
    listed: int
    kept: int

    @property
    def merged(self) -> int:
        """How many `merge` puts together; 0 where one kernel has written the result."""
        beside = self.listed + self.kept
        return self.tiles + beside if beside or self.tiles > 1 else 0


@dataclass(frozen=True, slots=True)
class Entries:
    """All kernels of a pattern over a cache on one device.

    `chunk[apart]` and, of n + 1 query rows, `decode[apart][n]` have the classes; `apart`: inputs tell the query heads
    of a KV group apart, so that these share no program. `append` adds to lists of kept keys. `parts`: of a decoding
    call's classes, for its batch, query rows, slots of the arena, `apart`, of each test how many keys a row lists, and
    the entries that all lists of kept keys have room for.
    """

    chunk: tuple[tuple[ClassKernels, ...], ...]
    decode: tuple[tuple[tuple[ClassKernels, ...], ...], ...]
    merge: KernelEntry
    store: KernelEntry
    append: KernelEntry | None
    parts: Callable[[int, int, int, bool, tuple[int, ...], int], tuple[Parts, ...]]
    _numbers: dict[Hashable, Tensor] = field(default_factory=dict)

    def numbers(self, key: Hashable, make: Callable[[], list[int]]) -> Tensor:
        """int32 numbers that follow from `key`: copied to the device once, for as long as the kernels live."""
        return lasting(self._numbers, self.merge.device, key, make)

    @classmethod
    def of(
        cls, plan: CachedLaunch, module: Any, device: torch.device, target: str, fixed: Mapping[str, object]
    ) -> Entries:
        on, classes = _On(plan, module, device, target, fixed), range(len(plan.chunks.classes))
        apart = (False, True) if plan.chunks.inputs else (False,)
        decode = tuple(
            tuple(tuple(on.decode(n, rows, each) for n in classes) for rows in range(1, DECODE_ROWS + 1))
            for each in apart
        )
        store = {"table": device_tensor(plan.store, device), "ROWS": STORE_ROWS}
        return cls(
            tuple(tuple(on.chunk(n, each) for n in classes) for each in apart),
            decode,
            KernelEntry(module.merge, device, PLAIN, {"PARTS": MERGED}),
            KernelEntry(module.store, device, PLAIN, store),
            None if plan.kept is None else _append(plan.kept, module, device),
            lru_cache(maxsize=64)(partial(_parts, plan, decode, target, processors_of(device))),
        )


@dataclass(frozen=True, slots=True)
class _On:
    """What the entries of a device have in common; a table is copied there once."""

    plan: CachedLaunch
    module: Any
    device: torch.device
    target: str
    fixed: Mapping[str, object]
    _tables: dict[PackTable, dict[str, object]] = field(default_factory=dict)

    def chunk(self, n: int, apart: bool) -> ClassKernels:
        launched = self.plan.chunks.classes[n]
        given = {"table": device_tensor(launched.table, self.device)}
        shape = self.plan.chunk_shape(launched, self.target)
        packs = self.plan.decode_packs(launched, self.target, 1, apart=apart)
        most = decode_rows(self.target, self.plan.few.widest, self.plan.few.dtype)
        return self._kernels(f"attend_{n}", launched, shape, given, len(launched.table), apart, packs, most)

    def decode(self, n: int, rows: int, apart: bool) -> ClassKernels:
        launched = self.plan.few.classes[n]
        packs = self.plan.decode_packs(launched, self.target, rows, apart=apart)
        most = decode_program_rows(len(packs.members[0]) * rows)
        shape = self.plan.decode_shape(launched, self.target, most)
        given = {**self._packed(packs), "ROWS": most}
        return self._kernels(f"decode_{n}", launched, shape, given, len(packs.members), apart, packs, most)

    def _kernels(
        self,
        name: str,
        launched: LaunchClass,
        shape: LaunchShape,
        given: Mapping[str, object],
        slots: int,
        apart: bool,
        kept_packs: PackTable,
        kept_rows: int,
    ) -> ClassKernels:
        """`kept_packs`, `kept_rows`: of programs that take lists of kept keys."""

        def entry(kernel: str, shape: LaunchShape, given: Mapping[str, object]) -> KernelEntry | None:
            function = getattr(self.module, kernel, None)
            return None if function is None else KernelEntry(function, self.device, shape, {**self.fixed, **given})

        plan, packs = self.plan.few, self.plan.decode_packs(launched, self.target, 1, apart=apart)
        of_lists, keys = gather_shape(self.target, plan.head_dim, plan.dtype)
        of_rows = {"ROWS": gather_rows(len(packs.members[0])), "KEYS": keys}
        gather = entry(f"gather_{name}", of_lists, {**self._packed(packs), **of_rows})
        of_kept, kept_keys = kept_shape(self.target, plan.widest, plan.dtype, kept_rows)
        kept = {**self._packed(kept_packs), "ROWS": kept_rows, "KEYS": kept_keys}
        names = () if gather is None else tuple(gather.function.arg_names)
        return ClassKernels(
            entry(f"list_{name}", PLAIN, {**given, "WALK": WALKED_TILES}),
            entry(name, shape, given),
            gather,
            entry(f"kept_{name}", of_kept, kept),
            slots,
            len(packs.members),
            len(kept_packs.members),
            kept_rows // len(kept_packs.members[0]),
            tuple(g for g in range(len(plan.inputs)) if f"entries_{g}" in names),
        )

    def _packed(self, packs: PackTable) -> dict[str, object]:
        if packs not in self._tables:
            self._tables[packs] = {
                "table": device_tensor(packs.table, self.device),
                "members": device_tensor(packs.members, self.device),
                "packs": len(packs.members),
                "width": len(packs.members[0]),
            }
        return self._tables[packs]


def _parts(
    plan: CachedLaunch,
    decode: tuple[tuple[tuple[ClassKernels, ...], ...], ...],
    target: str,
    processors: int,
    batch: int,
    rows: int,
    slots: int,
    apart: bool,
    listed: tuple[int, ...],
    entries: int,
) -> tuple[Parts, ...]:
    few, groups = plan.few, plan.layout.groups
    _, keys = gather_shape(target, few.head_dim, few.dtype)
    found = []
    for launched, of in zip(few.classes, decode[apart][rows - 1], strict=True):
        tiles, own, of_kept = 0, 0, 0
        if of.tiles is not None:
            kept = max(most_iterations(groups[head // few.share], slots, launched.key_tile) for head in launched.heads)
            programs = batch * of.slots * -(-rows // launched.query_tile)
            iterations = kept + most_tiles(rows, launched.key_tile)
            tiles = decode_splits(target, processors, programs, iterations)
        if of.gather is not None:
            longest = max(-(-listed[g] // keys) for g in of.listed)
            own = decode_splits(target, processors, batch * rows * of.packs, longest)
        if of.kept is not None:
            size = of.kept.fixed["KEYS"]
            assert isinstance(size, int)
            # One list may have most of the entries.
            of_kept = decode_splits(target, processors, batch * of.kept_packs, -(-entries // size))
        found.append(Parts(tiles, own, of_kept))
    return tuple(found)


def _append(kept: KeptMarks, module: Any, device: torch.device) -> KernelEntry:
    given = {"wanted": device_tensor(wanted(kept), device), "ROWS": STORE_ROWS}
    return KernelEntry(module.append, device, PLAIN, given)


def lasting(held: dict[Hashable, Tensor], device: torch.device, key: Hashable, make: Callable[[], list[int]]) -> Tensor:
    """int32 numbers that follow from `key`, of `held`: copied to the device once."""
    found = held.get(key)
    if found is None:
        if captured(device):  # nothing is copied, and nothing that is made lasts
            return torch.stack([torch.full((), n, dtype=torch.int32, device=device) for n in make()])
        found = held.setdefault(key, device_tensor(make(), device))
    return found


def most_tiles(rows: int, size: int) -> int:
    """The most tiles of an absolute grid that `rows` rows may touch."""
    return -(-(rows - 1) // size) + 1


def most_iterations(group: tuple[Region, ...], slots: int, key_tile: int) -> int:
    """At least as many key tiles as one query may need of the group's arena."""
    tiles = 0
    for region in group:
        keys = region.reach
        if region.stop is not None:
            keys = min(keys or region.stop, region.stop - region.start)
        tiles += most_tiles(min(slots, slots if keys is None else keys) + 1, key_tile)
    return tiles

"""A pattern's kernels over a cache -> launches that add the mass of keys, from the log-sum-exps that attention left.

Invariant: the programs of one launch add to different keys, each in the same order every time, and launches add one
after the other: two runs give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsec.backends.base import KeyMass
from sparsec.backends.triton.asking import find_visits
from sparsec.backends.triton.launches import KernelEntry, launch
from sparsec.plan.launch import CachedLaunch, LaunchClass
from sparsec.plan.list_shapes import gather_rows, gather_shape, kept_shape
from sparsec.plan.target import PLAIN, WALKED_TILES, LaunchShape, decode_rows, decode_splits
from sparsec.runtime.devices import device_tensor


@dataclass(frozen=True, slots=True)
class ClassMass:
    """Of one class, None for a kernel that it lacks; `kept` takes `entries` of a list at a time."""

    launched: LaunchClass
    visits: KernelEntry | None
    tiles: KernelEntry | None
    lists: KernelEntry | None
    kept: KernelEntry | None
    entries: int


@dataclass(frozen=True, slots=True)
class MassKernels:
    """All of a pattern on one device, which has so many `processors`."""

    classes: tuple[ClassMass, ...]
    target: str
    processors: int

    @classmethod
    def of(
        cls,
        plan: CachedLaunch,
        module: Any,
        device: torch.device,
        target: str,
        processors: int,
        fixed: Mapping[str, object],
    ) -> MassKernels:
        chunks = plan.chunks

        def of_class(n: int, launched: LaunchClass) -> ClassMass:
            table = device_tensor(launched.table, device)

            def entry(kernel: str, shape: LaunchShape, **given: object) -> KernelEntry | None:
                function = getattr(module, f"{kernel}_{n}", None)
                return (
                    None
                    if function is None
                    else KernelEntry(function, device, shape, {**fixed, "table": table, **given})
                )

            of_lists, keys = gather_shape(target, chunks.head_dim, chunks.dtype)
            rows = decode_rows(target, chunks.widest, chunks.dtype)
            of_kept, entries = kept_shape(target, chunks.widest, chunks.dtype, rows)
            return ClassMass(
                launched,
                entry("list_attend", PLAIN, WALK=WALKED_TILES),
                entry("mass", plan.chunk_shape(launched, target)),
                entry("gather_mass", of_lists, ROWS=gather_rows(1), KEYS=keys),
                entry("kept_mass", of_kept, ROWS=rows, KEYS=entries),
                entries,
            )

        return cls(tuple(of_class(n, launched) for n, launched in enumerate(chunks.classes)), target, processors)

    def add(
        self,
        mass: KeyMass,
        groups: Tensor,
        given: Mapping[str, object],
        of_classes: Sequence[tuple[Mapping[str, object], int]],
        q: Tensor,
        reach: int,
        room: int,
    ) -> None:
        """Adds to `mass.sums` what the queries give; `given` has their `lse`.

        `groups`: int32 [kv_heads], 0 for those that are left out. `of_classes`: of each class its tables of draws and
        the most query tiles of a sequence. `reach`, `room`: the most keys that a sequence and all lists of kept keys
        may have.
        """
        batch, keys = q.shape[0], mass.sums.shape[2]
        for each, (draws, tiles) in zip(self.classes, of_classes, strict=True):
            launched = each.launched
            programs = batch * len(launched.table)
            own: dict[str, object] = {**given, **draws, "mass": mass.sums, "mass_groups": groups, "mass_keys": keys}
            own["tiles"] = tiles
            if each.tiles is not None:
                if each.visits is not None:
                    find_visits(each.visits, programs * tiles, -(-reach // launched.key_tile), own)
                self._launch(each.tiles, programs, -(-keys // launched.key_tile), own)
            if each.lists is not None:
                self._launch(each.lists, programs, -(-keys // launched.key_tile), own)
            if each.kept is not None:
                self._launch(each.kept, programs, -(-room // each.entries), own)

    def _launch(self, entry: KernelEntry, programs: int, most: int, given: Mapping[str, object]) -> None:
        """`most`: into how many shares the keys of a head can be split."""
        splits = decode_splits(self.target, self.processors, programs, most)
        launch(entry, programs * splits, {**given, "splits": splits})

"""The kernels of a head class that its inputs alone call for: which tiles to visit, and the lists of rows.

Invariant: their launches and buffers follow from shapes, never from what the inputs hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sparsec.backends.triton.launches import KernelEntry, Recorded, derived, launch
from sparsec.ir.bands.band import Asks
from sparsec.plan.launch import LaunchClass, LaunchPlan
from sparsec.plan.list_shapes import gather_rows, gather_shape
from sparsec.plan.target import PLAIN, WALKED_TILES
from sparsec.runtime.devices import device_tensor


@dataclass(frozen=True, slots=True)
class KeyGather:
    """What keys get from one list of rows, test `test` of the plan, of `width` keys an entry: gradients, or a mass."""

    entry: KernelEntry
    test: int
    width: int
    parts: int
    """Programs that share the keys of an entry, for each of the `spans`: KV groups or, for a mass, heads."""
    spans: int


@dataclass(frozen=True, slots=True)
class Asking:
    """`visits` finds tiles; `gather` takes the lists of rows, of heads together, `apart` one by one; None for none."""

    heads: int
    visits: KernelEntry | None
    gather: KernelEntry | None
    apart: KernelEntry | None
    of_keys: tuple[KeyGather, ...]

    @classmethod
    def of(
        cls,
        module: Any,
        name: str,
        device: torch.device,
        target: str,
        plan: LaunchPlan,
        launched: LaunchClass,
        fixed: Mapping[str, object],
    ) -> Asking:
        """Those of the tile kernel `name` of `module`, which need not be there itself."""

        def entry(kernel: str, **given: object) -> KernelEntry | None:
            function, shape = getattr(module, kernel, None), given.pop("shape", PLAIN)
            return None if function is None else KernelEntry(function, device, shape, {**fixed, **given})  # type: ignore[arg-type]  # a LaunchShape

        shape, keys = gather_shape(target, plan.head_dim, plan.dtype)
        spans = plan.spans(launched)
        alone = tuple((head // plan.share, n, 1) for n, head in enumerate(launched.heads))
        heads_differ = len(launched.table[0]) > 1
        of_keys, places = [], alone if name.startswith("key_mass") else spans
        for g, test in enumerate(plan.inputs):
            if test.asks is Asks.ROW:
                most = min(keys, gather_rows(test.width))
                found = entry(
                    f"gather_{name}_{g}", shape=shape, ROWS=keys, KEYS=most, spans=device_tensor(places, device)
                )
                if found is not None:
                    of_keys.append(KeyGather(found, g, test.width, -(-test.width // most), len(places)))

        def of_rows(places: Sequence[object]) -> KernelEntry | None:
            taken = {"ROWS": gather_rows(max(count for _, _, count in spans)), "KEYS": keys, "slots_a_row": len(places)}
            return entry(f"gather_{name}", shape=shape, spans=device_tensor(places, device), **taken)

        return cls(
            len(launched.table),
            entry(f"list_{name.replace('key_mass', 'grad_keys')}", WALK=WALKED_TILES),
            of_rows(alone if heads_differ else spans),
            of_rows(alone),
            tuple(of_keys),
        )

    @property
    def gathers(self) -> bool:
        return self.gather is not None or bool(self.of_keys)

    def find_visits(self, places: int, tiles: int, given: dict[str, object], recorded: Recorded | None) -> None:
        """Has the tiles found that each of the `places` visits, of `tiles` at most, and adds them to what is given."""
        if self.visits is not None:
            find_visits(self.visits, places * self.heads, tiles, given, recorded)

    def take_rows(self, rows: int, kv_heads: int, given: Mapping[str, object], recorded: Recorded | None) -> None:
        """Takes the lists of `rows` rows, of all sequences together."""
        if self.gather is None or self.apart is None:
            return
        names = [name for name in self.gather.function.arg_names if name.endswith("_heads") and name in given]
        apart = any(int(given[name]) > kv_heads for name in names)  # type: ignore[call-overload]  # a number of heads
        entry = self.apart if apart else self.gather
        launch(entry, rows * int(entry.fixed["slots_a_row"]), given, recorded)  # type: ignore[call-overload]  # a count


def find_visits(
    entry: KernelEntry, programs: int, tiles: int, given: dict[str, object], recorded: Recorded | None = None
) -> None:
    """Has the tiles found that each program visits, of `tiles` at most, and adds them to what is given."""
    row = tiles + 2
    make = partial(torch.empty, (programs, row), dtype=torch.int32, device=entry.device)
    (given["visits"],) = derived(recorded, make)
    given["visits_row"] = row
    launch(entry, programs, given, recorded)

"""Gradients of keys that many queries see -> several tasks for the programs of one key tile, found on the device.

Invariant: tasks and buffers are as many as shapes and the device say, and never more for a longer call than for one
that fills the device; which parts a tile has follows from shapes, so that two runs give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from sparsec._resources import read_data
from sparsec.backends.triton.launches import KernelEntry, Recorded, derived, launch, processors_of
from sparsec.backends.triton.modules import load_module
from sparsec.plan.launch import LaunchClass, LaunchPlan
from sparsec.plan.target import JOINED_ROWS, LONG_WALK, PARTS_A_PROCESSOR, PLAIN, SHARED_TILES, SHORTEST_PART, STRETCHES


@dataclass(frozen=True, slots=True)
class Splits:
    """What shares the query tiles of a class's key tiles: `count` counts a tile's steps, `join` adds up its parts.

    `numbers`: how many a part has, the gradients of keys and of values together. `joins`: programs of `join` a tile.
    `heads`: of a KV group, at most.
    """

    count: KernelEntry
    join: KernelEntry
    numbers: int
    joins: int
    heads: int

    @classmethod
    def of(
        cls,
        module: Any,
        name: str,
        device: torch.device,
        fixed: Mapping[str, object],
        plan: LaunchPlan,
        launched: LaunchClass,
    ) -> Splits | None:
        """Those of the kernel `name` of `module`; None where its key tiles have few query tiles."""
        if not hasattr(module, f"count_{name}"):
            return None
        count, join = (KernelEntry(getattr(module, f"{of}_{name}"), device, PLAIN, fixed) for of in ("count", "join"))
        numbers = launched.key_tile * (plan.head_dim + plan.value_dim)
        return cls(count, join, numbers, launched.key_tile // JOINED_ROWS, plan.share)

    def are_worth(self, query_tiles: int) -> bool:
        """Whether a key tile may have so many steps that they are worth finding tasks."""
        return self.heads * query_tiles >= LONG_WALK

    def share(self, tiles: int, given: dict[str, object], recorded: Recorded | None) -> int:
        """How many tasks `tiles` key tiles are, which are found and given to their kernel."""
        device = self.count.device
        most = PARTS_A_PROCESSOR * processors_of(device)
        make = partial(torch.zeros, (tiles, STRETCHES), dtype=torch.int32, device=device)
        (steps,) = derived(recorded, make)
        launch(self.count, tiles, {**given, "steps": steps}, recorded)
        tasks, joined = shared_tasks(steps, most, SHORTEST_PART, recorded)
        room = (most + min(most, tiles)) * self.numbers  # of a tile in parts the first is beside the others
        (parts,) = derived(recorded, partial(torch.empty, room, dtype=torch.float32, device=device))
        given |= {"SPLIT": True, "tasks": tasks, "key_parts": parts, "joined": joined}
        return most + tiles

    def add_up(self, tiles: int, given: dict[str, object], recorded: Recorded | None) -> None:
        launch(self.join, tiles * self.joins, given, recorded)


UNSHARED = {"SPLIT": False, "tasks": None, "key_parts": None}
"""What a kernel is given where a key tile has one program."""


def shared_tasks(steps: Tensor, most: int, shortest: int, recorded: Recorded | None = None) -> tuple[Tensor, Tensor]:
    """The tasks of key tiles with so many steps in each stretch of the queries, int32 [tiles, stretches]: about equally
    long, but few below `shortest`.

    Returns int32 [most + tiles, 4], of each task its tile (-1: there is none), its first stretch, one past its last,
    and the number of its part, -1 where it is the whole tile; and int32 [tiles, 2], of each tile the number of its
    first part, and how many it has, 0 where it is a whole. Every part has a step. At most `most` + min(`most`, tiles)
    parts are numbered.
    """
    tiles, device = len(steps), steps.device
    make = partial(torch.empty, (most + tiles, 4), dtype=torch.int32, device=device)
    (tasks,) = derived(recorded, make)
    (joined,) = derived(recorded, partial(torch.empty, (tiles, 2), dtype=torch.int32, device=device))
    entry = KernelEntry(_kernel(), device, PLAIN, {"WALK": SHARED_TILES, "STRETCHES": steps.shape[1]})
    given = {"steps": steps, "tasks": tasks, "joined": joined, "tiles": tiles, "most": most, "shortest": shortest}
    launch(entry, 1, given, recorded)
    return tasks, joined


@cache
def _kernel() -> Any:
    return load_module(read_data("templates/triton/tasks.py")).find_tasks

"""Runs a function in several processes that share a gloo process group.

Invariant: they are forked from one process that has imported what they need and done nothing else, so that of all ranks
of a run of tests one waits for torch.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

IMPORTED = ["torch", "hypothesis", "sparsec.distributed.attention", "sparsec.testing.strategies"]


def run(function: Callable[..., None], ranks: int, *arguments: Any, timeout: float = 120.0) -> None:
    """Calls function(*arguments) in each; raises what one of them raises."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.set_forkserver_preload(IMPORTED)
        given = ranks, f"file://{Path(folder) / 'store'}", timeout, function, arguments
        mp.start_processes(_rank, given, nprocs=ranks, start_method="forkserver")  # type: ignore[no-untyped-call]  # torch leaves it untyped


def group_of(ranks: int) -> Any:
    """A group of the first so many ranks, for which every rank has to ask; None where this rank is in none."""
    group = dist.new_group(range(ranks))
    return group if dist.get_rank() < ranks else None


def _rank(
    rank: int, ranks: int, store: str, timeout: float, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=timeout))
    function(*arguments)
    dist.destroy_process_group()

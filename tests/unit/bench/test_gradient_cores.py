"""The tasks of a call for gradients, as the kernel names them, and what is said of how they fall to threads."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsec.backends.cpu.kernel import has_compiler
from sparsec.ir.tiles.interpreter import transposed_visits

BENCH = Path(__file__).parents[2] / "bench"
TILE, HEADS = 64, 8


def loaded(name: str) -> Any:
    """The module of that file, under its own name, by which others import it."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


cores, gradient_cores = loaded("cores"), loaded("gradient_cores")


@pytest.mark.parametrize("name", cores.PATTERNS)
def test_counts_of_shares_are_those_of_the_tiles_visited(name: str) -> None:
    plan, tokens = cores.compilation(name, HEADS, "float32").backward, 1000
    tasks = np.array([(group, first, first + 4) for group in (0, 3) for first in range(0, 16, 4)])
    of_head = {h: (each, n) for each in plan.transposed for n, h in enumerate(each.heads)}
    counts = gradient_cores.counted(plan, tasks, tokens)
    for (group, first, stop), (tiles, full, masked) in zip(tasks.tolist(), counts, strict=True):
        each, n = of_head[group]
        constants = {name: values[n] for name, values in each.constants}
        keys = [(tile * TILE, min(tile * TILE + TILE, tokens)) for tile in range(first, stop)]
        seen = [v for key in keys for v in transposed_visits(each.program, constants, key, tokens, (0, tokens))]
        assert tiles == stop - first and len(seen) > 0
        assert (full, masked) == (sum(v.full for v in seen), sum(not v.full for v in seen))


@pytest.mark.kernels
@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_shares_of_gradients_keep_64_threads_busy() -> None:
    """Each key tile of each head comes once; by the number of tiles, a tenth of the time is idle at most."""
    of = gradient_cores.Gradients.traced("dense", HEADS, optimise=0)
    for tokens in (8192, 32768):
        tasks = of.tasks(of.inputs(tokens, torch.empty))
        tiles = sorted((h, n) for h, first, stop in tasks.tolist() for n in range(first, stop))
        assert tiles == [(h, n) for h in range(HEADS) for n in range(tokens // TILE)]
        full, masked = gradient_cores.counted(of.plan, tasks, tokens)[:, 1:].T
        for threads in (2, 16, 64):
            assert cores.schedule((full + masked).tolist(), (), threads).idle < 0.1
    given = of.inputs(256)
    seconds = np.zeros(cores.ROOM)
    assert (seconds[: len(of.tasks(given, seconds))] > 0).all()

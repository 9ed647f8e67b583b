"""How tasks fall to threads: the simulation, the tasks that kernels name, and the memory that a thread has alone."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsec.backends.cpu.emit import emit_cpp
from sparsec.backends.cpu.emit_cached import emit_cpp_cached
from sparsec.backends.cpu.kernel import has_compiler
from sparsec.ir.tiles.interpreter import visits

CORES = Path(__file__).parents[2] / "bench" / "cores.py"
LINE = 64  # bytes
NEEDS_COMPILER = pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
TILE = 64
LOGGED = """
#include <cstdlib>
#include <pthread.h>
struct Allocation {
  int64_t address, bytes, thread;
};
extern "C" {
Allocation allocations[1024];
int64_t allocated = 0;
}
inline void* logged_alloc(size_t alignment, size_t bytes) {
  void* p = std::aligned_alloc(alignment, bytes);
  const int64_t n = __atomic_fetch_add(&allocated, 1, __ATOMIC_RELAXED);
  allocations[n] = {(int64_t)p, (int64_t)bytes, (int64_t)pthread_self()};
  return p;
}
"""


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location("cores_of_a_machine", CORES)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


cores = loaded()


def test_a_free_thread_takes_the_next_task() -> None:
    costs = [5.0, 1.0, 1.0, 1.0, 4.0]
    assert cores.taken(costs, 1) == sum(costs)
    assert cores.taken(costs, 2) == 7.0  # 5 and then nothing; 1, 1, 1, 4
    assert cores.taken(costs, 9) == max(costs)
    assert cores.dealt_out(costs, 2) == 7.0 and cores.dealt_out(costs, 3) == 6.0 and cores.dealt_out([], 3) == 0.0
    found = cores.schedule(costs, [2.0, 2.0], 2)
    assert found.makespan == 9.0 and found.speed_up == 16 / 9 and found.idle == pytest.approx(1 - 16 / 18)


def test_costs_are_fitted_and_none_is_negative() -> None:
    counts = np.array([(1, n, n % 3) for n in range(9)])
    assert cores.fitted(counts, counts @ [2.0, 3.0, 5.0]) == pytest.approx([2.0, 3.0, 5.0])
    assert (cores.fitted(counts, counts @ [2.0, 3.0, -5.0]) >= 0).all()


@pytest.mark.parametrize("name", cores.PATTERNS)
def test_counts_in_closed_form_are_those_of_the_tiles_visited(name: str) -> None:
    plan, keys = cores.compilation(name, 8, "float32").forward, 1000
    tasks = np.array([(h, n, min(n + TILE, keys)) for h in (0, 3) for n in range(0, keys, TILE)])
    of_head = {h: (each, n) for each in plan.classes for n, h in enumerate(each.heads)}
    for (head, first, stop), (_, full, masked) in zip(tasks, cores.counted(plan, tasks, keys), strict=True):
        each, n = of_head[head]
        constants = {name: values[n] for name, values in each.constants}
        seen = visits(each.program, constants, (int(first), int(stop)), keys)
        assert (full, masked) == (sum(v.full for v in seen), sum(not v.full for v in seen))


@NEEDS_COMPILER
@pytest.mark.kernels
def test_tasks_of_a_call_keep_64_threads_busy() -> None:
    """Each row of each head comes once; by the number of tiles, as costs go, a tenth of the time is idle at most."""
    of = cores.Forward.traced("dense", 8, optimise=0)
    for tokens in (8192, 32768):
        tasks = of.tasks(of.inputs(tokens, torch.empty))
        assert sorted(map(tuple, tasks.tolist())) == [
            (h, n, n + TILE) for h in range(8) for n in range(0, tokens, TILE)
        ]
        full, masked = cores.counted(of.plan, tasks, tokens)[:, 1:].T
        assert (np.diff((full + masked).reshape(8, -1)) <= 0).all()  # a head's longest rows first
        for threads in (2, 16, 64):
            assert cores.schedule((full + masked).tolist(), (), threads).idle < 0.1
    q, k, v = of.inputs(256)
    out, lse = of.call([q, k, v])
    lines: list[set[int]] = []
    for head, first, stop in of.tasks([q, k, v]).tolist():
        written = [t[0, head, first:stop].view(-1) for t in (out, lse)]
        ends = ((t.data_ptr() // LINE, (t.data_ptr() + t.nbytes - 1) // LINE) for t in written)
        lines.append({line for a, b in ends for line in range(a, b + 1)})
    assert len(lines) == 32 and all(a.isdisjoint(b) for a, b in itertools.combinations(lines, 2))


@NEEDS_COMPILER
@pytest.mark.kernels
def test_shares_of_a_row_are_alike_and_all_of_its_tiles() -> None:
    of = cores.Decode.traced("dense", 8, optimise=0)
    for tokens, shares in ((64 * 5, 1), (64 * 9, 2), (4096, 8), (16384, 16)):
        tiles, seconds, merging = of.tasks(tokens, 1)
        assert len(tiles) == len(seconds) == 8 * shares and len(merging) == 8
        assert set(tiles) <= {tokens // TILE // shares, -(-tokens // TILE // shares)} and (seconds > 0).all()
    few, *_ = cores.Decode.traced("s2", 8, optimise=0).tasks(8192, 1)
    assert len(few) == 48 and cores.schedule(few.tolist(), (), 64).idle < 0.5


@NEEDS_COMPILER
@pytest.mark.kernels
def test_threads_share_no_cache_line_of_scratch() -> None:
    """Each makes its own, which is first touched where it is used; what shares of a row leave has lines of its own."""
    of = cores.compilation("dense", 8, "float32")
    source = "\n".join((emit_cpp(of.forward), emit_cpp_cached(*of.cached)))
    assert source.count("std::aligned_alloc(") == 4 and "malloc(" not in source
    source = LOGGED + source.replace("std::aligned_alloc(", "logged_alloc(")
    source += '\nextern "C" int64_t bytes_of_sums() { return sizeof(sparsec_rows::Sum); }\n'
    library = cores.library_of(source, 0)
    assert library.bytes_of_sums() % LINE == 0
    count = ctypes.c_int64.in_dll(library, "allocated")
    log = (ctypes.c_int64 * 3 * 1024).in_dll(library, "allocations")
    forward, decode = cores.Forward(of.forward, library), cores.Decode(of, library)
    for call, shared in (
        (lambda: forward.call(forward.inputs(512)), 0),
        (decode.call(4096, library.sparsec_attend_rows), 1),
    ):
        count.value = 0
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        call()
        torch.set_num_threads(before)
        made = [tuple(each) for each in log[: count.value]]
        assert len(made) == 2 + shared
        assert all(address % LINE == 0 and size % LINE == 0 for address, size, _ in made)
        assert len({thread for _, _, thread in made[shared:]}) == 2

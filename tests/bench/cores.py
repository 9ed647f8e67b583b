"""Simulates how the tasks of a CPU call fall to 1, 2, 4 .. 128 threads, and measures 1 and 2 of them here.

    python tests/bench/cores.py                             # dense, sink + window and S2, 8k and 32k, 8 and 32 heads
    python tests/bench/cores.py --pattern s2 --tokens 8192 --heads 8 --decode

The kernel itself says which tasks a call has, and in which order its threads take them. What one costs is a closed
form: so much for a task, for a full tile and for a masked one, by a least-squares fit to the tasks of a shorter call,
timed one by one on one thread. A free thread takes the next task. Printed are the longest task (the critical path, for
tasks wait for nothing; merging waits for all shares), the speed-up and the idle share of the threads. What threads
share is not modelled: memory bandwidth, caches, clocks.
"""

from __future__ import annotations

import argparse
import ctypes
import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import sparsec
from sparsec.backends.base import Cached
from sparsec.backends.cpu.cached import CpuCached, Entries
from sparsec.backends.cpu.emit import emit_cpp
from sparsec.backends.cpu.emit_cached import emit_cpp_cached
from sparsec.backends.cpu.kernel import TORCH_DTYPES, CpuKernel, compile_shared, open_library
from sparsec.ir.expr.evaluate import evaluate
from sparsec.ir.expr.nodes import TRUE
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.kernel import HeadClass, KernelPlan
from sparsec.plan.launch import CachedLaunch, LaunchPlan

FIGURES = Path(__file__).parent / "figures.sparse"
PATTERNS = ("dense", "sink_window", "s2")
THREADS = (1, 2, 4, 8, 16, 32, 64, 128)
DIM = 64
CALIBRATED = 4096
"""Tokens of the call whose tasks are timed one by one."""
ROOM = 1 << 20
"""Tasks of a call at most."""
TRACE_FORWARD = """
#include <chrono>
namespace sparsec_kernel { namespace {
Work* new_work() {
  Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
  for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
  return w;
}
}}
// Of each task in order: head, rows from .. to - 1, and the seconds that it takes, if they are asked for.
extern "C" int64_t trace_forward(const sparsec_call* call, int64_t room, int64_t* to, double* seconds) {
  using namespace sparsec_kernel;
  const Tasks tasks(*call);
  Work* w = new_work();
  if (!tasks.ready() || !w || tasks.count > room) return -1;
  for (int64_t n = 0; n < tasks.count; ++n, to += 3) {
    const Task task = tasks[n];
    const auto from = std::chrono::steady_clock::now();
    if (seconds) {
      run_task(*w, *call, task, tasks[std::min(n + 1, tasks.count - 1)]);
      seconds[n] = std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
    }
    to[0] = task.head, to[1] = maximum(task.tile.base, task.tile.part.q0);
    to[2] = minimum(task.tile.base + QUERY_TILE, task.tile.part.q1);
  }
  std::free(w);
  return tasks.count;
}
"""
TRACE_ROWS = """
#include <chrono>
// Of each task in order: the tiles of its share, and seconds; then those of the merging of each row and head.
extern "C" int64_t trace_rows(const sparsec_cached_call* call, int64_t room, int64_t* to, double* seconds) {
  using namespace sparsec_rows;
  if (!sound(*call)) return -1;
  const int most = most_tasks(*call);
  const int64_t rows = call->batch * call->n, tasks = rows * PACK_COUNT * most;
  Sum* sums = static_cast<Sum*>(std::aligned_alloc(alignof(Sum), rows * HEADS * most * sizeof(Sum)));
  Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
  if (!sums || !w || tasks + rows * HEADS > room) return -1;
  for (int n = 0; n < PANEL; ++n) w->lane[n / LANES][n % LANES] = n;
  const auto now = [] { return std::chrono::steady_clock::now(); };
  for (int64_t n = 0; n < tasks; ++n) {
    const auto from = now();
    const RowTask task = row_task(*call, most, n);
    Sum* const to_sums = sums_of(*call, most, task, sums);
    run_task(*w, *call, task.b, PACKS[task.pack], task.row, task.share, call->n * most, to_sums);
    seconds[n] = std::chrono::duration<double>(now() - from).count();
    to[n] = (w->stop == INT32_MAX ? w->turn : w->stop) - w->first;
  }
  for (int64_t n = 0; n < rows * HEADS; ++n) {
    const auto from = now();
    const int64_t b = n / call->n / HEADS, h = n / call->n % HEADS;
    merge(*call, h, sums + n * most, tasks_of(*call, b, h / SHARE), (element*)call->out + n * DV, call->lse + n);
    seconds[tasks + n] = std::chrono::duration<double>(now() - from).count();
  }
  std::free(w);
  std::free(sums);
  return tasks;
}
"""


@dataclass(frozen=True)
class Schedule:
    """A call on `threads` threads; seconds."""

    threads: int
    makespan: float
    work: float

    @property
    def speed_up(self) -> float:
        return self.work / self.makespan

    @property
    def idle(self) -> float:
        """The share of the threads' time in which they wait for others."""
        return max(1 - self.work / (self.threads * self.makespan), 0.0)


def taken(costs: Sequence[float], threads: int) -> float:
    """When all tasks are done if a free thread always takes the next one."""
    free = [0.0] * threads
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def dealt_out(costs: Sequence[float], threads: int) -> float:
    """The same if each thread has been given its tasks before: as many neighbours as the others, or one more."""
    each, more = divmod(len(costs), threads)
    ends = [n * each + min(n, more) for n in range(threads + 1)]
    return max((sum(costs[a:b]) for a, b in pairwise(ends)), default=0.0)


def schedule(tasks: Sequence[float], merging: Sequence[float], threads: int) -> Schedule:
    """Of tasks that are taken, then, after all of them, of merging that is dealt out."""
    return Schedule(threads, taken(tasks, threads) + dealt_out(merging, threads), sum(tasks) + sum(merging))


def compilation(name: str, heads: int, dtype: str) -> Compilation:
    pattern = sparsec.parse(FIGURES.read_text()).pattern(name).resolve(heads, heads)
    return Compilation(Lowered(pattern), DIM, DIM, dtype, "cpu")


def tiles_of(of: HeadClass, constants: dict[str, int], first: int, stop: int, keys: int) -> tuple[int, int]:
    """How many tiles the rows first .. stop - 1 see in full and through a mask, in closed form."""
    values = {**constants, "i0": first, "i1": stop - 1, "nk": keys}
    for let in of.program.lets:
        values[let.name] = evaluate(let.value, values)
    counts = []
    for segments in (of.program.full, of.program.masked):
        assert all(segment.when == TRUE for segment in segments), "no input, no draws"
        counts.append(sum(evaluate(segment.count, values) for segment in segments))
    return counts[0], counts[1]


def counted(plan: KernelPlan, tasks: np.ndarray, keys: int) -> np.ndarray:
    """Of each task, a row (1, full tiles, masked tiles)."""
    of_head = {
        head: (number, tuple((name, values[n]) for name, values in each.constants))
        for number, each in enumerate(plan.classes)
        for n, head in enumerate(each.heads)
    }

    @cache
    def known(number: int, constants: tuple[tuple[str, int], ...], first: int, stop: int) -> tuple[int, int]:
        return tiles_of(plan.classes[number], dict(constants), first, stop, keys)

    return np.array([(1, *known(*of_head[head], first, stop)) for head, first, stop in tasks.tolist()])


def fitted(counts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Seconds of each column of counts, none below 0."""
    columns = list(range(counts.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(counts[:, columns].astype(float), seconds, rcond=None)
        if (found >= 0).all():
            costs = np.zeros(counts.shape[1])
            costs[columns] = found
            return costs
        columns.remove(columns[int(found.argmin())])


def library_of(source: str, optimise: int = 3) -> ctypes.CDLL:
    return open_library(compile_shared(source, optimise=optimise))


def traced_tasks(
    trace: Callable[..., int], run: Callable[[Callable[[bytes], int]], object], seconds: np.ndarray | None
) -> np.ndarray:
    """The three numbers of each task of a call, which `run` makes with the entry point that it is given: `trace`."""
    rows, found = np.empty((ROOM, 3), dtype=np.int64), 0

    def entry(call: bytes) -> int:
        nonlocal found
        at = None if seconds is None else ctypes.c_void_p(seconds.ctypes.data)
        found = trace(call, ctypes.c_int64(ROOM), ctypes.c_void_p(rows.ctypes.data), at)
        return int(found < 0)

    run(entry)
    return rows[:found]


def calibrated(
    timed: Callable[[np.ndarray], np.ndarray], count: Callable[[np.ndarray], np.ndarray], repeats: int
) -> tuple[np.ndarray, float]:
    """Seconds of each column of counts, by the least time of each task; and what part of that time these miss.

    `timed` gives the tasks and puts the seconds of each into what it is given, `count` the counts of tasks.
    """
    times = []
    for _ in range(repeats):
        seconds = np.zeros(ROOM)
        tasks = timed(seconds)
        times.append(seconds[: len(tasks)])
    counts, least = count(tasks), np.min(times, axis=0)
    costs = fitted(counts, least)
    return costs, float(np.abs(counts @ costs - least).sum() / least.sum())


@dataclass(frozen=True)
class Forward:
    """The forward kernel of a plan in a library; one that `traced` has built also says what its tasks are."""

    plan: KernelPlan
    library: ctypes.CDLL

    @staticmethod
    def traced(name: str, heads: int, dtype: str = "float32", *, optimise: int = 3) -> Forward:
        plan = compilation(name, heads, dtype).forward
        library = library_of(emit_cpp(plan) + TRACE_FORWARD, optimise)
        library.trace_forward.restype = ctypes.c_int64
        return Forward(plan, library)

    @property
    def dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.plan.dtype]

    def inputs(self, tokens: int, make: Callable[..., Tensor] = torch.randn) -> list[Tensor]:
        return [make(1, heads, tokens, DIM, dtype=self.dtype) for heads in (self.plan.heads, *[self.plan.kv_heads] * 2)]

    def call(self, qkv: Sequence[Tensor], entry: Callable[[bytes], int] | None = None) -> tuple[Tensor, Tensor]:
        q, k, v = qkv
        kernel = CpuKernel(LaunchPlan.of(self.plan), "", entry or self.library.sparsec_forward)
        return kernel.forward(q, k, v, q_offset=0, scale=None, lists=())

    def tasks(self, qkv: Sequence[Tensor], seconds: np.ndarray | None = None) -> np.ndarray:
        """[tasks, 3]: head, and rows from .. to - 1, in order; runs and times each if `seconds` has room for that."""
        return traced_tasks(self.library.trace_forward, partial(self.call, qkv), seconds)

    def costs(self, repeats: int = 3) -> tuple[np.ndarray, float]:
        """Seconds of a task, a full and a masked tile; and what part of the tasks' time these miss."""
        qkv = self.inputs(CALIBRATED)
        return calibrated(partial(self.tasks, qkv), lambda tasks: counted(self.plan, tasks, CALIBRATED), repeats)


@dataclass(frozen=True)
class Decode:
    """The kernels of plans over a cache in a library; one that `traced` has built also says what a row's tasks are."""

    of: Compilation
    library: ctypes.CDLL

    @staticmethod
    def traced(name: str, heads: int, dtype: str = "float32", *, optimise: int = 3) -> Decode:
        of = compilation(name, heads, dtype)
        library = library_of(emit_cpp_cached(*of.cached) + TRACE_ROWS, optimise)
        library.trace_rows.restype = ctypes.c_int64
        return Decode(of, library)

    def call(self, tokens: int, attend_rows: Callable[[bytes], int], batch: int = 1) -> Callable[[], object]:
        """Of one new token of each sequence, which then has `tokens`."""
        launch, library, heads = CachedLaunch.of(*self.of.cached), self.library, self.of.pattern.heads
        layout, regions, dtype = launch.layout, launch.regions, TORCH_DTYPES[self.of.dtype]
        table = [[*group, *[(0, 0)] * (regions - len(group))] for group in layout.places(tokens)]
        places = torch.tensor(table, dtype=torch.int32).view(-1, regions, 2)
        keys, values = (torch.randn(batch, layout.slots(tokens), DIM, dtype=dtype) for _ in range(2))
        lengths = torch.full((batch,), tokens - 1, dtype=torch.int32)
        cached = Cached(keys, values, lengths, None, places, max_len=tokens)
        q, k, v = (torch.randn(batch, heads, 1, DIM, dtype=dtype) for _ in range(3))
        entries = Entries(library.sparsec_attend_chunk, attend_rows, library.sparsec_store)
        kernel = CpuCached(launch, "", lambda: entries, 1)
        return lambda: kernel.attend(q, k, v, cached, scale=None)

    def tasks(self, tokens: int, repeats: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tiles of each task, its seconds, and those of the merging of each row and head."""
        tiles, times, count = np.zeros(ROOM, dtype=np.int64), [], 0

        def entry(call: bytes) -> int:
            nonlocal count
            seconds = np.zeros(ROOM)
            room, to = ctypes.c_int64(ROOM), (ctypes.c_void_p(each.ctypes.data) for each in (tiles, seconds))
            count = self.library.trace_rows(call, room, *to)
            times.append(seconds)
            return int(count < 0)

        call = self.call(tokens, entry)
        for _ in range(repeats):
            call()
        least = np.min(times, axis=0)
        return tiles[:count], least[:count], least[count : count + self.of.pattern.heads]


def table(tasks: Sequence[float], merging: Sequence[float] = ()) -> None:
    found = [schedule(tasks, merging, threads) for threads in THREADS]
    print(f"  {len(tasks)} tasks, {sum(tasks) * 1e3:.2f} ms of work, the longest {max(tasks) * 1e3:.3f} ms")
    print("  threads  " + "".join(f"{each.threads:>8}" for each in found))
    print("  speed-up " + "".join(f"{each.speed_up:>8.2f}" for each in found))
    print("  idle     " + "".join(f"{each.idle:>8.1%}" for each in found))


def compare(call: Callable[[], object], tasks: Sequence[float], merging: Sequence[float], repeats: int) -> None:
    """Prints the speed-up of two threads here, by the least times of calls on one and on two in turn, and as predicted;
    for a machine that does other work too, the least times of its processors, of all threads together, as well."""
    before = torch.get_num_threads()
    passed, used = ([float("inf")] * 2 for _ in range(2))
    for _ in range(repeats):
        for n in range(2):
            torch.set_num_threads(n + 1)
            began = time.perf_counter(), time.process_time()
            call()
            passed[n] = min(passed[n], time.perf_counter() - began[0])
            used[n] = min(used[n], time.process_time() - began[1])
    torch.set_num_threads(before)
    predicted = schedule(tasks, merging, 2).speed_up
    print(
        f"  here: {passed[0] * 1e3:.2f} ms on 1 thread, {passed[1] * 1e3:.2f} on 2: {passed[0] / passed[1]:.2f}, "
        f"predicted {predicted:.2f}; of processors {used[0] * 1e3:.2f} and {used[1] * 1e3:.2f}"
    )


def forward(name: str, tokens: Sequence[int], heads: int, dtype: str, repeats: int) -> None:
    of = Forward.traced(name, heads, dtype)
    costs, error = of.costs()
    task, full, masked = costs * 1e6
    said = f"{task:.1f} us a task, {full:.1f} a full tile, {masked:.1f} a masked one ({error:.1%} off)"
    print(f"{name}, {heads} heads: {said}")
    for n in tokens:
        tasks = of.tasks(of.inputs(n, torch.empty))
        print(f" {n} tokens")
        times = (counted(of.plan, tasks, n) @ costs).tolist()
        table(times)
        if repeats and n == min(tokens):
            compare(partial(of.call, of.inputs(n)), times, (), repeats)


def decode(name: str, tokens: Sequence[int], heads: int, dtype: str, repeats: int) -> None:
    of = Decode.traced(name, heads, dtype)
    for n in tokens:
        tiles, seconds, merging = of.tasks(n)
        counts = np.stack((np.ones(len(tiles)), tiles), axis=1)
        costs = fitted(counts, seconds)
        print(f"{name}, {heads} heads, a step of decoding at {n} tokens, {costs[1] * 1e6:.2f} us a tile")
        times = (counts @ costs).tolist()
        table(times, merging.tolist())
        if repeats:
            compare(of.call(n, of.library.sparsec_attend_rows), times, merging.tolist(), 20 * repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pattern", action="append", choices=PATTERNS, help="may be repeated")
    parser.add_argument("--tokens", action="append", type=int, help="may be repeated; 8192 and 32768 unless given")
    parser.add_argument("--heads", action="append", type=int, help="may be repeated; 8 and 32 unless given")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--decode", action="store_true", help="steps of decoding alone")
    parser.add_argument("--forward", action="store_true", help="forward passes alone")
    parser.add_argument("--repeats", type=int, default=7, help="of what is measured on 1 and 2 threads; 0: nothing is")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.pattern or PATTERNS:
        for heads in asked.heads or (8, 32):
            for each in (*(() if asked.decode else (forward,)), *(() if asked.forward else (decode,))):
                each(name, asked.tokens or (8192, 32768), heads, asked.dtype, asked.repeats)


if __name__ == "__main__":
    main()

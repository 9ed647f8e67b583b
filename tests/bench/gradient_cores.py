"""Simulates how the tasks of a CPU call for gradients fall to 1, 2, 4 .. 128 threads, as `cores.py` does for forward.

    python tests/bench/gradient_cores.py                    # dense, sink + window and S2, 8k and 32k, 8 heads
    python tests/bench/gradient_cores.py --pattern s2 --tokens 8192 --heads 32 --repeats 0

A task is a share of the key tiles of one key head. What one costs is a closed form: so much for a key tile, for a full
tile and for a masked one, by a least-squares fit to the tasks of a shorter call, timed one by one on one thread; adding
its sums to the total is part of it. The rows' LSE and delta before the tasks, and the storing of dq after them, are
left out: they are dealt out to all threads alike.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from cores import CALIBRATED, PATTERNS, Forward, calibrated, compare, compilation, library_of, table, traced_tasks
from torch import Tensor

from sparsec.backends.cpu.backward import CpuBackward
from sparsec.backends.cpu.emit import emit_cpp_backward
from sparsec.ir.expr.evaluate import evaluate
from sparsec.plan.kernel import BackwardPlan
from sparsec.plan.launch import BackwardLaunch

TRACE = """
#include <chrono>
// Of each task in order: key head, key tiles from .. to - 1, and the seconds that it takes, if they are asked for.
extern "C" int64_t trace_gradients(const sparsec_backward_call* call, int64_t room, int64_t* to, double* seconds) {
  using namespace sparsec_gradients;
  const Tiling<sparsec_backward_call> tiling(*call, KEY_TILE, true);
  const OwnGradients gathered(*call);
  const ColumnGradients listed(*call);
  const int64_t rows = call->batch * HEADS * call->n_q, chunks = call->batch * HEADS * chunks_of(*call);
  const std::unique_ptr<float[]> dq(new float[rows * WIDE]), of_rows(new float[2 * rows]());
  const std::unique_ptr<uint8_t[]> touched(new uint8_t[chunks]());
  Shares shares(*call, tiling.count(), dq.get(), touched.get());
  Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
  if (!w || !shares.ready() || shares.tasks() > room) return -1;
  for (int n = 0; n < PANEL; ++n) w->lane[n / LANES][n % LANES] = n;
  for (int64_t n = 0; n < shares.tasks(); ++n, to += 3) {
    const Share share = shares[n];
    const auto from = std::chrono::steady_clock::now();
    if (seconds) {
      Sums* const sums = shares.start(share);
      for (int64_t tile = share.first; tile < share.stop; ++tile)
        run_tile(*w, *call, gathered, listed, {of_rows.get(), of_rows.get() + rows}, *sums, share.group / KV_HEADS,
                 share.group % KV_HEADS, tiling[tile]);
      shares.finish(share, sums);
      seconds[n] = std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
    }
    to[0] = share.group, to[1] = share.first, to[2] = share.stop;
  }
  std::free(w);
  return shares.tasks();
}
"""


def counted(plan: BackwardPlan, tasks: np.ndarray, tokens: int) -> np.ndarray:
    """Of each task, a row (key tiles, full tiles, masked tiles), for as many queries as keys, in closed form."""
    size, share = plan.transposed[0].program.key_tile, plan.forward.heads // plan.forward.kv_heads
    of_head = {
        head: (number, tuple((name, values[n]) for name, values in each.constants))
        for number, each in enumerate(plan.transposed)
        for n, head in enumerate(each.heads)
    }

    @cache
    def known(number: int, constants: tuple[tuple[str, int], ...], tile: int) -> tuple[int, int]:
        program = plan.transposed[number].program
        ends = {"j0": tile * size, "j1": min(tile * size + size, tokens) - 1, "nk": tokens}
        values = {**dict(constants), **ends, "base": 0, "begin": 0, "end": tokens}
        for let in program.lets:
            values[let.name] = evaluate(let.value, values)
        full, masked = (sum(evaluate(each.count, values) for each in of) for of in (program.full, program.masked))
        return full, masked

    found = []
    for group, first, stop in tasks.tolist():
        heads = range(group * share, (group + 1) * share)
        of_tiles = [known(*of_head[head], tile) for head in heads for tile in range(first, stop)]
        found.append((stop - first, *(sum(column) for column in zip(*of_tiles, strict=True))))
    return np.array(found)


@dataclass(frozen=True)
class Gradients:
    """The gradients' kernel of a plan in a library that also says what its tasks are."""

    forward: Forward
    plan: BackwardPlan
    library: ctypes.CDLL

    @staticmethod
    def traced(name: str, heads: int, dtype: str = "float32", *, optimise: int = 3) -> Gradients:
        plan = compilation(name, heads, dtype).backward
        library = library_of(emit_cpp_backward(plan) + TRACE, optimise)
        library.trace_gradients.restype = ctypes.c_int64
        return Gradients(Forward.traced(name, heads, dtype, optimise=optimise), plan, library)

    def call(self, given: Sequence[Tensor], entry: Callable[[bytes], int] | None = None) -> tuple[Tensor, ...]:
        """`given`: q, k, v, out, LSE and the gradient of out."""
        *qkv, out, lse, grad = given
        kernel = CpuBackward(BackwardLaunch.of(self.plan), lambda: entry or self.library.sparsec_backward)
        return kernel.backward(grad, None, *qkv, out, lse, q_offset=0, scale=None, lists=())[:3]

    def inputs(self, tokens: int, make: Callable[..., Tensor] = torch.randn) -> list[Tensor]:
        """Outputs that only have their shape and a finite LSE: what the kernel costs does not depend on numbers."""
        qkv = self.forward.inputs(tokens, make)
        return [*qkv, torch.zeros_like(qkv[0]), torch.zeros(qkv[0].shape[:3]), torch.zeros_like(qkv[0])]

    def tasks(self, given: Sequence[Tensor], seconds: np.ndarray | None = None) -> np.ndarray:
        """[tasks, 3]: key head, and key tiles from .. to - 1, in order; runs and times each if `seconds` has room."""
        return traced_tasks(self.library.trace_gradients, partial(self.call, given), seconds)

    def costs(self, repeats: int = 3) -> tuple[np.ndarray, float]:
        """Seconds of a key tile, a full and a masked tile; and what part of the tasks' time these miss."""
        given = self.inputs(CALIBRATED)
        return calibrated(partial(self.tasks, given), lambda tasks: counted(self.plan, tasks, CALIBRATED), repeats)


def simulated(name: str, tokens: Sequence[int], heads: int, dtype: str, repeats: int) -> None:
    of = Gradients.traced(name, heads, dtype)
    costs, error = of.costs()
    tile, full, masked = costs * 1e6
    said = f"{tile:.1f} us a key tile, {full:.1f} a full tile, {masked:.1f} a masked one ({error:.1%} off)"
    print(f"{name}, {heads} heads, gradients: {said}")
    for n in tokens:
        tasks = of.tasks(of.inputs(n, torch.empty))
        print(f" {n} tokens")
        times = (counted(of.plan, tasks, n) @ costs).tolist()
        table(times)
        if repeats and n == min(tokens):
            compare(partial(of.call, of.inputs(n)), times, (), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pattern", action="append", choices=PATTERNS, help="may be repeated")
    parser.add_argument("--tokens", action="append", type=int, help="may be repeated; 8192 and 32768 unless given")
    parser.add_argument("--heads", action="append", type=int, help="may be repeated; 8 unless given")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--repeats", type=int, default=3, help="of what is measured on 1 and 2 threads; 0: nothing is")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.pattern or PATTERNS:
        for heads in asked.heads or (8,):
            simulated(name, asked.tokens or (8192, 32768), heads, asked.dtype, asked.repeats)


if __name__ == "__main__":
    main()

"""Times a step of attention, forward and backward, on ranks of one thread each against one process of one thread.

    python tests/bench/ranks.py                        # S2 of figures.sparse, 16,384 tokens, 2 ranks
    python tests/bench/ranks.py --pattern stream --tokens 131072 --ranks 8 --repeats 0

Both run in turn, and medians are printed: of the time that passes and, for a machine that does other work too, of the
time that a processor is used, of the rank that uses most. It also prints the bytes of keys and values
that a rank's calls hold, beside those of a sequence up to its last key. The ranks are processes of this machine (gloo).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import sparsec
import sparsec.distributed

FIGURES = Path(__file__).parent / "figures.sparse"
DIM = 64


def seconds(step: Callable[[], object]) -> list[float]:
    """Passed, and of the processor."""
    began = time.perf_counter(), time.process_time()
    step()
    return [time.perf_counter() - began[0], time.process_time() - began[1]]


def work(rank: int, asked: argparse.Namespace, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=asked.ranks)
    attn = sparsec.compile(FIGURES, name=asked.pattern, heads=asked.heads, kv_heads=asked.heads, head_dim=DIM)
    plan = sparsec.distributed.plan(attn, dist.group.WORLD, asked.tokens)
    rows = plan.rows.count if plan.packed is None else plan.packed.count
    held: list[tuple[int, int]] = [(0, 0)] * asked.ranks
    dist.all_gather_object(held, (rows, plan.rows.count))
    if rank == 0:
        print(plan.report())
        size = 2 * DIM * attn.dtype.itemsize
        for each, (packed, spread) in enumerate(held):
            print(
                f"rank {each}: {packed * size / 1e6:.1f} MB of keys and values, {spread * size / 1e6:.1f} MB if spread"
            )
    if asked.repeats:
        generator = torch.Generator().manual_seed(0)
        whole = [torch.randn(1, asked.heads, asked.tokens, DIM, generator=generator) for _ in range(3)]
        own = [plan.shard(each, 2).clone().requires_grad_() for each in whole]
        whole = [each.requires_grad_() for each in whole]
        parallel = attn.parallel(plan)
        alone, together = list[list[float]](), list[list[float]]()
        for _ in range(asked.repeats + 1):
            dist.barrier()
            if rank == 0:
                alone.append(seconds(lambda: attn(*whole).sum().backward()))
            dist.barrier()
            took = torch.tensor(seconds(lambda: parallel(*own).sum().backward()))
            dist.all_reduce(took, dist.ReduceOp.MAX)
            together.append(took.tolist())
        if rank == 0:
            for n, what in enumerate(("passed", "of a processor")):
                one, many = (statistics.median(step[n] for step in each[1:]) for each in (alone, together))
                print(
                    f"s {what}: one process {one:.2f}, {asked.ranks} ranks {many:.2f}, which is {many / one:.2f} of it"
                )
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pattern", default="s2", help="one of figures.sparse")
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7, help="0: no step")
    with tempfile.TemporaryDirectory() as folder:
        asked = parser.parse_args()
        mp.spawn(work, (asked, f"file://{Path(folder) / 'store'}"), nprocs=asked.ranks)


if __name__ == "__main__":
    main()

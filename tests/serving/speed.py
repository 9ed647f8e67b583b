"""Tokens per second against vLLM's own backend for CPUs at 4k and 32k tokens, both servers up, one asked at a time."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass, replace

import torch
from checks import SINK_WINDOW, check, folder_of_run, model_of, options
from models import Sizes, prompt
from server import Asked, Server, ask, served

NEW = 129
LEAST = {4096: 1.0, 32_768: 2.0}
"""Tokens of the prompt -> the least ratio of tokens per second."""
ROUNDS, TOGETHER = {4096: 3, 32_768: 2}, {4096: 4, 32_768: 1}
"""Tokens of the prompt -> how often both servers are asked in turn, and how many requests at once."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second: of prompts, until all have a first new token; of the tokens after that; of both."""

    prompts: float
    new: float
    both: float


def main() -> None:
    dtype = os.environ.get("DTYPE", "float32")
    sizes = replace(Sizes(), head_dim=64, dtype=getattr(torch, dtype))
    started = (*options(5000, max(LEAST) + 256, chunk=2048, seqs=8, dtype=dtype), "--no-enable-prefix-caching")
    folder = folder_of_run()
    sparse, dense = (model_of(folder, f"speed_{dtype}_{len(text)}", text, sizes) for text in (SINK_WINDOW, ""))
    slow = []
    with (
        served(sparse, folder / "speed.log", *started) as ours,
        served(dense, folder / "speed_dense.log", *started, plugin=False) as theirs,
    ):
        for length, least in LEAST.items():
            for server in (ours, theirs):
                measured(server, 1024, 1)
            times = [
                (measured(ours, length, TOGETHER[length]), measured(theirs, length, TOGETHER[length]))
                for _ in range(ROUNDS[length])
            ]
            for what in ("prompts", "new", "both"):
                own, other = (statistics.median(getattr(each[n], what) for each in times) for n in (0, 1))
                ratio = own / other
                print(
                    f"{dtype}, {length} tokens, {what}: {own:.0f} tokens/s, vLLM {other:.0f}: {ratio:.2f}x", flush=True
                )
                if ratio < least:
                    slow.append(f"{length} tokens, {what}: {ratio:.2f}x, not {least}x")
    check(not slow, "; ".join(slow))


def measured(server: Server, length: int, together: int) -> Speed:
    requests = [Asked(prompt(length, n), NEW) for n in range(together)]
    start = time.perf_counter()
    answers = ask(server, requests)
    whole = time.perf_counter() - start
    check(all(len(each.ids) == NEW for each in answers), f"got {answers}")
    last = max(each.times[0] for each in answers)
    later = sum(time > last for each in answers for time in each.times)
    return Speed(together * length / last, later / (whole - last), together * (length + NEW) / whole)


if __name__ == "__main__":
    main()

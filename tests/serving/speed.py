"""Tokens per second against vLLM's own backend for CPUs at 4k and 32k tokens, both servers up, one asked at a time."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from checks import SINK_WINDOW, check, folder_of_run, model_of, options
from models import Sizes, prompt
from server import Asked, Server, ask, served

SIZES = replace(Sizes(), layers=4, head_dim=64)
ROUNDS, NEW, TOGETHER = 3, 65, 2
LEAST = {4096: 1.0, 32_768: 2.0}
"""Tokens of the prompt -> the least ratio of tokens per second."""


def main() -> None:
    folder = folder_of_run()
    started = (*options(5000, max(LEAST) + 128, chunk=2048, seqs=8), "--no-enable-prefix-caching")
    model = model_of(folder, "speed_sparse", SINK_WINDOW, SIZES)
    plain = model_of(folder, "speed_dense", "", SIZES)
    slow = []
    with (
        served(model, folder / "speed.log", *started) as ours,
        served(plain, folder / "speed_dense.log", *started, plugin=False) as theirs,
    ):
        for length, least in LEAST.items():
            for server in (ours, theirs):
                seconds(server, 1024, 8)
            times = [(measured(ours, length), measured(theirs, length)) for _ in range(ROUNDS)]
            for n, what in enumerate(("prompt", "new", "all")):
                own, other = (statistics.median(time[which][n] for time in times) for which in (0, 1))
                print(f"{length} tokens, {what}: {own:.0f} tokens/s, vLLM {other:.0f}: {own / other:.2f}x", flush=True)
            if own / other < least:
                slow.append(f"{length} tokens: {own / other:.2f}x, not {least}x")
    check(not slow, "; ".join(slow))


def measured(server: Server, length: int) -> tuple[float, float, float]:
    """Tokens per second of prompts, of the tokens after the first, and of both together."""
    first, whole = seconds(server, length, 1), seconds(server, length, NEW)
    new = TOGETHER * (NEW - 1)
    return TOGETHER * length / first, new / max(whole - first, 1e-9), (TOGETHER * length + new) / whole


def seconds(server: Server, length: int, new: int) -> float:
    requests = [Asked(prompt(length, n), new) for n in range(TOGETHER)]
    start = time.perf_counter()
    answers = ask(server, requests)
    end = time.perf_counter()
    check(all(len(each.ids) == new for each in answers), f"got {answers}")
    return end - start


if __name__ == "__main__":
    main()

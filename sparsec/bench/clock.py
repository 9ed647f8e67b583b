"""Calls -> the seconds that each takes, by rounds in which all of them run in turn.

Invariant: on a GPU a time is the device's. A call is recorded as a CUDA graph and the graph's replay is timed, so that
the host's share is not in it; a time that has the host's share in it says so.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

Call = Callable[[], object]
FLUSHED_BYTES = 1 << 28
"""Written before each timed replay: more than any L2 holds."""
CALLS_BESIDE_ROUNDS = 5
"""How often `median_seconds` runs each call beside its rounds, at most: to warm up, to record, to replay once."""


@dataclass(frozen=True, slots=True)
class Timed:
    """The median seconds of one call. `host`: whether a GPU waited for the host's launches within them."""

    seconds: float
    host: bool = False


@dataclass(frozen=True, slots=True)
class Recorded:
    """What runs `turns` calls in a row, by a graph's replay if `replays`."""

    run: Call
    turns: int
    replays: bool


def median_seconds(
    calls: Mapping[str, Call | Sequence[Call]], *, repeats: int, device: torch.device
) -> dict[str, Timed]:
    """The median time of each call over `repeats` rounds; every round runs each call once, in an order of its own. One
    round warms up.

    A sequence of calls is one call on several sets of tensors, so that no set is in a cache when its turn comes; its
    time is that of one of them. On a GPU all run on a stream of their own, the warm-up included.
    """
    record = recorder(device)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        recorded = {name: record(_turns(call)) for name, call in calls.items()}
        return timed(recorded, repeats=repeats, device=device)


def recorder(device: torch.device) -> Callable[[Sequence[Call]], Recorded]:
    """Makes calls into what is timed: on a GPU graphs of one stream, on a CPU the calls as they are."""
    if device.type != "cuda":
        return lambda turns: Recorded(_in_a_row(turns), len(turns), False)
    stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return lambda turns: _record(turns, stream)


def _record(turns: Sequence[Call], stream: Any) -> Recorded:
    """The calls as one graph of `stream`, after a warm-up there; as they are where they cannot be recorded."""
    in_a_row = _in_a_row(turns)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        in_a_row()
        in_a_row()  # what the first call makes and keeps is there
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph: Any = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            in_a_row()
        graph.replay()
        torch.cuda.synchronize()
    except RuntimeError:  # an operation that waits for the device, or is no part of a graph
        with suppress(RuntimeError):  # the failed recording's own error may come once more
            torch.cuda.synchronize()
        return Recorded(in_a_row, len(turns), False)
    return Recorded(graph.replay, len(turns), True)


def timed(recorded: Mapping[str, Recorded], *, repeats: int, device: torch.device) -> dict[str, Timed]:
    """As `median_seconds`, of what is recorded already."""
    clock = gpu_clock(device) if device.type == "cuda" else _cpu_seconds
    times: dict[str, list[float]] = {name: [] for name in recorded}
    for turn, order in enumerate(islice(_orders(list(recorded)), repeats + 1)):
        for name in order:
            taken = clock(recorded[name].run)
            if turn:
                times[name].append(taken / recorded[name].turns)
    host = device.type == "cuda"
    return {name: Timed(statistics.median(times[name]), host and not recorded[name].replays) for name in recorded}


def _orders(names: Sequence[str]) -> Iterator[list[str]]:
    """Drawn orders, always the same, in which no name follows itself if there are others: what a call leaves in the
    processor's caches serves the next one, and no call may always follow the same one."""
    draw, last = random.Random(0), ""
    while True:
        order = draw.sample(names, len(names))
        if len(names) == 1 or order[0] != last:
            last = order[-1]
            yield order


def _turns(call: Call | Sequence[Call]) -> Sequence[Call]:
    return (call,) if callable(call) else call


def _in_a_row(turns: Sequence[Call]) -> Call:
    if len(turns) == 1:
        return turns[0]

    def run() -> None:
        for turn in turns:
            turn()

    return run


def _cpu_seconds(call: Call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def gpu_clock(device: torch.device) -> Callable[[Call], float]:
    """Times a call between two events; the fill before it empties the caches and gives the host time to launch."""
    scratch = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device=device)

    def seconds(call: Call) -> float:
        event: Any = torch.cuda.Event
        start, stop = event(enable_timing=True), event(enable_timing=True)
        torch.cuda.synchronize(device)
        scratch.zero_()
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(stop)) / 1000

    return seconds

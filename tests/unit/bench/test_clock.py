"""Rounds, turns, and what is timed on a GPU, of which torch.cuda is a stand-in that counts 1 ms a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise, permutations

import pytest
import torch

from sparsec.bench import clock
from sparsec.bench.clock import CALLS_BESIDE_ROUNDS, Timed, median_seconds

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


def test_rounds_run_every_call_once_each_after_every_other_and_the_first_is_not_counted() -> None:
    ran: list[str] = []
    found = median_seconds({name: lambda name=name: ran.append(name) for name in "abc"}, repeats=20, device=CPU)
    rounds = [ran[n : n + 3] for n in range(0, len(ran), 3)]
    assert len(rounds) == 21 and all(sorted(each) == ["a", "b", "c"] for each in rounds)
    follows = list(pairwise(ran))
    assert {*follows} == {*permutations("abc", 2)}
    assert min(follows.count(pair) for pair in {*follows}) >= 5
    assert set(found) == {*"abc"} and not any(each.host for each in found.values())


def test_two_calls_take_turns() -> None:
    ran: list[str] = []
    median_seconds({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, repeats=3, device=CPU)
    assert "".join(ran) in ("abababab", "babababa")


def test_turns_run_in_a_row_and_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []
    ticks = iter(range(100))
    monkeypatch.setattr(clock.time, "perf_counter", lambda: float(next(ticks)))
    turns = [lambda n=n: order.append(n) for n in range(4)]
    assert median_seconds({"a": turns}, repeats=1, device=CPU) == {"a": Timed(0.25)}
    assert order == [0, 1, 2, 3] * 2


class Card:
    """Stands in for torch.cuda: a host call launches work for 1 ms, which a recording stores and a replay runs."""

    def __init__(self) -> None:
        self.milliseconds = 0.0
        self.recording: list[Callable[[], None]] | None = None
        self.zeroed = 0

    def launch(self, *, waits: bool = False) -> None:
        if self.recording is not None:
            if waits:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.recording.append(lambda: self.launch())
            return
        self.milliseconds += 1.0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        card = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = card.milliseconds

            def elapsed_time(self, stop: Event) -> float:
                return stop.at - self.at

        class Graph:
            def __init__(self) -> None:
                self.stored: list[Callable[[], None]] = []

            def replay(self) -> None:
                for each in self.stored:
                    each()

        class Stream:
            def __init__(self, device: object = None) -> None:
                pass

            def wait_stream(self, other: object) -> None:
                assert isinstance(other, Stream)

        @contextmanager
        def graph(made: Graph, stream: Stream) -> Iterator[None]:
            card.recording = made.stored
            try:
                yield
            finally:
                card.recording = None

        class Scratch:
            def zero_(self) -> None:
                card.zeroed += 1
                card.milliseconds += 7.0

        own = {"Event": Event, "CUDAGraph": Graph, "Stream": Stream, "graph": graph}
        own |= {"current_stream": Stream, "stream": nullcontext, "device": nullcontext}
        for name, value in own.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.cuda, "synchronize", lambda *_: None)
        patch.setattr(clock.torch, "empty", lambda *_, **__: Scratch())


def test_a_replayed_graph_is_timed_after_the_caches_are_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    card, calls = Card(), 0
    card.install(monkeypatch)

    def call() -> None:
        nonlocal calls
        calls += 1
        card.launch()

    assert median_seconds({"a": call}, repeats=3, device=GPU) == {"a": Timed(0.001, host=False)}
    assert calls == 3, "the host runs it to warm up and to record, not in the rounds"
    assert card.zeroed == 4
    assert calls + 1 <= CALLS_BESIDE_ROUNDS, "the replay beside the rounds counts"


def test_what_no_graph_holds_is_launched_by_the_host_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card()
    card.install(monkeypatch)
    calls = {"plain": lambda: card.launch(), "waiting": lambda: card.launch(waits=True)}
    found = median_seconds(calls, repeats=1, device=GPU)
    assert found == {"plain": Timed(0.001, host=False), "waiting": Timed(0.001, host=True)}


def test_turns_of_a_graph_share_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card()
    card.install(monkeypatch)
    turns = [lambda: card.launch(), lambda: (card.launch(), card.launch())]
    assert median_seconds({"a": turns}, repeats=1, device=GPU) == {"a": Timed(0.0015)}

"""Kernels built side by side: each once, as many at a time as there are cores, and none left for the calls."""

from __future__ import annotations

import threading

import pytest
import torch

import sparsec
from sparsec.backends.cpu import kernel as cpu
from sparsec.runtime.build import ahead, at_once


def test_works_run_at_one_time_and_equal_keys_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "cores", lambda: 3)
    meeting, done, told = threading.Barrier(3, timeout=30), [], []

    def work(key: str) -> str:
        meeting.wait()  # passes only where three works are under way
        done.append(key)
        return key.upper()

    works = [(key, lambda key=key: work(key)) for key in ("a", "b", "a", "c")]
    assert at_once.side_by_side(works, lambda n, of: told.append((n, of))) == ("A", "B", "A", "C")
    assert sorted(done) == ["a", "b", "c"]
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_failure_ends_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "cores", lambda: 1)
    begun = []

    def work(n: int) -> None:
        begun.append(n)
        if n == 0:
            raise cpu.BuildError("no")

    with pytest.raises(cpu.BuildError, match="no"):
        at_once.side_by_side([(n, lambda n=n: work(n)) for n in range(50)])
    assert len(begun) < 50


@pytest.mark.kernels
def test_calls_find_what_was_built_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"pattern p {{ causal attend window({n}) }}" for n in (17, 18, 17)]
    modules = [sparsec.compile(text, heads=1, head_dim=16, target="cpu") for text in texts]
    told: list[tuple[int, int]] = []
    ahead.build_ahead(modules, gradients=True, cache=True, progress=lambda n, of: told.append((n, of)))
    assert told[-1] == (4, 4)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("built at a call")

    monkeypatch.setattr("sparsec.backends.cpu.backward.compile_shared", refuse)
    monkeypatch.setattr("sparsec.backends.cpu.cached.compile_shared", refuse)
    for module in modules:
        q, k, v = (torch.randn(1, 1, 30, 16, requires_grad=True) for _ in range(3))
        module(q, k, v).sum().backward()
        with torch.no_grad():
            module(q, k, v, cache=module.new_cache(batch_size=1, max_len=30))


def test_other_targets_have_nothing_to_build() -> None:
    module = sparsec.compile("pattern p { causal attend full }", heads=1, head_dim=16, target="reference")
    ahead.build_ahead([module], gradients=True, cache=True)

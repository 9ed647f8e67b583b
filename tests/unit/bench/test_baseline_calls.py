"""Which baselines run where, under which names, and why others do not."""

from __future__ import annotations

import pytest
import torch

import sparsec
from sparsec.bench.baseline_calls import Passes, baseline_calls
from sparsec.bench.baselines import BaselineAbsent, baselines_on, dense, make_case
from sparsec.integrations.flex import FlexUnavailable
from sparsec.sema.model import ResolvedPattern


def resolved() -> ResolvedPattern:
    return sparsec.parse("pattern p { causal attend window(70) | sink(3) }").pattern().resolve(4, 2)


def test_sdpa_on_a_gpu_is_its_backends_by_name() -> None:
    assert baselines_on(torch.device("cpu"), ("sdpa", "flex")) == ("sdpa", "flex")
    assert baselines_on(torch.device("cuda:1"), ("sdpa", "flex", "flash")) == ("flash", "cudnn", "flex")


def test_a_backend_gives_the_same_result_as_the_free_choice() -> None:
    q, k, v = make_case(resolved(), 1, 100, 16, "float32", "cpu").inputs()
    free, flash = (dense(q, k, v, causal=True, scale=None, backend=name)() for name in ("sdpa", "flash"))
    torch.testing.assert_close(flash, free)


def test_a_backend_that_does_not_run_here_says_why() -> None:
    q, k, v = make_case(resolved(), 1, 100, 16, "float32", "cpu").inputs()
    with pytest.raises(BaselineAbsent, match=r"RuntimeError: .+"):
        dense(q, k, v, causal=True, scale=None, backend="cudnn")


def test_what_runs_and_what_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = []

    def refuse(*_: object, block: int, inputs: object) -> None:
        blocks.append(block)
        raise FlexUnavailable("no compiler")

    monkeypatch.setattr("sparsec.bench.baseline_calls.compile_flex", refuse)
    tensors = make_case(resolved(), 1, 100, 16, "float32", "cpu").inputs()
    names = ("sdpa", "cudnn", "flex", "flex64", "eager")
    said: list[str] = []
    found = baseline_calls(resolved(), tensors, names, passes=Passes.FORWARD, causal=True, report=said.append)
    assert set(found.calls) == {"sdpa", "eager"}
    assert set(found.absent) == {"cudnn", "flex", "flex64"} and found.absent["flex"] == "no compiler"
    assert blocks == [128, 64] and found.flex_compile_seconds is None and len(said) == len(names)
    few = (tensors[0][:, :, -1:], *tensors[1:])
    cached = baseline_calls(resolved(), few, ("sdpa",), passes=Passes.CACHED, causal=True, report=said.append)
    torch.testing.assert_close(cached.calls["sdpa"](), found.calls["sdpa"]()[:, :, -1:])

"""Every causal example, walked through its KV cache in chunks and single tokens: what one pass gives."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import sparsec
from sparsec.backends.base import BackwardKernel, Kernels
from sparsec.backends.cpu.cached import build_cached
from sparsec.backends.torch.cached import TorchCached
from sparsec.backends.torch.kernel import TorchKernel
from sparsec.plan.launch import LaunchPlan
from sparsec.runtime.compile import module_of
from sparsec.runtime.kernel import LoadedKernel
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request, kernel_name

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALLER = (
    ("start", "5"),
    ("local", "40"),
    ("local", "2b"),
    ("recent", "40"),
    ("every", "4b"),
    ("length", "64"),
    ("step", "16"),
    ("section", "2b"),
)
"""Parameters that examples share by name, cut down so that a short sequence leaves keys behind."""
HEAD_DIM, LENGTH = 16, 700
BOUNDS = (0, 300, 301, 302, 310, 500, 501, LENGTH)


def causal_examples() -> list[tuple[str, str]]:
    found = []
    for path in sorted(EXAMPLES.glob("*.sparse")):
        program = sparsec.load(path)
        for name in program.patterns:
            pattern = program.pattern(name)
            try:
                pattern.cache_layout(pattern.heads or 8, pattern.kv_heads or 4)
            except sparsec.DiagnosticError:
                continue
            found.append((path.name, name))
    return found


CAUSAL = causal_examples()


def test_most_let_keys_go() -> None:
    evicting = [
        example for example, attn in modules("torch").items() if attn.layout.slots(LENGTH) < LENGTH * attn.kv_heads
    ]
    assert len(evicting) >= 16, evicting


def test_all_but_these_have_a_cache() -> None:
    everything = {name for path in EXAMPLES.glob("*.sparse") for name in sparsec.load(path).patterns}
    assert everything - {name for _, name in CAUSAL} == {"bigbird", "longformer", "packed_window", "packed_s2", "sasa"}


def small(file: str, name: str) -> sparsec.Pattern:
    """The example with parameters cut down, those that it has."""
    program = sparsec.load(EXAMPLES / file)
    params: dict[str, str] = {}
    for parameter, value in SMALLER:
        try:
            program.pattern(name, **{parameter: value})
        except (sparsec.CallError, sparsec.DiagnosticError):
            continue
        params[parameter] = value
    return program.pattern(name, **params)


def request_for(file: str, name: str) -> Request:
    pattern = small(file, name)
    heads, kv_heads = pattern.heads or 8, pattern.kv_heads or 4
    return Request(
        pattern.lowered(heads, kv_heads),
        HEAD_DIM,
        HEAD_DIM,
        torch.float32,
        lambda: pattern.cache_layout(heads, kv_heads),
    )


def no_backward() -> BackwardKernel:
    raise AssertionError("a cache has no gradients")


@cache
def modules(target: str) -> dict[tuple[str, str], SparseAttention]:
    requests = [request_for(*example) for example in CAUSAL]
    kernels = (
        build_cached([request.compilation("cpu").cached for request in requests], optimise=1)
        if target == "cpu"
        else [TorchCached(request.compilation("torch").chunks) for request in requests]
    )
    found = {}
    for example, request, kernel in zip(CAUSAL, requests, kernels, strict=True):
        plan = request.compilation("torch").forward
        kernels_of = Kernels(TorchKernel(plan), no_backward, lambda kernel=kernel: kernel)  # type: ignore[misc]
        found[example] = module_of(
            target,
            kernel_name(request, target, "forward on torch"),
            LoadedKernel(kernels_of, LaunchPlan.of(plan), lambda plan=plan: plan),  # type: ignore[misc]
            request,
        )
    return found


@pytest.mark.filterwarnings("ignore:the cache keeps every key")
@pytest.mark.parametrize("target", ["torch", "cpu"])
@pytest.mark.parametrize("example", CAUSAL, ids=lambda example: example[1])
def test_walk(example: tuple[str, str], target: str) -> None:
    attn = modules(target)[example]
    if example[1] == "tri_shape":
        pytest.skip("its last rows are those of each call: a walk is another pattern")
    if attn.sink is not None:
        torch.nn.init.normal_(attn.sink, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn((1, heads, LENGTH, HEAD_DIM), generator=generator)
        for heads in (attn.heads, attn.kv_heads, attn.kv_heads)
    )
    with torch.no_grad():
        whole, lse = attn(q, k, v, return_lse=True)
        held = attn.new_cache(1, LENGTH)
        held.keys.fill_(float("nan"))
        held.values.fill_(float("nan"))
        parts = [
            attn(*(t[:, :, first:last] for t in (q, k, v)), cache=held, return_lse=True)
            for first, last in pairwise(BOUNDS)
        ]
    torch.testing.assert_close(torch.cat([out for out, _ in parts], 2), whole, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(torch.cat([part for _, part in parts], 2), lse, rtol=1e-5, atol=2e-6)

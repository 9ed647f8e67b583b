"""Run-time inputs over pages, by the generated C++ and in plain PyTorch, held to the reference of each request."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from paged_patterns import PATTERNS
from paged_requests import Drawn, check_paged, drawn_requests, paged_modules

from sparsec.backends.cpu.kernel import has_compiler
from sparsec.backends.cpu.paged import build_paged
from sparsec.backends.torch.paged import TorchPaged
from sparsec.runtime.module import SparseAttention

COMPILED = [pytest.mark.kernels, pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")]
RUNS = 3


@cache
def modules(target: str) -> dict[str, SparseAttention]:
    """Of the C++ one library for all."""
    patterns = list(PATTERNS.values())
    if target == "cpu":
        built = paged_modules(patterns, "cpu", 20, 36, lambda plans: build_paged(plans, optimise=1))
    else:
        built = paged_modules(patterns, "torch", 20, 36, lambda plans: [TorchPaged(chunks) for chunks, _ in plans])
    return dict(zip(PATTERNS, built, strict=True))


@pytest.mark.parametrize("target", ["torch", pytest.param("cpu", marks=COMPILED)])
@pytest.mark.parametrize("name", PATTERNS)
def test_requests_with_inputs(name: str, target: str) -> None:
    attn = modules(target)[name]

    @settings(max_examples=RUNS, deadline=None, derandomize=True)
    @given(drawn_requests(150))
    def check(drawn: Drawn) -> None:
        check_paged(attn, PATTERNS[name], drawn, check_inputs=drawn.packed)

    check()
    mixed = ((100, 34), (70, 1), (0, 0), (5, 5), (300, 2), (130, 9))
    for seed in range(3):
        check_paged(attn, PATTERNS[name], Drawn(mixed, (16, 40, 128)[seed], seed == 1, seed), check_inputs=True)

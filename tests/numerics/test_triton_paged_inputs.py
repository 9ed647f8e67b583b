"""Run-time inputs over pages by the Triton kernels, in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from paged_patterns import PATTERNS
from paged_requests import Drawn, check_paged, paged_modules
from triton_harness import in_interpreter, passes_in_the_interpreter

from sparsec.backends.triton.kernel import interpreted
from sparsec.backends.triton.paged import TritonPaged
from sparsec.plan.kv.cached import CachedPlan
from sparsec.runtime.module import SparseAttention

MIXED = ((60, 20), (70, 1), (0, 0), (5, 5), (50, 2))
"""Requests with many rows, with few, and with none."""


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


@cache
def module(name: str) -> SparseAttention:
    def build(plans: Sequence[tuple[CachedPlan, CachedPlan]]) -> list[TritonPaged]:
        return [TritonPaged.of(*pair) for pair in plans]

    (attn,) = paged_modules([PATTERNS[name]], "interpreter", 20, 36, build)
    return attn


@in_interpreter
@pytest.mark.parametrize(("name", "seed"), [(name, seed) for seed, name in enumerate(PATTERNS)])
def test_requests_with_inputs(name: str, seed: int) -> None:
    for again in (seed, seed + 7):
        drawn = Drawn(MIXED, (16, 40)[again % 2], again % 3 == 0, again)
        check_paged(module(name), PATTERNS[name], drawn, check_inputs=False)

"""The Triton kernels over a server's pages, in Triton's interpreter, held to float64 under the tolerance policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from cached_walk import PATTERNS
from paged_requests import Drawn, check_paged, paged_modules
from triton_harness import in_interpreter, passes_in_the_interpreter

from sparsec.backends.triton import paged
from sparsec.backends.triton.kernel import interpreted
from sparsec.backends.triton.modules import load_module
from sparsec.backends.triton.paged import TritonPaged
from sparsec.plan.kv.cached import CachedPlan
from sparsec.runtime.kernel import registered
from sparsec.runtime.module import SparseAttention

MIXED = ((100, 34), (70, 1), (0, 0), (5, 5), (60, 2))
"""Requests with many rows, with few, and with none."""


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


@cache
def module(name: str, dtype: torch.dtype = torch.float32, head_dim: int = 20, value_dim: int = 36) -> SparseAttention:
    def build(plans: Sequence[tuple[CachedPlan, CachedPlan]]) -> list[TritonPaged]:
        return [TritonPaged.of(*pair) for pair in plans]

    (attn,) = paged_modules([PATTERNS[name]], "interpreter", head_dim, value_dim, build, dtype)
    return attn


def kernel_of(attn: SparseAttention) -> TritonPaged:
    kernel = registered(attn.kernel_digest, torch.device("cpu")).paged
    assert isinstance(kernel, TritonPaged)
    return kernel


@in_interpreter
@pytest.mark.parametrize(
    ("name", "page_size", "packed"),
    [
        ("unlike_heads", 16, True),
        ("window_by_group", 40, False),
        ("s2_by_head", 128, True),
        ("random", 16, False),
        ("late", 7, True),
        ("all_scores", 32, False),
    ],
)
def test_requests_in_one_launch(name: str, page_size: int, packed: bool) -> None:
    check_paged(module(name), PATTERNS[name], Drawn(MIXED, page_size, packed, 1), check_inputs=packed)


@in_interpreter
@pytest.mark.parametrize(("name", "dtype"), [("s2", torch.bfloat16), ("chunk", torch.float16)])
def test_rows_of_two_bytes_in_large_pages(name: str, dtype: torch.dtype) -> None:
    drawn = Drawn(((200, 33), (100, 3)), 256, True, 2)
    check_paged(module(name, dtype, 32, 32), PATTERNS[name], drawn, check_inputs=True)


@in_interpreter
@pytest.mark.parametrize(("name", "splits"), [("duo", (1, 3)), ("all_scores", (17, 1)), ("all_scores", (2, 5))])
def test_parts_of_long_rows_are_merged(name: str, splits: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each class another number of them, and some without a key."""
    made: list[int] = []

    def decode_splits(*_: object) -> int:
        made.append(splits[len(made) % 2])
        return made[-1]

    monkeypatch.setattr(paged, "decode_splits", decode_splits)
    drawn = Drawn(((150, 1), (300, 3), (20, 17)), 32, True, 3)
    check_paged(module(name), PATTERNS[name], drawn, check_inputs=False)
    assert made == list(splits)


@in_interpreter
def test_more_requests_than_are_looked_at_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "REQUESTS", 2)
    module.cache_clear()  # kernels keep it
    requests = ((20, 9), (3, 1), (50, 17), (0, 0), (33, 33), (18, 2), (64, 8))
    check_paged(module("alibi"), PATTERNS["alibi"], Drawn(requests, 16, False, 4), check_inputs=True)


@in_interpreter
def test_a_dead_page_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    attn, size, requests = module("token_stride"), 8, ((300, 2), (170, 20))
    kernels = load_module(kernel_of(attn).source)
    page_of: Callable[..., object] = kernels.page_of
    seen: dict[int, set[int]] = {}

    def watched(page_row: Any, key: Any, known: Any, *others: object) -> object:
        row = int(page_row.handle.data.item())
        seen.setdefault(row, set()).update((key.handle.data[known.handle.data] // size).ravel().tolist())
        return page_of(page_row, key, known, *others)

    monkeypatch.setattr(kernels, "page_of", watched)
    assert check_paged(attn, PATTERNS["token_stride"], Drawn(requests, size, True, 5), check_inputs=True) > 0
    assert len(seen) == len(requests)
    for (length, count), (_, pages) in zip(requests, sorted(seen.items()), strict=True):
        dead = {page for each in attn.dead_pages(length - count + 1, size) for page in each}
        assert dead and not dead & pages and pages <= set(range(-(-length // size)))


@in_interpreter
def test_nothing_to_do_and_no_request() -> None:
    for requests in (((0, 0),), ((9, 0), (3, 0))):
        check_paged(module("duo"), PATTERNS["duo"], Drawn(requests, 16, True, 6), check_inputs=True)


@in_interpreter
def test_two_runs_are_bit_equal_and_a_scale_may_be_negative() -> None:
    kernel = kernel_of(module("duo"))
    plan = kernel.plan.chunks
    torch.manual_seed(7)
    memory = torch.randn(20, 16, plan.kv_heads, 56)
    pages = paged.Pages(
        memory[..., :20],
        memory[..., 20:],
        torch.randperm(20, dtype=torch.int32).view(2, 10),
        torch.tensor([0, 1, 24], dtype=torch.int32),
        torch.tensor([150, 100], dtype=torch.int32),
    )
    q = torch.randn(24, plan.heads, 20)
    (out, lse), again = (kernel.attend(q, pages, scale=0.3) for _ in range(2))
    assert torch.equal(out, again[0]) and torch.equal(lse, again[1])
    negative = kernel.attend(-q, pages, scale=-0.3)
    assert torch.equal(out, negative[0]) and torch.equal(lse, negative[1])

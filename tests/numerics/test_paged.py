"""Attention over pages by the generated C++, held to float64 under the tolerance policy; its answers to bad calls."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from cached_walk import HEADS, KV_HEADS, PATTERNS
from hypothesis import given, settings
from paged_requests import Drawn, check_paged, drawn_requests, paged_modules, starts_of

from sparsec.backends.cpu.kernel import has_compiler
from sparsec.backends.cpu.paged import build_paged
from sparsec.diagnostics.model import CallError
from sparsec.runtime.module import SparseAttention

pytestmark = [pytest.mark.kernels, pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")]

VARIANTS = {
    torch.float32: (20, 36, ("duo", "unlike_heads", "s2_by_head", "token_stride", "random", "all_scores")),
    torch.bfloat16: (64, 64, ("window_by_group", "s2", "late")),
    torch.float16: (64, 64, ("causal", "chunk", "alibi")),
}
"""Of each dtype the dimensions of keys and values, and patterns."""
RUNS = 4


@cache
def modules(dtype: torch.dtype) -> dict[str, SparseAttention]:
    """One library for all."""
    return built_modules(dtype, *VARIANTS[dtype])


@cache
def wide_modules() -> dict[str, SparseAttention]:
    """Of float32, with so many bytes a key that rows side by side are taken together."""
    return built_modules(torch.float32, 68, 60, ("s2_by_head", "unlike_heads"))


def built_modules(
    dtype: torch.dtype, head_dim: int, value_dim: int, names: tuple[str, ...]
) -> dict[str, SparseAttention]:
    patterns = [PATTERNS[name] for name in names]
    built = paged_modules(patterns, "cpu", head_dim, value_dim, lambda plans: build_paged(plans, optimise=1), dtype)
    return dict(zip(names, built, strict=True))


@pytest.mark.parametrize(
    ("dtype", "name"), [(dtype, name) for dtype, (*_, names) in VARIANTS.items() for name in names], ids=str
)
def test_requests_over_pages(dtype: torch.dtype, name: str) -> None:
    attn = modules(dtype)[name]

    @settings(max_examples=RUNS, deadline=None, derandomize=True)
    @given(drawn_requests(200))
    def check(drawn: Drawn) -> None:
        check_paged(attn, PATTERNS[name], drawn, check_inputs=False)

    check()


def test_shares_of_long_rows_are_merged() -> None:
    attn = modules(torch.float32)["duo"]
    drawn = Drawn(((1200, 1), (3000, 2), (40, 1), (700, 60)), 48, True, 1)
    assert check_paged(attn, PATTERNS["duo"], drawn, check_inputs=True) == 0
    attn = modules(torch.float32)["token_stride"]
    assert check_paged(attn, PATTERNS["token_stride"], replace(drawn, page_size=16), check_inputs=True) > 0


def test_the_number_of_threads_changes_no_bit() -> None:
    attn, found = modules(torch.float32)["unlike_heads"], []
    torch.manual_seed(0)
    q, pages = torch.randn(70, HEADS, 20), torch.randn(60, 32, KV_HEADS, 56)
    table, lens = torch.randperm(60)[None].to(torch.int32).expand(2, 60), torch.tensor([1900, 70], dtype=torch.int32)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2, 7):
            torch.set_num_threads(n)
            with torch.no_grad():
                found.append(
                    attn.paged(
                        q,
                        pages[..., :20],
                        pages[..., 20:],
                        block_table=table,
                        cu_seqlens_q=starts_of(((1900, 1), (70, 69))),
                        seq_lens=lens,
                        return_lse=True,
                    )
                )
    finally:
        torch.set_num_threads(threads)
    assert not found[0][0].isnan().any() and not (found[0][1] == math.inf).any()
    for out, lse in found[1:]:
        assert torch.equal(out, found[0][0]) and torch.equal(lse, found[0][1])


@pytest.mark.parametrize(
    ("dtype", "name", "wide"),
    [
        (torch.float32, "s2_by_head", False),
        (torch.float32, "s2_by_head", True),
        (torch.float32, "unlike_heads", True),
        (torch.float16, "causal", False),
    ],
    ids=str,
)
def test_packs_of_a_task_are_taken_together_and_apart_alike(dtype: torch.dtype, name: str, wide: bool) -> None:
    """One thread has so many shares that each is one task for the packs that see the same keys; seven have too few."""
    attn, lengths, found = (wide_modules() if wide else modules(dtype))[name], [900 - 61 * n for n in range(10)], []
    requests, threads = tuple((length, 1) for length in lengths), torch.get_num_threads()
    torch.manual_seed(0)
    rows = torch.randn(10 * 57, 16, KV_HEADS, attn.head_dim + attn.value_dim).to(dtype)
    heads = rows.transpose(1, 2).contiguous().transpose(1, 2)
    q, table = torch.randn(10, HEADS, attn.head_dim).to(dtype), torch.randperm(10 * 57).view(10, 57).to(torch.int32)
    try:
        for n, pages in ((1, rows), (1, heads), (7, rows), (7, heads)):
            torch.set_num_threads(n)
            check_paged(attn, PATTERNS[name], Drawn(requests, 16, pages is heads, n), check_inputs=False)
            with torch.no_grad():
                found.append(
                    attn.paged(
                        q,
                        pages[..., : attn.head_dim],
                        pages[..., attn.head_dim :],
                        block_table=table,
                        cu_seqlens_q=starts_of(requests),
                        seq_lens=torch.tensor(lengths, dtype=torch.int32),
                    )
                )
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(out, found[0]) for out in found) and not found[0].isnan().any()


def test_heads_whose_elements_lie_apart() -> None:
    """Then every request is one of chunks."""
    attn = modules(torch.float32)["s2_by_head"]
    torch.manual_seed(0)
    whole = torch.randn(8, 16, KV_HEADS, 56)
    apart = whole.transpose(1, 3).contiguous().transpose(1, 3)
    assert apart.stride(3) != 1
    found = []
    for pages in (whole, apart):
        with torch.no_grad():
            out = attn.paged(
                torch.linspace(-1, 1, HEADS * 20).view(1, HEADS, 20),
                pages[..., :20],
                pages[..., 20:],
                block_table=torch.arange(8, dtype=torch.int32)[None],
                cu_seqlens_q=starts_of(((100, 1),)),
                seq_lens=torch.tensor([100], dtype=torch.int32),
            )
        found.append(out)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("starts", "lens", "message"),
    [
        ([0, 3, 5], [9, 9], "expected cu_seqlens_q to rise from 0 to 4, the tokens of q, got"),
        ([1, 3, 4], [9, 9], "expected cu_seqlens_q to rise from 0 to 4"),
        ([0, 5, 4], [9, 9], "expected cu_seqlens_q to rise from 0 to 4"),
        ([0, 1, 4], [9, 2], "expected seq_lens from the 3 tokens of the call to the 32 of a row of block_table, got 2"),
        ([0, 1, 4], [33, 9], "got 33 of request 0"),
        ([0, 1, 4], [-1, 9], "got -1 of request 0"),
    ],
)
def test_requests_that_the_tensors_have_not(starts: list[int], lens: list[int], message: str) -> None:
    attn = modules(torch.float32)["duo"]
    pages = torch.zeros(4, 16, KV_HEADS, 56)
    with pytest.raises(CallError, match=message), torch.no_grad():
        attn.paged(
            torch.zeros(4, HEADS, 20),
            pages[..., :20],
            pages[..., 20:],
            block_table=torch.zeros(2, 2, dtype=torch.int32),
            cu_seqlens_q=torch.tensor(starts, dtype=torch.int32),
            seq_lens=torch.tensor(lens, dtype=torch.int32),
        )

"""Requests whose rows of the table begin with the same pages: the keys of these are read for many rows together."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from cached_walk import HEADS, KV_HEADS, PATTERNS
from paged_requests import paged_modules
from torch import Tensor

from sparsec.backends.cpu.kernel import has_compiler
from sparsec.backends.cpu.paged import build_paged
from sparsec.runtime.module import SparseAttention

pytestmark = [pytest.mark.kernels, pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")]
NAMES = "causal", "duo", "unlike_heads", "all_scores", "s2"
DIM, SIZE = 16, 16
PREFIX = 640, 160
"""Tokens that the requests of the one set share, and those of the other, which are too few to be worth while."""
OWN = (5, 1), (300, 1), (37, 2), (0, 1), (90, 3), (61, 1), (64, 1)
"""Of each request the tokens after those, without the call's, and the call's."""


@cache
def modules() -> dict[str, SparseAttention]:
    built = paged_modules(
        [PATTERNS[name] for name in NAMES], "cpu", DIM, DIM, lambda plans: build_paged(plans, optimise=1)
    )
    return dict(zip(NAMES, built, strict=True))


@cache
def requests(shared: bool) -> tuple[dict[str, Tensor], list[int]]:
    """A call of requests that begin with the same tokens, set by set in turn; in the same pages if `shared`."""
    torch.manual_seed(0)
    lengths = [PREFIX[r % 2] + before + count for r, (before, count) in enumerate(OWN)]
    heads = [torch.randn(2, length, KV_HEADS, DIM) for length in PREFIX]
    rows = [torch.randn(2, before + count, KV_HEADS, DIM) for before, count in OWN]
    memory = torch.full((2, 400, SIZE, KV_HEADS, DIM), math.nan)
    table = torch.full((len(OWN), 64), -7, dtype=torch.int32)
    free, placed = torch.randperm(400).tolist(), {}
    for r, own in enumerate(rows):
        tokens = torch.cat([heads[r % 2], own], dim=1)
        for page in range(-(-tokens.shape[1] // SIZE)):
            part = tokens[:, page * SIZE : page * SIZE + SIZE]
            key = (r % 2, page) if shared and page < PREFIX[r % 2] // SIZE else (r, page, "own")
            if key not in placed:
                placed[key] = free.pop()
            table[r, page] = placed[key]
            memory[:, placed[key], : part.shape[1]] = part
    counts = [count for _, count in OWN]
    call = {
        "q": torch.randn(sum(counts), HEADS, DIM, generator=torch.Generator().manual_seed(1)),
        "k_pages": memory[0],
        "v_pages": memory[1],
        "block_table": table,
        "cu_seqlens_q": torch.tensor([0, *counts]).cumsum(0).to(torch.int32),
        "seq_lens": torch.tensor(lengths, dtype=torch.int32),
    }
    return call, counts


@pytest.mark.parametrize("name", NAMES)
def test_shared_pages_give_what_copies_of_them_give(name: str) -> None:
    found = []
    for shared in (True, False):
        call, _ = requests(shared)
        with torch.no_grad():
            found.append(modules()[name].paged(**call, return_lse=True))  # type: ignore[call-overload]  # by name
    for ours, theirs in zip(*found, strict=True):
        assert not ours.isnan().any()
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


def test_shared_pages_change_no_bit_with_the_number_of_threads() -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            with torch.no_grad():
                found.append(modules()["duo"].paged(**requests(True)[0]))  # type: ignore[call-overload]  # by name
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_shared_page_is_read_once_for_all() -> None:
    """What is of the shared tokens alone does not change when the rows of another request are left out."""
    call, counts = requests(True)
    with torch.no_grad():
        whole = modules()["causal"].paged(**call)  # type: ignore[call-overload]  # by name
        alone = []
        for r, count in enumerate(counts):
            first = int(call["cu_seqlens_q"][r])
            one = {**call, "q": call["q"][first : first + count], "block_table": call["block_table"][r : r + 1]}
            one |= {
                "cu_seqlens_q": torch.tensor([0, count], dtype=torch.int32),
                "seq_lens": call["seq_lens"][r : r + 1],
            }
            alone.append(modules()["causal"].paged(**one))  # type: ignore[call-overload]  # by name
    torch.testing.assert_close(whole, torch.cat(alone), rtol=2e-5, atol=2e-5)

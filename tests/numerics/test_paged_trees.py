"""Drafts of several requests, verified in one call over pages, against each path from a root to a leaf alone."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.runtime.module import SparseAttention

HEADS, KV_HEADS, DIM, SIZE = 4, 2, 16, 16
CONTEXTS = 61, 16, 130
"""The tokens of each request before its draft."""
TREES = (-1, 0, 0, 1, 1, 2, 5), (-1, -1, 0, 1), (-1,)
"""The parents of the drafts' tokens: a root with two children, two roots, one token."""
PROMPT = 9
"""Tokens of one more request, which has no draft: more than any draft has."""
TARGETS = ("torch", pytest.param("cpu", marks=pytest.mark.kernels))


@cache
def module(term: str, target: str) -> SparseAttention:
    text = f"pattern p {{ heads {HEADS} kv {KV_HEADS}  {term} }}"
    return sparsec.compile(text, head_dim=DIM, target=target, device="cpu")


def paths(parents: tuple[int, ...]) -> list[list[int]]:
    """From each root to each leaf."""
    leaves = set(range(len(parents))) - set(parents)
    found = []
    for leaf in sorted(leaves):
        path = [leaf]
        while parents[path[0]] >= 0:
            path.insert(0, parents[path[0]])
        found.append(path)
    return found


def over_pages(attn: SparseAttention, requests: list[tuple[Tensor, Tensor, Tensor]], **more: object) -> list[Tensor]:
    """Of each request (q, k, v), [tokens, heads, DIM], the output of its queries, which are its last tokens."""
    lengths = [len(k) for _, k, _ in requests]
    widths = [-(-length // SIZE) for length in lengths]
    table = torch.full((len(requests), max(widths)), -1, dtype=torch.int32)
    k_pages, v_pages = (torch.full((sum(widths), SIZE, KV_HEADS, DIM), torch.nan) for _ in range(2))
    free = torch.randperm(sum(widths)).tolist()
    for row, (_, k, v), width in zip(table, requests, widths, strict=True):
        own = torch.tensor([free.pop() for _ in range(width)], dtype=torch.int32)
        row[:width] = own
        at = torch.arange(len(k))
        attn.append_paged(k, v, k_pages, v_pages, own[at // SIZE].long() * SIZE + at % SIZE)
    counts = [len(q) for q, _, _ in requests]
    with torch.no_grad():
        out = attn.paged(
            torch.cat([q for q, _, _ in requests]),
            k_pages,
            v_pages,
            block_table=table,
            cu_seqlens_q=torch.tensor([0, *counts]).cumsum(0).to(torch.int32),
            seq_lens=torch.tensor(lengths, dtype=torch.int32),
            check_inputs=True,
            **more,  # type: ignore[arg-type]  # inputs
        )
    return list(out.split(counts))


def drawn(context: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    k, v = (torch.randn(context + count, KV_HEADS, DIM) for _ in range(2))
    return torch.randn(count, HEADS, DIM), k, v


@pytest.mark.parametrize("target", TARGETS)
def test_trees_are_as_their_paths_one_by_one(target: str) -> None:
    verify, alone = module("input draft : tree  causal  attend draft", target), module("causal  attend full", target)
    torch.manual_seed(0)
    requests = [drawn(context, len(tree)) for context, tree in zip(CONTEXTS, TREES, strict=True)]
    requests.append(drawn(40, PROMPT))
    parents = torch.full((len(requests), max(map(len, TREES))), 99, dtype=torch.int64)
    for row, tree in zip(parents, TREES, strict=False):
        row[: len(tree)] = torch.tensor(tree)
    parents[parents == 99] = -1
    found = over_pages(verify, requests, inputs={"draft": parents})
    for out, (q, k, v), context, tree in zip(found, requests, CONTEXTS, TREES, strict=False):
        for path in paths(tree):
            own = torch.cat([torch.arange(context), context + torch.tensor(path)])
            (expected,) = over_pages(alone, [(q[path], k[own], v[own])])
            torch.testing.assert_close(out[path], expected, rtol=1e-5, atol=1e-5)
    (expected,) = over_pages(alone, [requests[-1]])
    torch.testing.assert_close(found[-1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_one_tree_serves_all_requests(target: str) -> None:
    """As Medusa's, which is the same in each step."""
    verify = module("input draft : tree  causal  attend draft & (sink(4) | window(30))", target)
    torch.manual_seed(1)
    requests = [drawn(context, len(TREES[0])) for context in CONTEXTS]
    one, each = torch.tensor([TREES[0]]), torch.tensor([TREES[0]] * len(requests))
    for left, right in zip(
        over_pages(verify, requests, inputs={"draft": one}),
        over_pages(verify, requests, inputs={"draft": each}),
        strict=True,
    ):
        assert torch.equal(left, right) and not left.isnan().any()

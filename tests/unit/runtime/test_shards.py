"""`attn.shard(rank, size)`: the heads of one rank, as the whole module computes them."""

from __future__ import annotations

import pytest
import torch

import sparsec

TEXT = """
pattern p {
    heads 8  kv 4
    causal
    alibi
    learned_sink
    where h % 4 == 0 attend window(9)
    where h % 4 == 1 attend sink(3) | window(5)
    otherwise attend random(2, seed = 7) | window(1b)
    block 16
}
"""


@pytest.fixture(scope="module")
def attn() -> sparsec.SparseAttention:
    made = sparsec.compile(TEXT, head_dim=8, value_dim=12, target="torch", device="cpu")
    assert made.sink is not None
    made.sink.data.normal_()
    made.scale = 0.3
    return made


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_ranks_give_what_the_whole_gives(attn: sparsec.SparseAttention, size: int) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 8, 50, 8), torch.randn(2, 4, 50, 8), torch.randn(2, 4, 50, 12)
    whole = attn(q, k, v, return_lse=True)
    heads, groups = 8 // size, max(1, 4 // size)
    for rank in range(size):
        own, first = slice(rank * heads, (rank + 1) * heads), rank * heads // 2
        part = attn.shard(rank, size)
        assert (part.heads, part.kv_heads, part.target) == (heads, groups, "torch")
        kv = slice(first, first + groups)
        for all_heads, of_rank in zip(whole, part(q[:, own], k[:, kv], v[:, kv], return_lse=True), strict=True):
            torch.testing.assert_close(of_rank, all_heads[:, own])


def test_a_rank_is_copied_from_the_whole(attn: sparsec.SparseAttention) -> None:
    part = attn.shard(1, 2)
    assert attn.shard(0, 1) is attn and part.sink is not None and attn.sink is not None
    assert torch.equal(part.sink, attn.sink[4:]) and part.sink.data_ptr() != attn.sink[4:].data_ptr()
    assert attn.shard(0, 4).dead_pages(1000, 16) and not attn.dead_pages(1000, 16)  # the other ranks draw keys


@pytest.mark.parametrize(("rank", "size"), [(0, 3), (0, 16), (2, 2), (-1, 2), (0, 0)])
def test_what_divides_no_heads_is_refused(attn: sparsec.SparseAttention, rank: int, size: int) -> None:
    with pytest.raises(sparsec.CallError, match="expected"):
        attn.shard(rank, size)

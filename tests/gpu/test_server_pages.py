"""Attention over pages on a GPU: mixed requests against the `torch` target, and a replayed CUDA graph; skipped without
one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.runtime.module import SparseAttention

DEVICE = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SOURCES = {
    "s2": "pattern p { block 64 causal attend sink(64) | window(4b) | stride(4b, phase = -g) }",
    "random": "pattern p { block 64 causal attend window(2b) | random(3, seed = 5) }",
    "duo": "pattern p { causal where g in [0] attend full otherwise attend sink(64) | window(256) }",
    "bent": "pattern p { causal attend chunk(300)  softcap 30  alibi learned_sink }",
}
HEADS, KV_HEADS = 8, 2
MIXED = ((3000, 1), (700, 700), (40, 3), (1200, 130), (0, 0), (65, 5))
"""Tokens of each request, and how many of them are the call's."""


def compiled(name: str, head_dim: int, target: str, dtype: torch.dtype) -> SparseAttention:
    sizes = HEADS, KV_HEADS, head_dim
    attn = sparsec.compile(
        SOURCES[name], heads=sizes[0], kv_heads=sizes[1], head_dim=sizes[2], dtype=dtype, device=DEVICE, target=target
    ).to(DEVICE)
    if attn.sink is not None:
        with torch.no_grad():
            attn.sink.copy_(torch.linspace(-1, 1, HEADS))
    return attn


def call_of(
    attn: SparseAttention, requests: tuple[tuple[int, int], ...], size: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Pages of NaN but for the rows of tokens in pages that are not dead; the table is stale where they are."""
    torch.manual_seed(size)
    widths = [-(-length // size) for length, _ in requests]
    memory = torch.full((sum(widths) + 1, size, KV_HEADS, 2 * attn.head_dim), math.nan, device=DEVICE).to(dtype)
    table = torch.full((len(requests), max(widths) + 2), 2**31 - 1, dtype=torch.int32)
    free = torch.randperm(sum(widths)).tolist()
    for r, (length, count) in enumerate(requests):
        dead = {page for each in attn.dead_pages(length - count + 1, size) for page in each} if count else set()
        for page in range(widths[r]):
            if page not in dead:
                table[r, page] = free.pop()
                rows = memory[int(table[r, page]), : min(size, length - page * size)]
                rows.copy_(torch.randn(rows.shape))
    counts = torch.tensor([0, *(count for _, count in requests)])
    return {
        "q": torch.randn(int(counts.sum()), HEADS, attn.head_dim).to(DEVICE, dtype),
        "k_pages": memory[..., : attn.head_dim],
        "v_pages": memory[..., attn.head_dim :],
        "block_table": table.to(DEVICE),
        "cu_seqlens_q": counts.cumsum(0).to(DEVICE, torch.int32),
        "seq_lens": torch.tensor([length for length, _ in requests], dtype=torch.int32, device=DEVICE),
    }


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(
    ("head_dim", "dtype", "size"),
    [(128, torch.bfloat16, 16), (64, torch.bfloat16, 256), (64, torch.float16, 48), (64, torch.float32, 16)],
    ids=str,
)
@torch.no_grad()
def test_mixed_requests(name: str, head_dim: int, dtype: torch.dtype, size: int) -> None:
    attn, plain = (compiled(name, head_dim, target, dtype) for target in ("triton", "torch"))
    call = call_of(attn, MIXED, size, dtype)
    found, expected = (each.paged(**call, return_lse=True) for each in (attn, plain))
    allowed = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found[0], expected[0], rtol=allowed, atol=allowed)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_graph_of_decoding_takes_other_lengths() -> None:
    attn = compiled("duo", 128, "triton", torch.bfloat16)
    requests = ((900, 1), (64, 1), (2000, 1))
    call = call_of(attn, requests, 16, torch.bfloat16)
    attn.paged(**call)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attn.paged(**call)
    call["q"].copy_(torch.randn(call["q"].shape))
    call["seq_lens"].copy_(torch.tensor([880, 50, 1990]))
    graph.replay()
    torch.testing.assert_close(out, attn.paged(**call), rtol=0, atol=0)

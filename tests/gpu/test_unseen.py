"""Keys and values that are NaN or infinite change no row that does not see them: all kernels, on a GPU; skipped without
one. Where such a number is met, kernels go over their tiles again, by code that no other test here runs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from gpu import REHEARSAL, card
from torch import Tensor

import sparsec
from sparsec.runtime.module import SparseAttention

pytestmark = pytest.mark.skipif(not (torch.cuda.is_available() or REHEARSAL), reason="needs a GPU")
SOURCES = {
    "dense": "pattern p { causal attend full }",
    "tokens": "pattern p { causal attend window(100) | stride(7, phase = 3) }",
    "bent": "pattern p { causal attend sink(10) | window(300)  softcap 30  alibi }",
    "s2": "pattern p { block 64 causal attend sink(64) | window(4b) | stride(4b, phase = -g) }",
}
HEADS, KV_HEADS = (2, 1) if REHEARSAL else (8, 2)
LENGTH, LAST = (90, 60) if REHEARSAL else (1200, 700)
"""Rows from LAST on see what is not finite, those before do not."""
BOUNDS = (0, 40, 41, 44, 60) if REHEARSAL else (0, 300, 301, 302, 312, 328, 611, 700)
CASES = (
    ("tokens", 64, "bfloat16"),
    ("tokens", 128, "bfloat16"),
    ("bent", 64, "bfloat16"),
    ("dense", 128, "bfloat16"),
    ("s2", 128, "float16"),
    ("tokens", 64, "float32"),
)


def made(name: str, head_dim: int, dtype: str) -> tuple[SparseAttention, list[Tensor]]:
    device, kind = card().device, getattr(torch, dtype)
    attn = sparsec.compile(
        SOURCES[name],
        heads=HEADS,
        kv_heads=KV_HEADS,
        head_dim=head_dim,
        dtype=kind,
        device=device,
        target="triton",
    )
    torch.manual_seed(head_dim)
    tensors = [torch.randn(2, n, LENGTH, head_dim, device=device).to(kind) for n in (HEADS, KV_HEADS, KV_HEADS)]
    return attn, tensors


def spoiled(tensors: list[Tensor]) -> list[Tensor]:
    """A NaN key and infinite values from row LAST on."""
    q, k, v = (t.clone() for t in tensors)
    k[:, :, LAST::7] = torch.nan
    v[:, :, LAST + 1 :: 5] = torch.inf
    v[:, :, LAST + 2 :: 5, 1::2] = -torch.inf
    return [q, k, v]


def close(found: Tensor, expected: Tensor) -> None:
    allowed = 1e-4 if found.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, rtol=allowed, atol=allowed)


@pytest.mark.parametrize(("name", "head_dim", "dtype"), CASES, ids=str)
def test_rows_before(name: str, head_dim: int, dtype: str) -> None:
    """Outputs, and gradients of a loss that reads the rows before alone."""
    attn, tensors = made(name, head_dim, dtype)
    g = torch.randn_like(tensors[0])
    g[:, :, LAST:] = 0.0
    found = []
    for each in (tensors, spoiled(tensors)):
        leaves = [t.requires_grad_() for t in each]
        out = attn(*leaves)
        found.append((out, *torch.autograd.grad(out, leaves, g)))
    for ours, expected in zip(*reversed(found), strict=True):
        close(ours[:, :, :LAST], expected[:, :, :LAST])
    assert not found[1][0][:, :, -1].isfinite().all()


@pytest.mark.filterwarnings("ignore:the cache keeps every key")
@pytest.mark.parametrize(("name", "head_dim", "dtype"), CASES, ids=str)
@torch.no_grad()
def test_slots_of_a_cache(name: str, head_dim: int, dtype: str) -> None:
    """Slots that nothing was written to hold NaN, then infinities: chunks, few queries and single ones."""
    attn, tensors = made(name, head_dim, dtype)
    expected = attn(*(t[:, :, :LAST] for t in tensors))
    for fill in (torch.nan, torch.inf):
        cache = attn.new_cache(2, LENGTH)
        cache.keys.fill_(fill)
        cache.values.fill_(fill)
        steps = [attn(*(t[:, :, a:b] for t in tensors), cache=cache) for a, b in pairwise(BOUNDS)]
        close(torch.cat(steps, 2), expected)

"""Values of another width than keys in Triton's interpreter, against the reference; what is unseen has no effect."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton_harness import in_interpreter, interpreted, passes_in_the_interpreter

import sparsec

HEADS, KV_HEADS = 2, 1
STRIDED = "causal attend window(20) | stride(7, phase = h)"
MODIFIED = "alibi softcap 5.0 learned_sink causal attend window(9) | sink(3)"
PACKED = "documents restart causal attend window(20)"


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


def modules(of: str, head_dim: int, value_dim: int) -> tuple[sparsec.SparseAttention, sparsec.SparseAttention]:
    """The kernels of Triton, and the reference."""
    text = f"pattern p {{ {of} }}"
    dims = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": head_dim, "value_dim": value_dim}
    kernels, reference = (sparsec.compile(text, **dims, target=target) for target in ("triton", "reference"))
    return kernels, reference


def inputs(n_q: int, n_k: int, head_dim: int, value_dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and the gradient of the output."""
    generator = torch.Generator().manual_seed(n_q * 1000 + n_k)
    shapes = (HEADS, n_q, head_dim), (KV_HEADS, n_k, head_dim), (KV_HEADS, n_k, value_dim), (HEADS, n_q, value_dim)
    q, k, v, g = (torch.randn((1, *shape), generator=generator) for shape in shapes)
    return q, k, v, g


def results(attn: sparsec.SparseAttention, tensors: tuple[Tensor, ...], cu_seqlens: Tensor | None) -> list[Tensor]:
    """out, lse, and the gradients of q, k and v."""
    *given, g = tensors
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    out, lse = attn(*leaves, return_lse=True, cu_seqlens=cu_seqlens)
    seen = lse.isfinite()
    return [out, lse, *torch.autograd.grad([out, lse], leaves, [g, torch.where(seen, 0.5, 0.0)])]


def compare(of: str, n_q: int, n_k: int, head_dim: int, value_dim: int, cu_seqlens: Tensor | None = None) -> None:
    tensors = inputs(n_q, n_k, head_dim, value_dim)
    found, expected = (results(attn, tensors, cu_seqlens) for attn in modules(of, head_dim, value_dim))
    assert found[0].shape == (1, HEADS, n_q, value_dim)
    for name, got, wanted in zip(("out", "lse", "dq", "dk", "dv"), found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0.0, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


@in_interpreter
@pytest.mark.parametrize("of", [STRIDED, MODIFIED])
@pytest.mark.parametrize(("head_dim", "value_dim"), [(16, 40), (40, 16), (192, 128)])
def test_forward_and_gradients(head_dim: int, value_dim: int, of: str) -> None:
    compare(of, 37, 50, head_dim, value_dim)


@in_interpreter
@settings(max_examples=6, deadline=None, database=None)
@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 40), st.integers(1, 40))
def test_any_pair_of_widths(head_dim: int, value_dim: int, n_q: int, n_k: int) -> None:
    compare(STRIDED, n_q, n_k, head_dim, value_dim)


@in_interpreter
def test_packed_documents() -> None:
    compare(PACKED, 45, 45, 24, 56, torch.tensor([0, 17, 45], dtype=torch.int32))


@in_interpreter
@pytest.mark.parametrize(("head_dim", "value_dim"), [(16, 40), (40, 16)])
def test_over_a_cache(head_dim: int, value_dim: int) -> None:
    kernels, reference = modules(MODIFIED, head_dim, value_dim)
    cache = kernels.new_cache(batch_size=1, max_len=80)
    assert cache.keys.shape[2:] == (head_dim,) and cache.values.shape[2:] == (value_dim,)
    q, k, v, _ = inputs(61, 61, head_dim, value_dim)
    with torch.no_grad():
        expected = reference(q, k, v)
        start = 0
        for count in (23, 1, 30, 3, 1, 3):
            new = slice(start, start := start + count)
            found = kernels(q[:, :, new], k[:, :, new], v[:, :, new], cache=cache)
            torch.testing.assert_close(found, expected[:, :, new], rtol=0.0, atol=1e-4)
    assert start == 61


@in_interpreter
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize(("head_dim", "value_dim"), [(16, 40), (40, 16)])
def test_what_a_row_does_not_see(head_dim: int, value_dim: int, value: float) -> None:
    """In the last columns, which the second pass over the tiles comes to last."""
    n, bad, of = 40, 13, "causal attend window(20) | sink(3)"
    attn, _ = modules(of, head_dim, value_dim)
    unaffected = ~sparsec.parse(f"pattern p {{ {of} }}").pattern().mask(n, n, HEADS, KV_HEADS)[:, :, bad]
    q, k, v, g = inputs(n, n, head_dim, value_dim)
    kept = results(attn, (q, k, v, g), None)
    for spoilt in (k, v):
        changed = [tensor.clone() for tensor in (q, k, v)]
        changed[1 if spoilt is k else 2][..., bad, -2:] = value
        got = results(attn, (*changed, g), None)
        for which in (0, 2):
            assert torch.equal(got[which][0][unaffected], kept[which][0][unaffected])
        assert not got[0][0][~unaffected].isfinite().all()

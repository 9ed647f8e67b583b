"""What a row may not see, NaN and infinities included, leaves its output and its gradients as they are, bit for bit."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from triton_harness import interpreted, passes_in_the_interpreter

import sparsec

HEADS, GROUPS, N, HEAD_DIM = (2, 1, 40, 16) if interpreted() else (4, 2, 150, 24)
"""Triton's interpreter is slow, and a program that meets a NaN goes over its tiles again."""
BAD = [13, 30] if interpreted() else [61, 100]
SPLIT = (0, 20, 33, N) if interpreted() else (0, 50, 110, N)
PATTERNS = {
    "causal": "causal attend full",
    "window": "causal attend window(20) | sink(3)",
    "ahead": "attend window(40, ahead = 30)",
    "strided": "causal attend stride(7, phase = h) | window(9)",
    "softcap": f"causal softcap 5.0 attend window(40) | columns({BAD[0] - 1} .. {BAD[0] + 9})",
}
if interpreted():
    PATTERNS = {name: PATTERNS[name] for name in ("window", "strided", "softcap")}
TARGETS = ["triton"] if interpreted() else ["cpu", "torch"]


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


def module(
    name: str, target: str, head_dim: int = HEAD_DIM, dtype: torch.dtype = torch.float32
) -> sparsec.SparseAttention:
    text = f"pattern p {{ {PATTERNS[name]} }}"
    return sparsec.compile(text, heads=HEADS, kv_heads=GROUPS, head_dim=head_dim, dtype=dtype, target=target)


def seen(name: str) -> Tensor:
    """bool [H, N, N]."""
    return sparsec.parse(f"pattern p {{ {PATTERNS[name]} }}").pattern().mask(N, N, HEADS, GROUPS)


def inputs(head_dim: int = HEAD_DIM, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(2, heads, N, head_dim) for heads in (HEADS, GROUPS, GROUPS, HEADS)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def spoilt(tensor: Tensor, rows: list[int], value: float) -> Tensor:
    result = tensor.clone()
    result[1, :, rows, 2:5] = value
    return result


def gradients(attn: sparsec.SparseAttention, q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    out = attn(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, grad))


def same_rows(a: Tensor, b: Tensor, rows: Tensor) -> None:
    """Rows `rows` [H, N] are equal and finite in both batch entries."""
    assert rows.any()
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1][rows], b[1][rows])
    assert a[1][rows].isfinite().all()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_keys_and_values_that_a_row_does_not_see(name: str, target: str, value: float) -> None:
    attn, (q, k, v, grad) = module(name, target), inputs()
    bad = BAD
    unaffected = ~seen(name)[:, :, bad].any(dim=-1)
    kept = gradients(attn, q, k, v, grad)
    for of_keys in (False, True):
        pair = (spoilt(k, bad, value), v) if of_keys else (k, spoilt(v, bad, value))
        got = gradients(attn, q, *pair, grad)
        same_rows(got[0], kept[0], unaffected)
        same_rows(got[1], kept[1], unaffected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PATTERNS)
def test_queries_and_gradients_of_rows_that_do_not_see_a_key(name: str, target: str) -> None:
    attn, (q, k, v, grad) = module(name, target), inputs()
    bad = [BAD[0] + 19, BAD[1] + 1]
    by_group = seen(name).view(GROUPS, HEADS // GROUPS, N, N).any(dim=1)
    unaffected = ~by_group[:, bad].any(dim=1)
    kept = gradients(attn, q, k, v, grad)
    for of_queries in (False, True):
        pair = (spoilt(q, bad, math.nan), grad) if of_queries else (q, spoilt(grad, bad, math.nan))
        got = gradients(attn, pair[0], k, v, pair[1])
        same_rows(got[2], kept[2], unaffected)
        same_rows(got[3], kept[3], unaffected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PATTERNS)
def test_a_loss_over_rows_that_see_no_nan_has_finite_gradients(name: str, target: str) -> None:
    attn, (q, k, v, grad) = module(name, target), inputs()
    bad = BAD
    unaffected = ~seen(name)[:, :, bad].any(dim=-1)
    grad = grad * unaffected[:, :, None]
    kept, got = gradients(attn, q, k, v, grad), gradients(attn, q, k, spoilt(v, bad, math.nan), grad)
    for before, after in zip(kept[1:], got[1:], strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype: torch.dtype, target: str) -> None:
    attn, (q, k, v, grad) = module("softcap", target, 64, dtype), inputs(64, dtype)
    unaffected = ~seen("softcap")[:, :, BAD[:1]].any(dim=-1)
    kept, got = gradients(attn, q, k, v, grad), gradients(attn, q, k, spoilt(v, BAD[:1], math.nan), grad)
    same_rows(got[0], kept[0], unaffected)
    same_rows(got[1], kept[1], unaffected)


@pytest.mark.parametrize("target", TARGETS)
def test_over_a_cache(target: str) -> None:
    attn, (q, k, v, _) = module("window", target, 24), inputs(24)
    unaffected = ~seen("window")[:, :, BAD].any(dim=-1)
    outs = []
    for values in (v, spoilt(v, BAD, math.nan)):
        cache = attn.new_cache(batch_size=2, max_len=N)
        parts = [attn(*(t[:, :, a:b] for t in (q, k, values)), cache=cache) for a, b in pairwise(SPLIT)]
        outs.append(torch.cat(parts, dim=2))
    same_rows(outs[1], outs[0], unaffected)

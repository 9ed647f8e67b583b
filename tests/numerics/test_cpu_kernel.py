"""The generated C++ kernel against dense attention in float64: shapes, head dims, dtypes, strides and dead keys."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from cpu_patterns import DTYPES, HEADS, KV_HEADS, PATTERNS, SHAPES, inputs, layouts
from torch import Tensor

from sparsec.backends.cpu.kernel import CpuKernel, build_kernels, has_compiler
from sparsec.diagnostics.model import CallError
from sparsec.runtime.draws import draw_tables

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")


@cache
def kernels() -> dict[str, CpuKernel]:
    plans = [pattern.plan(64, "float32") for pattern in PATTERNS.values()]
    return dict(zip(PATTERNS, build_kernels(plans, optimise=2), strict=True))


def run(kernel: CpuKernel, q: Tensor, k: Tensor, v: Tensor, q0: int) -> tuple[Tensor, Tensor]:
    lists = draw_tables(kernel.plan.lists, q.shape[2], q0, q.device)
    return kernel.forward(q, k, v, q_offset=q0, scale=None, lists=lists)


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Plain attention in the inputs' dtype; 0 and -inf in empty rows."""
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~mask, -math.inf)
    lse = scores.logsumexp(dim=-1)
    return torch.softmax(scores, dim=-1).nan_to_num(0) @ v, lse


def assert_close(got: tuple[Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> None:
    """The tolerance policy: against float64, relative to the error of plain attention in the same dtype."""
    out, lse = got
    assert out.shape == q.shape and out.dtype == q.dtype and out.is_contiguous()
    want, want_lse = dense(q.double(), k.double(), v.double(), mask)
    plain, _ = dense(q, k, v, mask)
    factor = 10 if q.dtype == torch.float32 else 2
    error, allowed = (out.double() - want).abs(), (plain.double() - want).abs()
    assert not out.isnan().any() and not lse.isnan().any()
    assert error.max() <= max(factor * allowed.max().item(), 1e-5)
    assert error.mean() <= max((10 if q.dtype == torch.float32 else 1.1) * allowed.mean().item(), 1e-5)
    empty = ~mask.any(dim=-1).expand(lse.shape)
    assert torch.equal(lse == -math.inf, empty)
    assert (out[empty] == 0).all()
    if not empty.all():
        wide_lse = dense(q.float(), k.float(), v.float(), mask)[1].double()
        lse_error, lse_allowed = ((t - want_lse)[~empty].abs().max().item() for t in (lse.double(), wide_lse))
        assert lse_error <= max(10 * lse_allowed, 1e-5)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_patterns_and_shapes(name: str, shape: tuple[int, int, int]) -> None:
    n_q, n_k, q0 = shape
    q, k, v = inputs(n_q, n_k, 64)
    assert_close(run(kernels()[name], q, k, v, q0), q, k, v, PATTERNS[name].mask(*shape))


def test_the_shapes_meet_full_partial_and_empty_rows() -> None:
    counts = torch.cat([PATTERNS[name].mask(*shape).sum(-1).flatten() for name in PATTERNS for shape in SHAPES])
    assert (counts == 0).any() and (counts > 200).any() and ((counts > 0) & (counts < 30)).any()


HEAD_DIMS = (8, 20, 64, 72, 128, 256, 300)


@cache
def by_head_dim(dtype: str) -> dict[int, CpuKernel]:
    plans = [PATTERNS["two_classes"].plan(head_dim, dtype) for head_dim in HEAD_DIMS]
    return dict(zip(HEAD_DIMS, build_kernels(plans, optimise=1), strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_head_dims_and_dtypes(head_dim: int, dtype: str) -> None:
    q, k, v = inputs(150, 171, head_dim, DTYPES[dtype])
    kernel = by_head_dim(dtype)[head_dim]
    assert_close(run(kernel, q, k, v, 21), q, k, v, PATTERNS["two_classes"].mask(150, 171, 21))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_outputs_are_rounded_to_nearest_with_ties_to_even(dtype: str) -> None:
    """With q = 0 the output is the mean of two values, which float32 holds exactly."""
    q, k, v = inputs(1, 2, 64, DTYPES[dtype])
    v[0, :, 1] = v[0, :, 0] * (1 + torch.finfo(v.dtype).eps)  # the next number: each mean lies halfway
    out, _ = run(by_head_dim(dtype)[64], torch.zeros_like(q), k, v, 1)
    mean = v.float().mean(2, keepdim=True).repeat_interleave(HEADS // KV_HEADS, 1)
    assert torch.equal(out, mean.to(out.dtype)) and not torch.equal(out.float(), mean)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(dtype: str) -> None:
    q, k, v = inputs(100, 140, 64, DTYPES[dtype])
    kernel = by_head_dim(dtype)[64]
    expected = run(kernel, q, k, v, 40)
    for strided in zip(*(layouts(t) for t in (q, k, v)), strict=True):
        assert not any(t.is_contiguous() for t in strided)
        for got, want in zip(run(kernel, *strided, 40), expected, strict=True):
            assert torch.equal(got, want)


def test_expanded_keys() -> None:
    q, k, v = inputs(50, 60, 64)
    k, v = (t[:1, :1].expand(2, KV_HEADS, 60, 64) for t in (k, v))
    assert_close(run(kernels()["causal"], q, k, v, 10), q, k, v, PATTERNS["causal"].mask(50, 60, 10))


@pytest.mark.parametrize(("batch", "n_q", "n_k"), [(0, 5, 5), (2, 0, 5), (2, 5, 0), (0, 0, 0)])
def test_nothing_to_do(batch: int, n_q: int, n_k: int) -> None:
    q, k, v = inputs(n_q, n_k, 64, batch=batch)
    out, lse = run(kernels()["causal"], q, k, v, 0)
    assert out.shape == q.shape and (out == 0).all()
    assert lse.shape == q.shape[:3] and (lse == -math.inf).all()


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_dead_keys_have_no_effect(name: str, poison: float) -> None:
    n_q, n_k, q0 = 90, 260, 100
    q, k, v = inputs(n_q, n_k, 64)
    clean = run(kernels()[name], q, k, v, q0)
    for h in range(HEADS):
        dead = ~PATTERNS[name].mask(n_q, n_k, q0)[h].any(dim=0)
        k2, v2 = k.clone(), v.clone()
        k2[:, :, dead], v2[:, :, dead] = poison, poison
        out, lse = run(kernels()[name], q, k2, v2, q0)
        assert torch.equal(out[:, h], clean[0][:, h]) and torch.equal(lse[:, h], clean[1][:, h])


def test_a_visible_nan_shows() -> None:
    q, k, v = inputs(90, 90, 64)
    k[0, 0, 80] = math.nan
    out, lse = run(kernels()["causal"], q, k, v, 0)
    assert out[0, 0, 80:].isnan().all() and lse[0, 0, 80:].isnan().all()
    assert not out[1].isnan().any()


def test_large_scores_and_distant_maxima() -> None:
    q, k, v = inputs(200, 300, 64)
    k *= torch.linspace(0.1, 60, 300)[:, None]  # the maximum moves in nearly every tile
    assert_close(run(kernels()["causal"], q, k, v, 100), q, k, v, PATTERNS["causal"].mask(200, 300, 100))


def test_a_count_of_visible_keys() -> None:
    q, k, v = inputs(190, 300, 64)
    for name, kernel in kernels().items():
        _, lse = run(kernel, torch.zeros_like(q), k, v, 110)
        counts = PATTERNS[name].mask(190, 300, 110).sum(-1)
        assert torch.equal(lse.exp().round().long(), counts.expand(lse.shape)), name


def test_threads_do_not_change_a_bit() -> None:
    q, k, v = inputs(333, 333, 64)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run(kernels()["s2"], q, k, v, 0))
    finally:
        torch.set_num_threads(before)
    for out, lse in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(lse, results[0][1])


def test_scale() -> None:
    q, k, v = inputs(40, 40, 64)
    lse = kernels()["full"].forward(q, k, v, q_offset=0, scale=0.5, lists=())[1]
    doubled = kernels()["full"].forward(q * 4, k, v, q_offset=0, scale=None, lists=())[1]
    torch.testing.assert_close(lse, doubled)


def test_wrong_tensors_are_refused() -> None:
    q, k, v = inputs(40, 40, 64)
    kernel = kernels()["full"]
    for bad in ((q.double(), k, v), (q[:, :2], k, v), (q, k[..., :8], v), (q, k, v[:, :, :3])):
        with pytest.raises(CallError, match="expected"):
            kernel.forward(*bad, q_offset=0, scale=None, lists=())
    with pytest.raises(CallError, match="positions"):
        kernel.forward(q, k, v, q_offset=1 << 29, scale=None, lists=())

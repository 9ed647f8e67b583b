"""The generated C++ gradients against float64 autograd of dense attention: shapes, dtypes, strides, dead rows."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from cpu_patterns import DTYPES, HEADS, KV_HEADS, PATTERNS, SHAPES, inputs, layouts
from dense_formula import Formula, assert_close
from torch import Tensor

from sparsec.backends.cpu import backward as cpu_backward
from sparsec.backends.cpu.backward import CpuBackward, build_backwards
from sparsec.backends.cpu.kernel import CpuKernel, build_kernels, has_compiler
from sparsec.diagnostics.model import CallError
from sparsec.runtime.build.cache import BuildError
from sparsec.runtime.draws import draw_tables

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")

Pair = tuple[CpuKernel, CpuBackward]
HEAD_DIMS = {"float32": (8, 20, 64, 100, 256), "bfloat16": (20, 33, 64), "float16": (20, 64)}


@cache
def kernels() -> dict[str, Pair]:
    forward = build_kernels([pattern.plan(64, "float32") for pattern in PATTERNS.values()], optimise=1)
    backward = build_backwards([pattern.backward_plan(64, "float32") for pattern in PATTERNS.values()], optimise=1)
    return dict(zip(PATTERNS, zip(forward, backward, strict=True), strict=True))


@cache
def by_head_dim(dtype: str) -> dict[int, Pair]:
    pattern = PATTERNS["two_classes"]
    forward = build_kernels([pattern.plan(head_dim, dtype) for head_dim in HEAD_DIMS[dtype]], optimise=1)
    backward = build_backwards([pattern.backward_plan(head_dim, dtype) for head_dim in HEAD_DIMS[dtype]], optimise=1)
    return dict(zip(HEAD_DIMS[dtype], zip(forward, backward, strict=True), strict=True))


def gradients_of(q: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of out and of the LSE."""
    torch.manual_seed(q.shape[2])
    return torch.randn(q.shape).to(q.dtype), torch.randn(q.shape[:3])


def run(pair: Pair, grad_out: Tensor, grad_lse: Tensor | None, qkv: list[Tensor], q0: int) -> list[Tensor]:
    """out, LSE, dq, dk, dv"""
    forward, backward = pair
    lists = draw_tables(forward.plan.lists, qkv[0].shape[2], q0, qkv[0].device)
    out, lse = forward.forward(*qkv, q_offset=q0, scale=None, lists=lists)
    *grads, dsink, _ = backward.backward(grad_out, grad_lse, *qkv, out, lse, q_offset=q0, scale=None, lists=lists)
    assert dsink is None
    return [out, lse, *grads]


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_patterns_and_shapes(name: str, shape: tuple[int, int, int]) -> None:
    n_q, n_k, q0 = shape
    qkv = inputs(n_q, n_k, 64)
    grads = gradients_of(qkv[0])
    mask = PATTERNS[name].mask(*shape)
    got = run(kernels()[name], *grads, qkv, q0)
    assert_close(got, Formula(mask), qkv, grads)
    unseen = ~mask.view(KV_HEADS, HEADS // KV_HEADS, n_q, n_k).any(dim=2).any(dim=1)
    assert not got[3][:, unseen].any() and not got[4][:, unseen].any()


@pytest.mark.parametrize(("dtype", "head_dim"), [(dtype, dim) for dtype, dims in HEAD_DIMS.items() for dim in dims])
def test_head_dims_and_dtypes(dtype: str, head_dim: int) -> None:
    qkv = inputs(150, 171, head_dim, DTYPES[dtype])
    grads = gradients_of(qkv[0])
    got = run(by_head_dim(dtype)[head_dim], *grads, qkv, 21)
    assert_close(got, Formula(PATTERNS["two_classes"].mask(150, 171, 21)), qkv, grads)


def test_without_a_gradient_of_the_lse() -> None:
    qkv = inputs(100, 140, 64)
    grad_out, _ = gradients_of(qkv[0])
    got = run(kernels()["s2"], grad_out, None, qkv, 40)
    assert_close(got, Formula(PATTERNS["s2"].mask(100, 140, 40)), qkv, (grad_out, None))


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(dtype: str) -> None:
    qkv = inputs(100, 140, 64, DTYPES[dtype])
    grad_out, grad_lse = gradients_of(qkv[0])
    pair = by_head_dim(dtype)[64]
    expected = run(pair, grad_out, grad_lse, qkv, 40)
    for *strided, strided_grad in zip(*(layouts(t) for t in (*qkv, grad_out)), strict=True):
        assert not any(t.is_contiguous() for t in (*strided, strided_grad))
        for got, want in zip(run(pair, strided_grad, grad_lse.mT.contiguous().mT, strided, 40), expected, strict=True):
            assert torch.equal(got, want)


def test_expanded_inputs_and_gradients() -> None:
    q, k, v = inputs(50, 60, 64)
    k, v = (t[:1, :1].expand(2, KV_HEADS, 60, 64) for t in (k, v))
    grads = torch.ones(()).expand(q.shape), torch.full((), 0.5).expand(q.shape[:3])
    got = run(kernels()["causal"], *grads, [q, k, v], 10)
    assert_close(got, Formula(PATTERNS["causal"].mask(50, 60, 10)), [q, k, v], grads)


@pytest.mark.parametrize(("batch", "n_q", "n_k"), [(0, 5, 5), (2, 0, 5), (2, 5, 0), (0, 0, 0)])
@pytest.mark.parametrize("name", ["causal", "random"])
def test_nothing_to_do(name: str, batch: int, n_q: int, n_k: int) -> None:
    qkv = inputs(n_q, n_k, 64, batch=batch)
    for gradient, like in zip(run(kernels()[name], *gradients_of(qkv[0]), qkv, 0)[2:], qkv, strict=True):
        assert gradient.shape == like.shape and not gradient.any()


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(("n_q", "n_k", "q0", "poison"), [(90, 260, 100, math.nan), (190, 60, -20, math.inf)])
def test_dead_keys_and_rows_have_no_effect(name: str, n_q: int, n_k: int, q0: int, poison: float) -> None:
    qkv = inputs(n_q, n_k, 64)
    grads = gradients_of(qkv[0])
    mask = PATTERNS[name].mask(n_q, n_k, q0)
    clean = run(kernels()[name], *grads, qkv, q0)
    dead_keys, dead_rows = ~mask.any(dim=0).any(dim=0), ~mask.any(dim=-1).any(dim=0)
    assert name in ("full", "dilated") or dead_keys.any() or dead_rows.any()
    q, k, v = (t.clone() for t in qkv)
    grad_out = grads[0].clone()
    k[:, :, dead_keys], v[:, :, dead_keys] = poison, poison
    q[:, :, dead_rows], grad_out[:, :, dead_rows] = poison, poison
    for got, want in zip(run(kernels()[name], grad_out, grads[1], [q, k, v], q0), clean, strict=True):
        assert torch.equal(got, want)


def test_a_visible_nan_shows() -> None:
    q, k, v = inputs(90, 90, 64)
    grads = gradients_of(q)
    v[0, 0, 80, 3] = math.nan
    _, _, dq, dk, dv = run(kernels()["causal"], *grads, [q, k, v], 0)
    assert dq[0, :2, 80:].isnan().all() and dk[0, 0, :81].isnan().any()
    assert not dq[1].isnan().any() and not dk[1].isnan().any() and not dv[1].isnan().any()


def test_large_scores() -> None:
    qkv = inputs(200, 300, 64)
    qkv[1] *= torch.linspace(0.1, 60, 300)[:, None]
    grads = gradients_of(qkv[0])
    got = run(kernels()["causal"], *grads, qkv, 100)
    assert_close(got, Formula(PATTERNS["causal"].mask(200, 300, 100)), qkv, grads)


@pytest.mark.parametrize("name", ["causal", "s2", "sink_window"])
def test_key_tiles_in_several_shares(name: str) -> None:
    qkv = inputs(1000, 1100, 64, batch=1)
    grads = gradients_of(qkv[0])
    got = run(kernels()[name], *grads, qkv, 100)
    assert_close(got, Formula(PATTERNS[name].mask(1000, 1100, 100)), qkv, grads)


@pytest.mark.parametrize("name", ["s2", "random"])
def test_threads_and_runs_do_not_change_a_bit(name: str) -> None:
    qkv = inputs(1030, 1030, 64)
    grads = gradients_of(qkv[0])
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5, 5):
            torch.set_num_threads(threads)
            results.append(run(kernels()[name], *grads, qkv, 0))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_scale() -> None:
    q, k, v = inputs(70, 70, 64)
    grads = gradients_of(q)
    forward, backward = kernels()["full"]
    out, lse = forward.forward(q, k, v, q_offset=0, scale=0.5, lists=())
    got = backward.backward(*grads, q, k, v, out, lse, q_offset=0, scale=0.5, lists=())
    assert_close([out, lse, *got[:3]], Formula(PATTERNS["full"].mask(70, 70, 0), scale=0.5), [q, k, v], grads)


def test_nothing_is_built_before_the_first_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(cpu_backward, "compile_shared", lambda source: built.append(source))
    kernel = CpuBackward.of(PATTERNS["full"].backward_plan(64, "float32"))
    assert not built
    with pytest.raises(BuildError, match="None"):
        kernel.entry()
    assert len(built) == 1 and "sparsec_backward(" in built[0]


def test_wrong_tensors_are_refused() -> None:
    q, k, v = inputs(40, 40, 64)
    grad_out, grad_lse = gradients_of(q)
    lse = torch.zeros(q.shape[:3])
    backward = kernels()["full"][1]
    for bad in (
        (grad_out[:, :, :3], grad_lse, q, k, v, q, lse),
        (grad_out.double(), grad_lse, q, k, v, q, lse),
        (grad_out, grad_lse[..., :3], q, k, v, q, lse),
        (grad_out, grad_lse, q, k, v[:, :, :3], q, lse),
        (grad_out, grad_lse, q, k, v, q[..., :8], lse),
        (grad_out, grad_lse, q, k, v, q, lse.double()),
    ):
        with pytest.raises(CallError, match="expected"):
            backward.backward(*bad, q_offset=0, scale=None, lists=())

"""The Triton gradients, in Triton's interpreter, against float64 autograd of dense attention over masks of formulas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dense_gradients import Mask, Results, Score, dense, mask_of
from torch import Tensor

from sparsec.backends.triton.kernel import TritonKernel, interpreted
from sparsec.pipeline import Lowered
from sparsec.runtime.draws import draw_tables
from sparsec.sema import model as m

in_interpreter = pytest.mark.skipif(not interpreted(), reason="runs in a process of its own, below")


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    """Triton decides at import whether it interprets."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", str(Path(__file__))],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed, 1 skipped" in run.stdout


def kernel_of(
    terms: tuple[m.Term, ...],
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype = torch.float32,
    tiles: tuple[int, int] = (16, 16),
) -> TritonKernel:
    heads = m.ResolvedPattern(len(terms), kv_heads, terms, 16, (), m.Documents.NONE, m.Score())
    given = {"head_dim": head_dim, "dtype": str(dtype).removeprefix("torch.")}
    return TritonKernel.of(
        Lowered(heads).plan_forward(query_tile=16, key_tile=32, **given),
        plan_backward=lambda: Lowered(heads).plan_backward(query_tile=tiles[0], key_tile=tiles[1], **given),
    )


def causal_and(*terms: m.Term) -> m.Term:
    return m.Intersection((m.Causal(), m.Union(terms)))


Tensors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def inputs(
    heads: int, kv_heads: int, nq: int, nk: int, head_dim: int = 16, dtype: torch.dtype = torch.float32, batch: int = 1
) -> Tensors:
    """q, k, v, and the gradients of the output and of the LSE."""
    torch.manual_seed(nq * 1000 + nk)
    q, g = (torch.randn(batch, heads, nq, head_dim).to(dtype) for _ in range(2))
    k, v = (torch.randn(batch, kv_heads, nk, head_dim).to(dtype) for _ in range(2))
    return q, k, v, g, torch.randn(batch, heads, nq)


def run(
    kernel: TritonKernel, tensors: Tensors, start: int, scale: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv."""
    q, k, v, g, grad_lse = tensors
    tables = draw_tables(kernel.plan.lists, q.shape[2], start, q.device)
    out, lse = kernel.forward(q, k, v, q_offset=start, scale=scale, lists=tables)
    *grads, dsink, _ = kernel.backward(g, grad_lse, q, k, v, out, lse, q_offset=start, scale=scale, lists=tables)
    assert dsink is None
    dq, dk, dv = grads
    return dq, dk, dv


def compare(
    kernel: TritonKernel, mask: Mask, tensors: Tensors, start: int | None = None, scale: float | None = None
) -> Results:
    """Asserts that the gradients are those of dense attention under `mask`, and returns what was expected."""
    q, k, v, g, grad_lse = tensors
    start = k.shape[2] - q.shape[2] if start is None else start
    want = dense(q, k, v, mask_of(mask, q.shape[1], q.shape[2], k.shape[2], start), start, g, grad_lse, Score(scale))
    step = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[q.dtype]
    wanted = (want.dq, want.dk, want.dv)
    for found, expected, given in zip(run(kernel, tensors, start, scale), wanted, (q, k, v), strict=True):
        assert found.shape == given.shape and found.dtype == given.dtype and found.is_contiguous()
        torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=step * (1.0 + expected.abs().max().item()))
    return want


STRIDED = tuple(causal_and(m.Sink(16, False), m.Window(2, 0, True), m.Stride(3, h % 3, True)) for h in range(4))


def strided(h: int, i: Tensor, j: Tensor) -> Tensor:
    return (j <= i) & ((j < 16) | (i // 16 - j // 16 < 2) | (j // 16 % 3 == h % 3))


WINDOW = (causal_and(m.Sink(5, False), m.Window(37, 0, False)),)


def window(h: int, i: Tensor, j: Tensor) -> Tensor:
    return (j <= i) & ((j < 5) | (i - j < 37))


@in_interpreter
@pytest.mark.parametrize(
    ("nq", "nk", "start"),
    [(1, 1, None), (33, 33, None), (70, 70, None), (5, 61, None), (61, 5, None), (40, 23, 100), (17, 50, 3),
     (16, 64, -9)],
)  # fmt: skip
def test_lengths_and_offsets(nq: int, nk: int, start: int | None) -> None:
    compare(kernel_of(WINDOW, 1, 16), window, inputs(1, 1, nq, nk), start)


@in_interpreter
@pytest.mark.parametrize(
    ("heads", "kv_heads", "nq", "nk", "tiles"),
    [(4, 2, 50, 50, (16, 16)), (2, 1, 31, 75, (32, 16)), (2, 1, 80, 43, (16, 32))],
)
def test_strided_heads_with_phases_in_one_class(
    heads: int, kv_heads: int, nq: int, nk: int, tiles: tuple[int, int]
) -> None:
    kernel = kernel_of(STRIDED[:heads], kv_heads, 16, tiles=tiles)
    compare(kernel, strided, inputs(heads, kv_heads, nq, nk))


@in_interpreter
@pytest.mark.parametrize(
    ("head_dim", "dtype"),
    [(8, torch.float32), (24, torch.bfloat16), (72, torch.float16), (96, torch.float32), (64, torch.bfloat16)],
)
def test_head_dims_and_dtypes(head_dim: int, dtype: torch.dtype) -> None:
    compare(kernel_of(WINDOW, 1, head_dim, dtype), window, inputs(1, 1, 37, 45, head_dim, dtype))


@in_interpreter
def test_a_group_whose_heads_lie_in_several_classes() -> None:
    terms = tuple(m.Causal() if h in (1, 2) else causal_and(m.Window(20, 0, False)) for h in range(4))

    def mask(h: int, i: Tensor, j: Tensor) -> Tensor:
        return (j <= i) & ((h in (1, 2)) | (i - j < 20))

    kernel = kernel_of(terms, 2, 16, torch.bfloat16)
    assert kernel.gradients is not None
    assert [c.heads for c in kernel.gradients().plan.transposed] == [(0, 3), (1, 2)]
    compare(kernel, mask, inputs(4, 2, 40, 40, dtype=torch.bfloat16))


@in_interpreter
def test_random_blocks() -> None:
    terms = tuple(causal_and(m.Window(1, 0, True), m.Random(2, 7, h)) for h in range(2))
    mix = 2**64 - 1

    def draw(h: int, block: int, t: int) -> int:
        z = (7 * 0x9E3779B97F4A7C15 + h * 0xBF58476D1CE4E5B9 + block * 0x94D049BB133111EB + t + 1) & mix
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mix
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mix
        return (z ^ (z >> 31)) % (block + 1)

    def mask(h: int, i: Tensor, j: Tensor) -> Tensor:
        drawn = [[draw(h, b, t) for t in range(2)] for b in (i[:, 0] // 16).tolist()]
        listed = torch.tensor([[b in row for b in (j[0] // 16).tolist()] for row in drawn])
        return (j <= i) & ((i // 16 == j // 16) | listed)

    want = compare(kernel_of(terms, 1, 16), mask, inputs(2, 1, 40, 75))
    assert not want.seen[0].equal(want.seen[1])


@in_interpreter
@pytest.mark.parametrize("scale", [0.3, 0.0, -0.5])
def test_scales(scale: float) -> None:
    compare(kernel_of((m.Causal(),), 1, 16), lambda h, i, j: j <= i, inputs(1, 1, 20, 20), scale=scale)


@in_interpreter
def test_rows_that_see_nothing_have_no_gradient_and_give_none() -> None:
    terms = (m.Intersection((m.Causal(), m.Columns(m.Edge(20, False), None, False))),)

    def mask(h: int, i: Tensor, j: Tensor) -> Tensor:
        return (j <= i) & (j >= 20)

    kernel = kernel_of(terms, 1, 16)
    q, k, v, g, grad_lse = inputs(1, 1, 40, 40)
    want = compare(kernel, mask, (q, k, v, g, grad_lse))
    empty = ~want.seen[0].any(-1)
    assert empty.any() and not empty.all() and not want.dq[0, 0, empty].any()
    before = run(kernel, (q, k, v, g, grad_lse), 0)
    q, g = (t.masked_fill(empty[None, None, :, None], torch.nan) for t in (q, g))
    for found, clean in zip(run(kernel, (q, k, v, g, grad_lse), 0), before, strict=True):
        assert torch.equal(found, clean)


@in_interpreter
def test_keys_that_no_query_sees_do_not_matter() -> None:
    kernel = kernel_of(STRIDED[:2], 1, 16)
    q, k, v, g, grad_lse = inputs(2, 1, 20, 90)
    seen = mask_of(strided, 2, 20, 90, 70)
    dead = ~seen.reshape(1, 40, 90).any(1)
    assert dead.any() and not dead.all()
    before = run(kernel, (q, k, v, g, grad_lse), 70)
    k, v = (t.masked_fill(dead[None, :, :, None], torch.nan) for t in (k, v))
    after = run(kernel, (q, k, v, g, grad_lse), 70)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not after[1][0, dead].any() and not after[2][0, dead].any()


@in_interpreter
def test_a_nan_in_a_query_reaches_the_keys_that_it_sees() -> None:
    kernel = kernel_of(WINDOW, 1, 16)
    q, k, v, g, grad_lse = inputs(1, 1, 64, 64)
    q[0, 0, 63] = torch.nan
    dq, dk, dv = run(kernel, (q, k, v, g, grad_lse), 0)
    assert dq[0, 0, 63].isnan().all() and not dq[0, 0, :63].isnan().any()
    for found in (dk, dv):
        assert found[0, 0, 48:].isnan().all() and not found[0, 0, 5:16].isnan().any()


@in_interpreter
@pytest.mark.parametrize("layout", ["expanded", "transposed", "reversed columns"])
def test_strides(layout: str) -> None:
    q, k, v, g, grad_lse = inputs(2, 2, 24, 24, batch=2)
    match layout:
        case "expanded":
            k, v, g = k[:, :1].expand(2, 2, 24, 16), v[:1].expand(2, 2, 24, 16), g[:, :, :1, :1].expand(2, 2, 24, 16)
        case "transposed":
            q, k, v, g = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v, g))
        case _:
            q, k, v, g = (t.mT.contiguous().mT for t in (q, k, v, g))
            grad_lse = grad_lse.mT.contiguous().mT
    compare(kernel_of((m.Causal(), m.Causal()), 2, 16), lambda h, i, j: j <= i, (q, k, v, g, grad_lse))


@in_interpreter
def test_without_a_gradient_of_the_lse_and_twice_the_same() -> None:
    kernel = kernel_of(WINDOW, 1, 16)
    q, k, v, g, grad_lse = inputs(1, 1, 30, 50)
    out, lse = kernel.forward(q, k, v, q_offset=20)
    first, second = (kernel.backward(g, None, q, k, v, out, lse, q_offset=20) for _ in range(2))
    with_zeros = kernel.backward(g, torch.zeros_like(grad_lse), q, k, v, out, lse, q_offset=20)
    for a, b, c in zip(first[:3], second[:3], with_zeros[:3], strict=True):
        assert a is not None and b is not None and torch.equal(a, b) and torch.equal(a, c)


@in_interpreter
def test_no_queries_or_no_keys() -> None:
    kernel = kernel_of(WINDOW, 1, 16)
    for nq, nk in ((0, 9), (9, 0)):
        dq, dk, dv = run(kernel, inputs(1, 1, nq, nk), 0)
        assert dq.shape[2] == nq and dk.shape[2] == dv.shape[2] == nk
        assert not dq.any() and not dk.any() and not dv.any()

"""The Triton kernels, in Triton's interpreter, against dense float64 attention over masks written by hand here.

Each case states its set as a formula on (i, j); neither the reference nor the lowering decides it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sparsec.backends.triton.kernel import TritonKernel, interpreted
from sparsec.pipeline import Lowered
from sparsec.runtime.draws import draw_tables
from sparsec.sema import model as m

in_interpreter = pytest.mark.skipif(not interpreted(), reason="runs in a process of its own, below")

Mask = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
Term = m.Term


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
    terms: tuple[Term, ...], kv_heads: int, head_dim: int, dtype: torch.dtype, tiles: tuple[int, int] = (16, 16)
) -> TritonKernel:
    heads = m.ResolvedPattern(len(terms), kv_heads, terms, 16, (), m.Documents.NONE, m.Score())
    name = str(dtype).removeprefix("torch.")
    return TritonKernel.of(
        Lowered(heads).plan_forward(head_dim=head_dim, dtype=name, query_tile=tiles[0], key_tile=tiles[1])
    )


def causal_and(*terms: Term) -> Term:
    return m.Intersection((m.Causal(), m.Union(terms)))


def inputs(
    heads: int, kv_heads: int, nq: int, nk: int, head_dim: int, dtype: torch.dtype = torch.float32, batch: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(nq * 1000 + nk)
    q = torch.randn(batch, heads, nq, head_dim).to(dtype)
    k = torch.randn(batch, kv_heads, nk, head_dim).to(dtype)
    v = torch.randn(batch, kv_heads, nk, head_dim).to(dtype)
    return q, k, v


def run(
    kernel: TritonKernel, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int, scale: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    tables = draw_tables(kernel.plan.lists, q.shape[2], start, q.device)
    return kernel.forward(q, k, v, q_offset=start, scale=scale, lists=tables)


def compare(
    kernel: TritonKernel,
    mask: Mask,
    qkv: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    start: int | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """Runs the kernel, asserts that it agrees with dense attention under `mask`, and returns what was seen."""
    q, k, v = qkv
    nq, nk = q.shape[2], k.shape[2]
    start = nk - nq if start is None else start
    i, j = torch.arange(start, start + nq)[:, None], torch.arange(nk)[None, :]
    seen = torch.stack([mask(h, i, j).expand(nq, nk) for h in range(q.shape[1])])
    out, lse = run(kernel, q, k, v, start, scale)

    share = q.shape[1] // k.shape[1]
    k64, v64 = (t.double().repeat_interleave(share, 1) for t in (k, v))
    factor = q.shape[3] ** -0.5 if scale is None else scale
    scores = (q.double() @ k64.mT * factor).masked_fill(~seen, -torch.inf)
    want_lse = torch.logsumexp(scores, -1)
    want = torch.exp(scores - torch.where(want_lse.isinf(), 0.0, want_lse)[..., None]) @ v64

    assert out.shape == q.shape and out.dtype == q.dtype and lse.dtype == torch.float32
    step = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[q.dtype]
    torch.testing.assert_close(out.double(), want, rtol=0.0, atol=step * (1.0 + want.abs().max().item()))
    torch.testing.assert_close(lse.double(), want_lse, rtol=1e-5, atol=2e-5)
    return seen


def causal(h: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    return j <= i


STRIDED = tuple(causal_and(m.Sink(16, False), m.Window(2, 0, True), m.Stride(3, h % 3, True)) for h in range(4))


def strided(h: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    return (j <= i) & ((j < 16) | (i // 16 - j // 16 < 2) | (j // 16 % 3 == h % 3))


WINDOW = (causal_and(m.Sink(5, False), m.Window(37, 0, False)),)


def window(h: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    return (j <= i) & ((j < 5) | (i - j < 37))


@in_interpreter
@pytest.mark.parametrize("width", [32, 64, 128])
def test_two_intervals_of_a_row_in_one_tile(width: int) -> None:
    """A tile has a word for each 32 of its keys."""
    kernel = kernel_of(WINDOW, 1, 16, torch.float32, (16, width))
    compare(kernel, window, inputs(1, 1, 130, 130, 16))
    compare(kernel, window, inputs(1, 1, 70, 200, 16))


@in_interpreter
@pytest.mark.parametrize(
    ("nq", "nk", "start"),
    [
        (1, 1, None),
        (33, 33, None),
        (70, 70, None),
        (5, 61, None),
        (61, 5, None),
        (40, 23, 100),
        (17, 50, 3),
        (16, 64, -9),
    ],
)
def test_lengths_and_offsets(nq: int, nk: int, start: int | None) -> None:
    compare(kernel_of(WINDOW, 1, 16, torch.float32), window, inputs(1, 1, nq, nk, 16), start)


@in_interpreter
@pytest.mark.parametrize(("nq", "nk", "tiles"), [(97, 97, (16, 16)), (31, 120, (32, 16)), (80, 75, (16, 32))])
def test_strided_heads_with_phases_in_one_class(nq: int, nk: int, tiles: tuple[int, int]) -> None:
    kernel = kernel_of(STRIDED, 2, 16, torch.float32, tiles)
    assert len(kernel.plan.classes) == 1
    compare(kernel, strided, inputs(4, 2, nq, nk, 16))


@in_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_dim", [8, 16, 24, 64, 72, 96])
def test_head_dims_and_dtypes(head_dim: int, dtype: torch.dtype) -> None:
    compare(kernel_of(WINDOW, 1, head_dim, dtype), window, inputs(1, 1, 45, 60, head_dim, dtype))


@in_interpreter
def test_two_classes_of_heads() -> None:
    terms = tuple(m.Causal() if h in (1, 2) else causal_and(m.Window(20, 0, False)) for h in range(4))

    def mask(h: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return (j <= i) & ((h in (1, 2)) | (i - j < 20))

    kernel = kernel_of(terms, 2, 16, torch.float32)
    assert [c.heads for c in kernel.plan.classes] == [(0, 3), (1, 2)]
    compare(kernel, mask, inputs(4, 2, 70, 70, 16))


@in_interpreter
def test_random_blocks() -> None:
    terms = tuple(causal_and(m.Window(1, 0, True), m.Random(2, 7, h)) for h in range(2))
    kernel = kernel_of(terms, 1, 16, torch.float32)
    mix = 2**64 - 1

    def draw(h: int, block: int, t: int) -> int:
        z = (7 * 0x9E3779B97F4A7C15 + h * 0xBF58476D1CE4E5B9 + block * 0x94D049BB133111EB + t + 1) & mix
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mix
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mix
        return (z ^ (z >> 31)) % (block + 1)

    def mask(h: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        drawn = [[draw(h, b, t) for t in range(2)] for b in (i[:, 0] // 16).tolist()]
        listed = torch.tensor([[[b in row for b in (j[0] // 16).tolist()] for row in drawn]])[0]
        return (j <= i) & ((i // 16 == j // 16) | listed)

    compare(kernel, mask, inputs(2, 1, 110, 110, 16))
    compare(kernel, mask, inputs(2, 1, 30, 110, 16))


@in_interpreter
@pytest.mark.parametrize("scale", [0.3, 0.0, -0.5])
def test_scales(scale: float) -> None:
    compare(kernel_of((m.Causal(),), 1, 16, torch.float32), causal, inputs(1, 1, 40, 40, 16), scale=scale)


@in_interpreter
def test_empty_rows() -> None:
    terms = (m.Intersection((m.Causal(), m.Columns(m.Edge(20, False), None, False))),)

    def mask(h: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return (j <= i) & (j >= 20)

    seen = compare(kernel_of(terms, 1, 16, torch.float32), mask, inputs(1, 1, 50, 50, 16))
    assert not seen[0, :20].any() and seen[0, 20:].any(-1).all()
    compare(kernel_of(terms, 1, 16, torch.float32), mask, inputs(1, 1, 30, 10, 16))


@in_interpreter
@pytest.mark.parametrize("layout", ["expanded", "transposed", "sliced", "reversed columns"])
def test_strides(layout: str) -> None:
    q, k, v = inputs(2, 2, 40, 40, 16, batch=2)
    match layout:
        case "expanded":
            k, v = k[:, :1].expand(2, 2, 40, 16), v[:1].expand(2, 2, 40, 16)
        case "transposed":
            q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
        case "sliced":
            q, k, v = (torch.cat((t, torch.full_like(t, torch.nan)), 3)[..., :16] for t in (q, k, v))
        case _:
            q, k, v = (t.mT.contiguous().mT for t in (q, k, v))
    compare(kernel_of(STRIDED[:2], 2, 16, torch.float32), strided, (q, k, v))


@in_interpreter
@pytest.mark.parametrize("pattern", ["strided", "window"])
def test_keys_that_no_query_sees_do_not_matter(pattern: str) -> None:
    terms, mask = (STRIDED, strided) if pattern == "strided" else (WINDOW * 4, window)
    kernel = kernel_of(terms, 2, 16, torch.float32)
    nq, nk = 20, 90
    q, k, v = inputs(4, 2, nq, nk, 16)
    seen = compare(kernel, mask, (q, k, v))
    dead = ~seen.reshape(2, 2 * nq, nk).any(1)
    assert dead.any() and not dead.all()
    out, lse = run(kernel, q, k, v, nk - nq)
    k, v = (t.masked_fill(dead[None, :, :, None], torch.nan) for t in (k, v))
    again, lse_again = run(kernel, q, k, v, nk - nq)
    assert torch.equal(out, again) and torch.equal(lse, lse_again)


@in_interpreter
def test_a_nan_that_a_query_sees_reaches_it_alone() -> None:
    kernel = kernel_of((m.Causal(),), 1, 16, torch.float32)
    q, k, v = inputs(1, 1, 40, 40, 16)
    v[0, 0, 32] = torch.nan
    out, _ = run(kernel, q, k, v, 0)
    assert out[0, 0, 33:].isnan().all() and not out[0, 0, :32].isnan().any()


@in_interpreter
def test_two_runs_are_bit_equal() -> None:
    kernel = kernel_of(STRIDED, 2, 16, torch.float32)
    q, k, v = inputs(4, 2, 20, 50, 16)
    first, second = (run(kernel, q, k, v, 30) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])

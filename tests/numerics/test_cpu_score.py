"""Score modifiers in the generated C++: softcap, alibi, a learned sink, forward and backward, by the formula."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from cpu_patterns import DTYPES, HEADS, KV_HEADS, inputs
from dense_formula import Formula, assert_close
from torch import Tensor

import sparsec
from sparsec.backends.cpu.backward import CpuBackward, build_backwards
from sparsec.backends.cpu.kernel import CpuKernel, build_kernels, has_compiler
from sparsec.diagnostics.model import CallError
from sparsec.pipeline import Lowered

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")

SCORES = (
    *("softcap 2", "alibi", "learned_sink", "softcap 0.7 alibi learned_sink", "scale 1/3 softcap 30 alibi"),
    "alibi [0.3, 0, 1/64, 2]",
)
SHAPES = ((130, 130, 0), (77, 200, 123), (110, 40, -30), (40, 0, 0))  # Nq, Nk, q0


@cache
def kernels(dtype: str, scores: tuple[str, ...] = SCORES) -> dict[str, tuple[CpuKernel, CpuBackward]]:
    texts = [f"pattern p {{ {score} attend (window(70, ahead = 9) | sink(3)) - rows(50 .. 60) }}" for score in scores]
    resolved = [sparsec.parse(text).pattern().resolve(HEADS, KV_HEADS) for text in texts]
    plans = [Lowered(heads).plan_backward(head_dim=64, dtype=dtype, query_tile=64, key_tile=64) for heads in resolved]
    forward = build_kernels([plan.forward for plan in plans], optimise=1)
    return dict(zip(scores, zip(forward, build_backwards(plans, optimise=1), strict=True), strict=True))


def formula(score: str, n_q: int, n_k: int, q0: int) -> Formula:
    i, j = torch.arange(q0, q0 + n_q)[:, None], torch.arange(n_k)[None, :]
    words = score.split()
    return Formula(
        mask=((((i - j >= -9) & (i - j < 70)) | (j < 3)) & ((i < 50) | (i >= 60))).expand(HEADS, n_q, n_k),
        distance=(i - j).abs(),
        scale=1 / 3 if "scale" in words else None,
        softcap=float(words[words.index("softcap") + 1]) if "softcap" in words else None,
        alibi=(0.3, 0.0, 1 / 64, 2.0) if "[" in score else "alibi" in words,
    )


def sink_for(score: str) -> Tensor | None:
    return torch.tensor([0.5, -2.0, 3.0, -20.0]) if "learned_sink" in score else None


def run(score: str, qkv: list[Tensor], q0: int, grads: tuple[Tensor, Tensor], sink: Tensor | None) -> list[Tensor]:
    forward, backward = kernels("float32")[score]
    if qkv[0].dtype != torch.float32:
        forward, backward = kernels({v: k for k, v in DTYPES.items()}[qkv[0].dtype], (SCORES[3],))[score]
    out, lse = forward.forward(*qkv, q_offset=q0, scale=None, lists=(), sink=sink)
    got = backward.backward(*grads, *qkv, out, lse, q_offset=q0, scale=None, lists=(), sink=sink)
    return [t for t in (out, lse, *got) if t is not None]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(score: str, shape: tuple[int, int, int]) -> None:
    qkv = inputs(*shape[:2], 64)
    grads = torch.randn(qkv[0].shape), torch.randn(qkv[0].shape[:3])
    sink = sink_for(score)
    got = run(score, qkv, shape[2], grads, sink)
    assert_close(got, formula(score, *shape), qkv, grads, sink)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes(dtype: str) -> None:
    score = SCORES[3]
    qkv = inputs(130, 150, 64, DTYPES[dtype])
    grads = torch.randn(qkv[0].shape).to(DTYPES[dtype]), torch.randn(qkv[0].shape[:3])
    sink = sink_for(score)
    assert_close(run(score, qkv, 20, grads, sink), formula(score, 130, 150, 20), qkv, grads, sink)


def test_tanh_is_accurate_from_the_smallest_to_the_largest_scores() -> None:
    """One key alone: the LSE is the capped score."""
    scores = torch.cat((torch.logspace(-30, 3, 300), -torch.logspace(-30, 3, 300), torch.linspace(-20, 20, 400)))
    q, k = torch.zeros(1, HEADS, 1000, 64), torch.zeros(1, KV_HEADS, 1, 64)
    q[..., 0], k[..., 0] = scores, 1
    _, lse = kernels("float32")["softcap 2"][0].forward(q, k, k, q_offset=-1000 + 10, scale=1.0, lists=())
    wanted = 2 * torch.tanh(scores.double() / 2)
    assert ((lse[0, 0].double() - wanted).abs() <= 1e-6 * wanted.abs()).all()


def test_saturated_scores_have_no_gradient() -> None:
    q, k, v = inputs(90, 90, 64)
    q *= 1000
    grads = torch.randn(q.shape), torch.zeros(q.shape[:3])
    _, _, dq, dk, dv = run("softcap 2", [q, k, v], 0, grads, None)
    assert dq.abs().max() < 0.2 and dv.abs().max() > 0.1 and not dk.isnan().any()


def test_a_sink_takes_weight_and_threads_do_not_change_a_bit() -> None:
    qkv = inputs(333, 333, 64)
    grads = torch.randn(qkv[0].shape), torch.randn(qkv[0].shape[:3])
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run("learned_sink", qkv, 0, grads, torch.tensor([0.5, -2.0, 3.0, -math.inf])))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))
    without = run("learned_sink", qkv, 0, grads, torch.full((HEADS,), -math.inf))
    assert torch.equal(without[0][:, 3], results[0][0][:, 3])
    assert (without[1][:, :3] < results[0][1][:, :3]).all() and not without[5].any()


def test_a_sink_is_given_exactly_where_the_pattern_has_one() -> None:
    qkv = inputs(20, 20, 64)
    for score, sink in (("alibi", torch.zeros(HEADS)), ("learned_sink", None), ("learned_sink", torch.zeros(3))):
        with pytest.raises(CallError, match="sink"):
            kernels("float32")[score][0].forward(*qkv, q_offset=0, scale=None, lists=(), sink=sink)

"""Softcap, alibi and the learned sink in Triton's interpreter: outputs and gradients against dense float64 autograd."""

from __future__ import annotations

import pytest
import torch
from dense_gradients import Score, mask_of
from triton_harness import compare, in_interpreter, inputs, kernel_of, passes_in_the_interpreter, run

from sparsec.backends.triton.kernel import interpreted
from sparsec.sema import model as m
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


LIVE = m.Intersection((m.Causal(), m.Union((m.Sink(5, False), m.Window(37, 0, False)))))


def pattern(score: m.Score, heads: int = 2, term: m.Term = LIVE) -> m.ResolvedPattern:
    return m.ResolvedPattern(heads, 1, (term,) * heads, 16, (), m.Documents.NONE, score)


def live(h: int, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    return (j <= i) & ((j < 5) | (i - j < 37))


SCORES = {
    "softcap": m.Score(None, (Softcap(1.5),)),
    "wide softcap": m.Score(None, (Softcap(500.0),)),
    "alibi": m.Score(None, (Alibi(),)),
    "slopes": m.Score(None, (Alibi((0.0, 0.3)),)),
    "sink": m.Score(None, (LearnedSink(),)),
    "softcap and scale": m.Score(-0.7, (Softcap(2.0),)),
    "all": m.Score(0.4, (Softcap(3.0), Alibi(), LearnedSink())),
}


def given(score: m.Score, heads: int = 2) -> Score:
    softcap, alibi = score.get(Softcap), score.get(Alibi)
    slopes = False if alibi is None else alibi.slopes or True
    sink = torch.linspace(-1.0, 2.0, heads) if score.learned else None
    return Score(score.scale, None if softcap is None else softcap.x, slopes, sink)


@in_interpreter
@pytest.mark.parametrize("name", SCORES)
def test_outputs_and_gradients(name: str) -> None:
    score = SCORES[name]
    seen = mask_of(live, 2, 45, 60, 15)
    want = compare(kernel_of(pattern(score)), inputs(2, 1, 45, 60), seen, 15, given(score))
    plain = compare(kernel_of(pattern(m.Score(scale=score.scale))), inputs(2, 1, 45, 60), seen, 15)
    assert not torch.allclose(want.lse, plain.lse, rtol=0.0, atol=1e-5), "the score modifier changes nothing here"


@in_interpreter
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision(dtype: torch.dtype) -> None:
    score = SCORES["all"]
    tensors = inputs(2, 1, 33, 33, 24, dtype)
    compare(kernel_of(pattern(score), 24, dtype, (16, 32)), tensors, mask_of(live, 2, 33, 33, 0), 0, given(score))


@in_interpreter
def test_slopes_of_many_heads_and_keys_ahead() -> None:
    score = m.Score(None, (Alibi(),))
    seen = torch.ones(3, 20, 36, dtype=torch.bool)
    compare(kernel_of(pattern(score, 3, m.Full())), inputs(3, 1, 20, 36), seen, 8, given(score, 3))


@in_interpreter
def test_a_row_that_sees_no_key_has_the_sink_alone() -> None:
    score = m.Score(None, (LearnedSink(),))
    term = m.Intersection((m.Causal(), m.Columns(m.Edge(20, False), None, False)))
    kernel = kernel_of(pattern(score, 2, term))
    seen = mask_of(lambda h, i, j: (j <= i) & (j >= 20), 2, 40, 40, 0)
    tensors = inputs(2, 1, 40, 40)
    want = compare(kernel, tensors, seen, 0, given(score))
    sink = given(score).sink
    assert sink is not None and torch.equal(want.lse[0, :, 0], sink.double()) and not want.out[0, :, :20].any()
    q, k, v, g, grad_lse = tensors
    before = run(kernel, tensors, 0, sink, None)
    empty = ~seen[0].any(-1)[None, None, :, None]
    after = run(
        kernel, (q.masked_fill(empty, torch.nan), k, v, g.masked_fill(empty, torch.nan), grad_lse), 0, sink, None
    )
    for a, b in zip(before, after, strict=True):
        assert (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))


@in_interpreter
def test_a_sink_of_minus_infinity_is_none() -> None:
    tensors = inputs(2, 1, 20, 20)
    sink = torch.full((2,), -torch.inf)
    found = run(kernel_of(pattern(m.Score(None, (LearnedSink(),)))), tensors, 0, sink, None)
    plain = run(kernel_of(pattern(m.Score())), tensors, 0, None, None)
    for one, other in zip(found[:5], plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert not found[5].any()

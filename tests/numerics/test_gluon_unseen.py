"""What a row may not see, NaN and infinities included, does not reach it in Gluon's kernels either."""

from __future__ import annotations

import math

import gluon_model
import pytest
import torch
from gluon_calls import beside_triton, call_agrees
from test_gluon_columns import lists, pattern_of
from triton_harness import in_interpreter, interpreted, passes_in_the_interpreter

from sparsec.backends.gluon import kernel as gluon
from sparsec.backends.gluon.kernel import GluonKernel
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.target import GLUON
from sparsec.reference import mask
from sparsec.reference.attention import attention
from sparsec.sema import model as m
from sparsec.testing.cases import Case

N, BAD = 200, 61


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


@in_interpreter
@pytest.mark.parametrize("documents", [m.Documents.NONE, m.Documents.RESTART])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_values_that_a_row_does_not_see(value: float, documents: m.Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    term = m.Intersection((m.Causal(), m.Union((m.Window(20, 0, False), m.Sink(3, False)))))
    pattern = m.ResolvedPattern(2, 1, (term, term), 64, (), documents, m.Score())
    honest = gluon.load_module
    monkeypatch.setattr(
        gluon, "load_module", lambda text: gluon_model.load(text) if "@gluon.jit" in text else honest(text)
    )
    kernel = GluonKernel.of(Compilation(Lowered(pattern), 16, 16, "bfloat16", GLUON).forward)
    made = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn((1, heads, N, 16), generator=made).to(torch.bfloat16) for heads in (2, 1, 1))
    bounds = None if documents is m.Documents.NONE else (0, 30, 150, N)
    packed = None if bounds is None else torch.tensor(bounds, dtype=torch.int32)
    seen = mask(pattern, N, N, None if bounds else 0, cu_seqlens=bounds)
    wanted, wanted_lse = attention(q, k, v, seen, pattern.score, q_offset=0, dtype=torch.float64)
    k[:, :, BAD], v[:, :, BAD, 2:5] = value, value
    out, lse = kernel.forward(q, k, v, q_offset=0, cu_seqlens=packed)
    apart = ~seen[:, :, BAD]
    assert apart.any() and not apart.all()
    torch.testing.assert_close(out[0][apart].double(), wanted[0][apart], rtol=0.0, atol=3e-2)
    torch.testing.assert_close(lse[0][apart].double(), wanted_lse[0][apart], rtol=1e-5, atol=5e-5)
    assert not out[0][~apart][:, 2:5].isfinite().any()


@in_interpreter
@pytest.mark.parametrize("kind", ["", "documents restart"])
def test_listed_keys_that_a_row_does_not_see(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list for all queries names the key once, or never."""
    pattern = pattern_of("causal attend listed | window(5)", kind)
    n, bad = 150, torch.tensor([BAD])
    case = Case("forward", n, n, 0, seed=2, bounds=(0, 30, n) if kind else ())
    listed, number = lists(1, 2, n, 100, 3), BAD - 30 * bool(kind)
    listed[listed == number] = -1
    listed[:, 0, 0] = number
    drawn = case.inputs(pattern, 16, 16, torch.bfloat16)
    k, v = (t.index_fill(2, bad, torch.nan) for t in (drawn.k, drawn.v))
    kept = call_agrees(beside_triton(pattern, monkeypatch), pattern, case, {"listed": listed}, (drawn.q, k, v), bad)
    assert kept.any() and not kept.all()

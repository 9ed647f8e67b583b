"""Inputs beside all else that a pattern may have: dtypes, scores, heads with lists of their own, documents; and NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
from dense_formula import Formula, assert_close
from input_patterns import BATCH, BLOCK, HEADS, KV_HEADS, Call, Tensors, pattern, visible
from torch import Tensor

from sparsec.pipeline import Lowered
from sparsec.runtime.compile import module_for
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request
from sparsec.sema import model as m
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap

pytestmark = pytest.mark.kernels
SCORE = m.Score(0.3, (Softcap(3.0), Alibi(), LearnedSink()))
CALL = Call(50, 93, 41)


def compiled(
    name: str,
    target: str = "cpu",
    score: m.Score | None = None,
    documents: m.Documents = m.Documents.NONE,
    dim: int = 24,
    dtype: torch.dtype = torch.float32,
) -> SparseAttention:
    of = replace(pattern(name), score=score or m.Score(), documents=documents)
    return module_for(Request(Lowered(of), dim, dim, dtype), target, torch.device("cpu"))


def leaves_of(call: Call, dim: int, dtype: torch.dtype, batch: int = BATCH) -> list[Tensor]:
    torch.manual_seed(call.seed)
    shapes = ((HEADS, call.n_q), (KV_HEADS, call.n_k), (KV_HEADS, call.n_k), (HEADS, call.n_q))
    return [torch.randn(batch, heads, n, dim).to(dtype) for heads, n in shapes]


def outcome(attn: SparseAttention, leaves: list[Tensor], grad: Tensor, given: Tensors, **call: object) -> list[Tensor]:
    """out, LSE and all gradients."""
    inputs = [t.detach().clone().requires_grad_() for t in leaves]
    out, lse = attn(*inputs, return_lse=True, inputs=given, **call)  # type: ignore[call-overload]
    wanted = [*inputs, *(() if attn.sink is None else (attn.sink,))]
    return [out.detach(), lse.detach(), *torch.autograd.grad(out, wanted, grad)]


def mass_of(attn: SparseAttention, qkv: list[Tensor], given: Tensors, **call: object) -> Tensor:
    if attn.sink is not None:
        attn.sink.data = torch.linspace(-1, 1, HEADS)
    found: Tensor = attn(*qkv, return_mass=True, inputs=given, **call)[1]  # type: ignore[call-overload]
    return found


def first_of(given: Tensors) -> Tensors:
    """Inputs of the first sequence alone."""
    return {
        key: tuple(t[:1] for t in value) if isinstance(value, tuple) else value[:1]  # type: ignore[misc]
        for key, value in given.items()
    }


@contextmanager
def other_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads % 3 + 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("heads", [1, KV_HEADS, HEADS])
@pytest.mark.parametrize(
    ("name", "dtype", "dim"),
    [("two lists", torch.bfloat16, 24), ("vertical and slash", torch.float16, 72), ("causal rows", torch.float32, 20)],
    ids=str,
)
def test_dtypes_and_scores(name: str, dtype: torch.dtype, dim: int, heads: int) -> None:
    attn, given = compiled(name, score=SCORE, dim=dim, dtype=dtype), CALL.tensors(heads=heads)
    assert attn.sink is not None
    attn.sink.data = torch.linspace(-1, 1, HEADS)
    *qkv, grad = leaves_of(CALL, dim, dtype)
    got = outcome(attn, qkv, grad, given, q_offset=CALL.q_offset)
    i, j = torch.arange(CALL.q_offset, CALL.q_offset + CALL.n_q), torch.arange(CALL.n_k)
    formula = Formula(visible(name, CALL, given), (i[:, None] - j).abs(), 0.3, 3.0, True)
    assert_close(got, formula, qkv, (grad, None), attn.sink.detach())


@pytest.mark.parametrize("heads", [1, KV_HEADS, HEADS])
@pytest.mark.parametrize("name", ["two lists", "causal rows", "draws"])
def test_masses_of_any_scores_strides_and_threads(name: str, heads: int) -> None:
    given, qkv = CALL.tensors(heads=heads), leaves_of(CALL, 24, torch.bfloat16)[:3]
    qkv = [t.mT.contiguous().mT for t in qkv]
    calls = [partial(mass_of, compiled(name, each, score=SCORE, dtype=torch.bfloat16)) for each in ("cpu", "torch")]
    found, wanted = (call(qkv, given, q_offset=CALL.q_offset) for call in calls)
    torch.testing.assert_close(found, wanted, atol=5e-6, rtol=1e-5)
    with other_threads():
        assert torch.equal(calls[0](qkv, given, q_offset=CALL.q_offset), found)


@pytest.mark.parametrize("name", ["two lists", "vertical and slash", "causal rows"])
def test_other_threads_change_no_bit(name: str) -> None:
    attn, given = compiled(name), CALL.tensors()
    *qkv, grad = leaves_of(CALL, 24, torch.float32)
    found = outcome(attn, qkv, grad, given, q_offset=CALL.q_offset)
    with other_threads():
        assert all(map(torch.equal, outcome(attn, qkv, grad, given, q_offset=CALL.q_offset), found))


@pytest.mark.parametrize("documents", [m.Documents.SEPARATE, m.Documents.RESTART], ids=str)
@pytest.mark.parametrize("name", ["two lists", "vertical and slash", "causal cells", "draws", "labels", "causal tree"])
def test_documents_are_those_of_the_torch_target(name: str, documents: m.Documents) -> None:
    call = Call(93, 93, 0, 7)
    given = first_of(call.tensors())
    *qkv, grad = leaves_of(call, 24, torch.float32, 1)
    cu_seqlens = torch.tensor([0, 20, 20, 27, 93], dtype=torch.int32)
    modules = [compiled(name, target, documents=documents) for target in ("cpu", "torch")]
    found, wanted = (
        [*outcome(attn, qkv, grad, given, cu_seqlens=cu_seqlens), mass_of(attn, qkv, given, cu_seqlens=cu_seqlens)]
        for attn in modules
    )
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("documents", [m.Documents.NONE, m.Documents.SEPARATE], ids=str)
def test_more_columns_than_a_tile_has(documents: m.Documents) -> None:
    call = Call(n := 330, n, 0, 3)
    *qkv, grad = leaves_of(call, 24, torch.float32)
    given = {**call.tensors(), "columns": torch.randn(BATCH, HEADS, n).argsort(-1)[..., :150].to(torch.int32)}
    cu_seqlens = None
    if documents is not m.Documents.NONE:
        qkv, grad, given = [t[:1] for t in qkv], grad[:1], first_of(given)
        cu_seqlens = torch.tensor([0, 40, 200, 230, n], dtype=torch.int32)
    modules = [compiled("columns", target, documents=documents) for target in ("cpu", "torch")]
    found, wanted = (
        [*outcome(attn, qkv, grad, given, cu_seqlens=cu_seqlens), mass_of(attn, qkv, given, cu_seqlens=cu_seqlens)]
        for attn in modules
    )
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("target", ["cpu", "torch"])
@pytest.mark.parametrize("name", ["two lists", "causal cells", "one list less another", "all but rows", "tokens"])
def test_what_a_row_does_not_see_has_no_effect(name: str, target: str) -> None:
    attn, given = compiled(name, target), CALL.tensors()
    seen = visible(name, CALL, given)
    q, k, v, grad = leaves_of(CALL, 24, torch.float32)
    bad = torch.tensor([2 * BLOCK + 2, CALL.n_k - 2])
    unaffected = ~seen[..., bad].any(-1)
    assert unaffected.any() and not unaffected.all()
    grad = grad * unaffected[..., None]
    before = outcome(attn, [q, k, v], grad, given, q_offset=CALL.q_offset)
    mass = mass_of(attn, [q, k, v], given, q_offset=CALL.q_offset)
    kept = ~(seen & ~unaffected[..., None]).any(2)  # keys of no row that sees a bad one
    spoilt = mass_of(attn, [q, k.index_fill(2, bad, math.nan), v], given, q_offset=CALL.q_offset)
    assert torch.equal(spoilt[kept], mass[kept]) and kept.any() and spoilt[~kept].isnan().any()
    for of_keys in (False, True):
        keys = (k.index_fill(2, bad, math.nan), v) if of_keys else (k, v.index_fill(2, bad, math.nan))
        after = outcome(attn, [q, *keys], grad, given, q_offset=CALL.q_offset)
        for mine, theirs in zip(after[:3], before[:3], strict=True):
            assert torch.equal(mine[unaffected], theirs[unaffected])
        for mine, theirs in zip(after[3:], before[3:], strict=True) if not of_keys else ():
            assert torch.equal(mine, theirs)

"""Packed documents in the generated C++, forward and backward, against the dense formula with a mask per document."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from cpu_patterns import HEADS, KV_HEADS, drawn, inputs
from dense_formula import Formula, assert_close
from torch import Tensor

import sparsec
from sparsec.backends.cpu.backward import CpuBackward, build_backwards
from sparsec.backends.cpu.kernel import CpuKernel, build_kernels, has_compiler
from sparsec.diagnostics.model import CallError
from sparsec.pipeline import Lowered
from sparsec.runtime.draws import draw_tables

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")

Pair = Callable[[Tensor, Tensor, int], Tensor]
"""bool [H, Nq, Nk] of positions i [Nq, 1] and j [1, Nk] among nk keys."""

H = torch.arange(HEADS)[:, None, None]
TERMS: dict[str, tuple[str, Pair]] = {
    "full": ("attend full", lambda i, j, nk: (i == i) & (j == j) & (H >= 0)),
    "causal": ("causal attend full", lambda i, j, nk: (j <= i) & (H >= 0)),
    "window": (
        "attend window(20, ahead = 4) | sink(5)",
        lambda i, j, nk: (((i - j >= -4) & (i - j < 20)) | (j < 5)) & (H >= 0),
    ),
    "blocks": (
        "block 16 causal attend window(1b) | stride(3b, phase = h)",
        lambda i, j, nk: (j <= i) & ((i // 16 == j // 16) | (j // 16 % 3 == H % 3)),
    ),
    "last": (
        "attend columns(-5 ..) | window(2)",
        lambda i, j, nk: ((j >= nk - 5) | ((i - j >= 0) & (i - j < 2))) & (H >= 0),
    ),
    "drawn": (
        "block 32 causal attend window(3) | random(2, seed = 7)",
        lambda i, j, nk: (j <= i) & ((i - j < 3) | torch.stack([drawn(i, j, h, 2, 32) for h in range(HEADS)])),
    ),
    "scored": ("causal softcap 3 alibi learned_sink attend full", lambda i, j, nk: (j <= i) & (H >= 0)),
}
KINDS = ("documents", "documents restart")
LENGTHS = (0, 1, 64, 0, 0, 7, 150, 30, 3, 65, 2, 0)


@cache
def kernels(dtype: str, terms: tuple[str, ...]) -> dict[tuple[str, str], tuple[CpuKernel, CpuBackward]]:
    names = [(kind, name) for kind in KINDS for name in terms]
    plans = [
        Lowered(
            sparsec.parse(f"pattern p {{ {kind} {TERMS[name][0]} }}").pattern().resolve(HEADS, KV_HEADS)
        ).plan_backward(
            head_dim=32,
            dtype=dtype,
            query_tile=64,
            key_tile=64,
        )
        for kind, name in names
    ]
    forward = build_kernels([plan.forward for plan in plans], optimise=1)
    return dict(zip(names, zip(forward, build_backwards(plans, optimise=1), strict=True), strict=True))


def packed(lengths: tuple[int, ...]) -> Tensor:
    return torch.tensor((0, *lengths)).cumsum(0).to(torch.int32)


def formula(kind: str, name: str, cu_seqlens: Tensor, n_q: int, q0: int) -> Formula:
    ends = cu_seqlens.tolist()
    n_k = ends[-1]
    i, j = torch.arange(n_k)[:, None], torch.arange(n_k)[None, :]
    mask = torch.zeros(HEADS, n_k, n_k, dtype=torch.bool)
    whole = TERMS[name][1](i, j, n_k)
    for begin, end in pairwise(ends):
        part = slice(begin, end)
        if kind == "documents":
            mask[:, part, part] = whole[:, part, part]
        elif begin < end:
            mask[:, part, part] = TERMS[name][1](i[part] - begin, j[:, part] - begin, end - begin)
    rows = slice(q0, q0 + n_q)
    scored = name == "scored"
    return Formula(mask[:, rows], (i - j).abs()[rows], softcap=3.0 if scored else None, alibi=scored)


def run(
    kind: str,
    name: str,
    qkv: list[Tensor],
    q0: int,
    cu_seqlens: Tensor,
    grads: tuple[Tensor, Tensor],
    sink: Tensor | None,
) -> list[Tensor]:
    forward, backward = kernels("float32", tuple(TERMS))[kind, name]
    if qkv[0].dtype != torch.float32:
        forward, backward = kernels("bfloat16", (name,))[kind, name]
    first = 0 if kind == "documents restart" else q0
    lists = draw_tables(forward.plan.lists, q0 + qkv[0].shape[2] - first, first, qkv[0].device)
    given = {"q_offset": q0, "scale": None, "lists": lists, "sink": sink, "cu_seqlens": cu_seqlens}
    out, lse = forward.forward(*qkv, **given)
    got = backward.backward(*grads, *qkv, out, lse, **given)
    return [t for t in (out, lse, *got) if t is not None]


def gradients_of(q: Tensor) -> tuple[Tensor, Tensor]:
    torch.manual_seed(q.shape[2])
    return torch.randn(q.shape).to(q.dtype), torch.randn(q.shape[:3])


def sink_for(name: str) -> Tensor | None:
    return torch.tensor([0.5, -2.0, 3.0, -20.0]) if name == "scored" else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("n_q", [322, 201, 0])
def test_documents_of_many_lengths(kind: str, name: str, n_q: int) -> None:
    cu_seqlens = packed(LENGTHS)
    n_k = sum(LENGTHS)
    qkv = inputs(n_q, n_k, 32, batch=1)
    grads, sink = gradients_of(qkv[0]), sink_for(name)
    got = run(kind, name, qkv, n_k - n_q, cu_seqlens, grads, sink)
    assert_close(got, formula(kind, name, cu_seqlens, n_q, n_k - n_q), qkv, grads, sink)


@pytest.mark.parametrize("kind", KINDS)
def test_low_precision(kind: str) -> None:
    cu_seqlens = packed(LENGTHS)
    qkv = inputs(322, 322, 32, torch.bfloat16, batch=1)
    grads = gradients_of(qkv[0])
    got = run(kind, "window", qkv, 0, cu_seqlens, grads, None)
    assert_close(got, formula(kind, "window", cu_seqlens, 322, 0), qkv, grads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(0,), (0, 0, 0), ()], ids=str)
def test_no_tokens_at_all(kind: str, lengths: tuple[int, ...]) -> None:
    qkv = inputs(0, 0, 32, batch=1)
    assert [t.numel() for t in run(kind, "causal", qkv, 0, packed(lengths), gradients_of(qkv[0]), None)] == [0] * 5


def test_other_documents_have_no_effect() -> None:
    cu_seqlens = packed(LENGTHS)
    qkv = inputs(322, 322, 32, batch=1)
    grads = gradients_of(qkv[0])
    clean = run("documents", "window", qkv, 0, cu_seqlens, grads, None)
    poisoned = [t.clone() for t in (*qkv, grads[0])]
    for t in poisoned:
        t[:, :, 72:222] = float("nan")  # the document of 150
    got = run("documents", "window", poisoned[:3], 0, cu_seqlens, (poisoned[3], grads[1]), None)
    for a, b in zip(got, clean, strict=True):
        assert torch.equal(a[:, :, :72], b[:, :, :72]) and torch.equal(a[:, :, 222:], b[:, :, 222:])


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_documents(kind: str) -> None:
    """Documents of three tokens, every other one empty, as a batch of 10,000 sequences."""
    cu_seqlens = packed((3, 0) * 10_000)
    qkv = inputs(30_000, 30_000, 32, batch=1)
    grads = gradients_of(qkv[0])
    run(kind, "causal", qkv, 0, cu_seqlens, grads, None)
    start = time.process_time()
    got = run(kind, "causal", qkv, 0, cu_seqlens, grads, None)
    assert time.process_time() - start < 5
    batched = [t.view(t.shape[1], 10_000, 3, 32).transpose(0, 1) for t in (*qkv, grads[0])]
    lse_grad = grads[1].view(HEADS, 10_000, 3).transpose(0, 1)
    causal = torch.ones(3, 3, dtype=torch.bool).tril().expand(HEADS, 3, 3)
    wanted = Formula(causal).outcome([t.double() for t in batched[:3]], None, (batched[3].double(), lse_grad.double()))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(
            a[0].view(a.shape[1], 10_000, 3, -1).transpose(0, 1).reshape(b.shape).double(), b, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_change_a_bit(kind: str) -> None:
    qkv = inputs(322, 322, 32, batch=1)
    grads = gradients_of(qkv[0])
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(run(kind, "scored", qkv, 0, packed(LENGTHS), grads, sink_for("scored")))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_bad_documents_are_refused() -> None:
    qkv = inputs(322, 322, 32, batch=1)
    good = packed(LENGTHS)
    forward = kernels("float32", tuple(TERMS))["documents", "causal"][0]
    for bad in (None, good.long(), good[:-2], good[1:].clone().sub_(1), good.flip(0), good[None], good[:0]):
        with pytest.raises(CallError, match="expected"):
            forward.forward(*qkv, q_offset=0, scale=None, lists=(), cu_seqlens=bad)
    for q_offset in (-1, 1):
        with pytest.raises(CallError, match="positions"):
            forward.forward(*qkv, q_offset=q_offset, scale=None, lists=(), cu_seqlens=good)
    with pytest.raises(CallError, match="batch of 1"):
        forward.forward(*inputs(322, 322, 32, batch=2), q_offset=0, scale=None, lists=(), cu_seqlens=good)

"""Runs a pattern's Triton kernels in Triton's interpreter, forward and backward, and holds them to dense attention."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from dense_gradients import Results, Score, dense
from torch import Tensor

from sparsec.backends.triton.kernel import TritonKernel, interpreted
from sparsec.pipeline import Lowered
from sparsec.runtime.draws import draw_tables
from sparsec.sema import model as m

in_interpreter = pytest.mark.skipif(not interpreted(), reason="runs in a process of its own")
STEPS = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def passes_in_the_interpreter(file: str) -> None:
    """Triton decides at import whether it interprets, so the tests of a file run in a process of their own."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", file],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed, 1 skipped" in run.stdout


def kernel_of(
    pattern: m.ResolvedPattern,
    head_dim: int = 16,
    dtype: torch.dtype = torch.float32,
    tiles: tuple[int, int] = (16, 16),
) -> TritonKernel:
    name = str(dtype).removeprefix("torch.")
    return TritonKernel.of(
        Lowered(pattern).plan_forward(
            head_dim=head_dim, dtype=name, query_tile=tiles[0], key_tile=tiles[1], gathers_columns=True
        ),
        plan_backward=lambda: Lowered(pattern).plan_backward(
            head_dim=head_dim, dtype=name, query_tile=tiles[1], key_tile=tiles[0], gathers_columns=True
        ),
    )


def run(
    kernel: TritonKernel, tensors: tuple[Tensor, ...], start: int, sink: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, ...]:
    """out, lse, dq, dk, dv, and dsink if there is a sink."""
    q, k, v, g, grad_lse = tensors
    lists = draw_tables(kernel.plan.lists, q.shape[2], start, q.device)
    extra = {"q_offset": start, "lists": lists, "sink": sink, "cu_seqlens": cu_seqlens}
    out, lse = kernel.forward(q, k, v, **extra)
    found = (out, lse, *kernel.backward(g, grad_lse, q, k, v, out, lse, **extra))
    return found[:5] if sink is None else found


def compare(
    kernel: TritonKernel,
    tensors: tuple[Tensor, ...],
    seen: Tensor,
    start: int = 0,
    score: Score | None = None,
    cu_seqlens: Tensor | None = None,
) -> Results:
    """tensors: q, k, v, and the gradients of the output and of the LSE; seen [H, Nq, Nk]."""
    q, k, v, g, grad_lse = tensors
    score = replace(score or Score(), scale=kernel.plan.score.scale)
    want = dense(q, k, v, seen, start, g, grad_lse, score)
    expected = (want.out, want.lse, want.dq, want.dk, want.dv, want.dsink)
    found = run(kernel, tensors, start, score.sink, cu_seqlens)
    for name, got, wanted in zip(("out", "lse", "dq", "dk", "dv", "dsink"), found, expected, strict=False):
        assert wanted is not None
        finite = wanted.masked_fill(wanted.isneginf(), 0.0)
        atol = STEPS[q.dtype] * (1.0 + finite.abs().max().item())
        torch.testing.assert_close(got.double(), wanted, rtol=0.0, atol=atol, msg=lambda text, n=name: f"{n}: {text}")
    return want


def inputs(
    heads: int, kv_heads: int, nq: int, nk: int, head_dim: int = 16, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """q, k, v, and the gradients of the output and of the LSE."""
    torch.manual_seed(nq * 1000 + nk)
    q, g = (torch.randn(1, heads, nq, head_dim).to(dtype) for _ in range(2))
    k, v = (torch.randn(1, kv_heads, nk, head_dim).to(dtype) for _ in range(2))
    return q, k, v, g, torch.randn(1, heads, nq)

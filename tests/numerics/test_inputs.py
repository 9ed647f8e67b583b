"""Patterns with inputs: outputs, LSE and gradients against dense attention under the masks of the language."""

from __future__ import annotations

import pytest
import torch
from input_patterns import BATCH, HEADS, KV_HEADS, TERMS, Call, pattern, visible
from torch import Tensor

from sparsec.pipeline import Lowered
from sparsec.runtime.compile import _module, module_of, request_for  # noqa: F401
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request

CALLS = (Call(33, 70, 37), Call(20, 90, 70, 1), Call(64, 64, 0, 2), Call(1, 50, 49, 3), Call(40, 30, -10, 4))
DIM = 8


def compiled(name: str, target: str) -> SparseAttention:
    return _module(Request(Lowered(pattern(name)), DIM, torch.float32), target, torch.device("cpu"), anyhow=False)


def dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    share = HEADS // KV_HEADS
    scores = q.double() @ k.double().repeat_interleave(share, 1).mT / DIM**0.5
    scores = scores.masked_fill(~seen, -torch.inf)
    lse = scores.logsumexp(-1)
    weights = torch.exp(scores - lse.masked_fill(lse == -torch.inf, 0)[..., None])
    return weights @ v.double().repeat_interleave(share, 1), lse


@pytest.mark.parametrize("name", TERMS)
def test_outputs_and_gradients(name: str) -> None:
    attn = compiled(name, "torch")
    for call in CALLS:
        given = call.tensors()
        seen = visible(name, call, given)
        torch.manual_seed(call.seed)
        leaves = tuple(
            torch.randn(BATCH, heads, n, DIM, requires_grad=True)
            for heads, n in ((HEADS, call.n_q), (KV_HEADS, call.n_k), (KV_HEADS, call.n_k))
        )
        out, lse = attn(*leaves, q_offset=call.q_offset, return_lse=True, inputs=given)
        expected, expected_lse = dense(*leaves, seen)
        torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(lse.double(), expected_lse, atol=2e-5, rtol=1e-5)
        grad = torch.randn_like(out)
        found = torch.autograd.grad(out, leaves, grad)
        wanted = torch.autograd.grad(expected, leaves, grad.double())
        for mine, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=1e-4)

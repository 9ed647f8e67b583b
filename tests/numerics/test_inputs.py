"""Patterns with inputs: outputs, LSE and gradients against dense attention under the masks of the language."""

from __future__ import annotations

import pytest
import torch
from input_patterns import BATCH, HEADS, KV_HEADS, TERMS, Call, pattern, visible
from torch import Tensor

from sparsec.pipeline import Lowered
from sparsec.runtime.compile import module_for
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request

CALLS = (Call(33, 70, 37), Call(20, 90, 70, 1), Call(64, 64, 0, 2), Call(1, 50, 49, 3), Call(40, 30, -10, 4))
DIM = 8
TARGETS = ("torch", pytest.param("cpu", marks=pytest.mark.kernels))


def compiled(name: str, target: str) -> SparseAttention:
    return module_for(Request(Lowered(pattern(name)), DIM, DIM, torch.float32), target, torch.device("cpu"))


def dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    share = HEADS // KV_HEADS
    scores = q.double() @ k.double().repeat_interleave(share, 1).mT / DIM**0.5
    scores = scores.masked_fill(~seen, -torch.inf)
    lse = scores.logsumexp(-1)
    weights = torch.exp(scores - lse.masked_fill(lse == -torch.inf, 0)[..., None])
    return weights @ v.double().repeat_interleave(share, 1), lse


def dense_mass(q: Tensor, k: Tensor, seen: Tensor) -> Tensor:
    """Of weights that are the output where values are units."""
    units = torch.eye(k.shape[2]).expand(BATCH, KV_HEADS, -1, -1)
    return dense(q, k, units, seen)[0].detach().sum(2)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", TERMS)
def test_outputs_and_gradients(name: str, target: str) -> None:
    attn = compiled(name, target)
    for call in CALLS:
        given = call.tensors()
        seen = visible(name, call, given)
        torch.manual_seed(call.seed)
        leaves = tuple(
            torch.randn(BATCH, heads, n, DIM, requires_grad=True)
            for heads, n in ((HEADS, call.n_q), (KV_HEADS, call.n_k), (KV_HEADS, call.n_k))
        )
        out, lse, mass = attn(*leaves, q_offset=call.q_offset, return_lse=True, return_mass=True, inputs=given)
        expected, expected_lse = dense(*leaves, seen)
        torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(lse.double(), expected_lse, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(mass.double(), dense_mass(*leaves[:2], seen), atol=2e-5, rtol=1e-5)
        grad = torch.randn_like(out)
        found = torch.autograd.grad(out, leaves, grad)
        wanted = torch.autograd.grad(expected, leaves, grad.double())
        for mine, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["rows", "causal pages", "two lists", "one list less another"])
def test_lists_of_queries_without_entries(name: str, target: str) -> None:
    attn = compiled(name, target)
    for call in CALLS:
        given = call.tensors()
        given |= {key: given[key][..., :0] for key in ("rows", "pages")}
        q, k, v = (
            torch.randn(BATCH, heads, n, DIM, requires_grad=True)
            for heads, n in ((HEADS, call.n_q), (KV_HEADS, call.n_k), (KV_HEADS, call.n_k))
        )
        out, mass = attn(q, k, v, q_offset=call.q_offset, inputs=given, return_mass=True)
        seen = visible(name, call, given)
        torch.testing.assert_close(out.double(), dense(q, k, v, seen)[0], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(mass.double(), dense_mass(q, k, seen), atol=2e-5, rtol=1e-5)
        out.sum().backward()


def test_lists_of_queries_without_any_key() -> None:
    given = Call(9, 40, 0).tensors()
    given |= {"tokens": given["tokens"][:, :0], "tree": given["tree"][:, :0]}
    given["labels"] = (given["labels"][0], given["labels"][1][..., :0])
    q, k = torch.randn(BATCH, HEADS, 9, DIM, requires_grad=True), torch.randn(BATCH, KV_HEADS, 0, DIM)
    for name in ("rows", "causal pages"):
        out = compiled(name, "torch")(q, k, k, q_offset=0, inputs=given)
        assert torch.equal(out, torch.zeros_like(out))
        (gradient,) = torch.autograd.grad(out.sum(), q)
        assert torch.equal(gradient, torch.zeros_like(q))


CACHED = [name for name in TERMS if name.startswith(("causal ", "all but ", "vertical", "two lists", "lists of"))]
STEPS = (30, 1, 1, 7, 1, 20, 1)


@pytest.mark.parametrize("name", CACHED)
def test_a_cache_gives_what_the_whole_gives(name: str) -> None:
    """Each call gives what speaks of its queries and of its new keys."""
    attn = compiled(name, "torch")
    total = sum(STEPS)
    cache = attn.new_cache(BATCH, total)
    torch.manual_seed(5)
    q, k, v = (torch.randn(BATCH, heads, total, DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
    of_keys = Call(total, total, 0, 9).tensors()
    start = 0
    for seed, new in enumerate(STEPS):
        stop = start + new
        call = Call(new, stop, start, seed)
        given = call.tensors()
        whole = {**given, "tokens": of_keys["tokens"][:, :stop]}
        whole["labels"] = (given["labels"][0], of_keys["labels"][1][..., :stop])
        step = {
            **whole,
            "tokens": whole["tokens"][:, start:],
            "labels": (whole["labels"][0], whole["labels"][1][..., start:]),
        }
        out, lse = attn(
            q[:, :, start:stop], k[:, :, start:stop], v[:, :, start:stop], cache=cache, inputs=step, return_lse=True
        )
        expected, expected_lse = dense(q[:, :, start:stop], k[:, :, :stop], v[:, :, :stop], visible(name, call, whole))
        torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(lse.double(), expected_lse, atol=2e-5, rtol=1e-5)
        start = stop

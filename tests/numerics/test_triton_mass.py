"""The mass of keys, in Triton's interpreter, against the reference's weights: its output where values are units."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from triton_harness import in_interpreter, interpreted, passes_in_the_interpreter

import sparsec
from sparsec.backends.triton.kernel import TritonKernel
from sparsec.runtime.draws import draw_tables
from sparsec.runtime.request import Request

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
PATTERNS = {
    "strided": "causal attend window(20) | stride(7, phase = h)",
    "blocks": "block 16 causal attend window(2b) | stride(3b, phase = h)",
    "ahead": "attend window(12, ahead = 5)",
    "modified": "alibi softcap 5.0 learned_sink causal attend window(9) | sink(3)",
    "drawn": "block 16 causal attend window(1b) | random(2)",
}


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


def inputs(n_q: int, n_k: int, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """q and k, and logits of a sink."""
    generator = torch.Generator().manual_seed(n_q * 1000 + n_k)
    shapes = (batch, HEADS, n_q, HEAD_DIM), (batch, KV_HEADS, n_k, HEAD_DIM), (HEADS,)
    q, k, sink = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, sink


def weights(text: str, q: Tensor, k: Tensor, sink: Tensor, start: int, cu_seqlens: Tensor | None) -> Tensor:
    """Of the reference, [B, H, Nq, Nk]."""
    n_k = k.shape[2]
    dims = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "value_dim": n_k}
    attn = sparsec.compile(text, **dims, target="reference")
    with torch.no_grad():
        if attn.sink is not None:
            attn.sink.copy_(sink)
        units = torch.eye(n_k).expand(len(k), KV_HEADS, n_k, n_k)
        out = attn(q, k, units, q_offset=None if cu_seqlens is not None else start, cu_seqlens=cu_seqlens)
    assert isinstance(out, Tensor)
    return out


def mass(text: str, q: Tensor, k: Tensor, sink: Tensor, start: int, cu_seqlens: Tensor | None = None) -> Tensor:
    pattern = sparsec.parse(text).pattern()
    request = Request(pattern.lowered(HEADS, KV_HEADS), HEAD_DIM, HEAD_DIM, torch.float32)
    plans = request.compilation("interpreter")
    kernel = TritonKernel.of(plans.forward, plan_backward=lambda: plans.backward)
    lists = draw_tables(kernel.plan.lists, q.shape[2], start, q.device)
    given = {"q_offset": start, "lists": lists, "cu_seqlens": cu_seqlens}
    given["sink"] = sink if "learned_sink" in text else None
    _, lse = kernel.forward(q, k, k, **given)
    found = kernel.mass(q, k, lse, **given)
    assert found.dtype == torch.float32 and found.is_contiguous()
    return found


@in_interpreter
@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(("n_q", "n_k", "start"), [(9, 61, 52), (40, 23, 30)])
def test_is_the_sum_of_the_weights(name: str, n_q: int, n_k: int, start: int) -> None:
    text, (q, k, sink) = f"pattern p {{ {PATTERNS[name]} }}", inputs(n_q, n_k, batch=2)
    expected = weights(text, q, k, sink, start, None).sum(2)
    torch.testing.assert_close(mass(text, q, k, sink, start), expected, rtol=0.0, atol=1e-5)


@in_interpreter
@pytest.mark.parametrize("documents", ["documents", "documents restart"])
def test_of_packed_documents(documents: str) -> None:
    text, (q, k, sink) = f"pattern p {{ {documents} causal attend window(20) }}", inputs(61, 61)
    cu_seqlens = torch.tensor([0, 17, 17, 61], dtype=torch.int32)
    expected = weights(text, q, k, sink, 0, cu_seqlens).sum(2)
    torch.testing.assert_close(mass(text, q, k, sink, 0, cu_seqlens), expected, rtol=0.0, atol=1e-5)


@in_interpreter
def test_no_query_gives_no_mass() -> None:
    q, k, sink = inputs(0, 5)
    assert torch.equal(mass("pattern p { attend full }", q, k, sink, 0), torch.zeros(1, HEADS, 5))


@in_interpreter
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_what_is_unseen_has_no_effect(value: float) -> None:
    """A spoilt key reaches the queries that see it and, through their log-sum-exps, what these see; no other key."""
    n, bad = 30, 13
    text, (q, k, sink) = "pattern p { causal attend window(9) }", inputs(n, n)
    seen = sparsec.parse(text).pattern().mask(n, n, HEADS, KV_HEADS)
    kept = mass(text, q, k, sink, 0)[0]
    spoilt_key, spoilt_query = k.clone(), q.clone()
    spoilt_key[..., bad, 3], spoilt_query[..., bad, 3] = value, value
    for given, queries in (((q, spoilt_key), seen[:, :, bad]), ((spoilt_query, k), torch.arange(n)[None] == bad)):
        reached = (seen & queries[:, :, None]).any(dim=1)
        found = mass(text, *given, sink, 0)[0]
        assert torch.equal(found[~reached], kept[~reached])
        assert not found[reached].isfinite().all()

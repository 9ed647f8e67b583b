"""The mass of keys, in Triton's interpreter, against the reference's weights: its output where values are units."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from triton_harness import in_interpreter, interpreted, passes_in_the_interpreter

import sparsec
from sparsec.backends.triton.backend import BACKEND
from sparsec.pipeline import Compilation
from sparsec.plan.launch import Launches

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


def module(text: str, value_dim: int, target: str, sink: Tensor) -> sparsec.SparseAttention:
    dims = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "value_dim": value_dim}
    attn = sparsec.compile(text, **dims, target=target)
    if attn.sink is not None:
        attn.sink.data.copy_(sink)
    return attn


def weights(text: str, q: Tensor, k: Tensor, sink: Tensor, **given: Any) -> Tensor:
    """Of the reference, [B, H, Nq, Nk]."""
    n_k = k.shape[2]
    units = torch.eye(n_k).expand(len(k), KV_HEADS, n_k, n_k)
    out: Tensor = module(text, n_k, "reference", sink)(q, k, units, **given)
    return out.detach()


def mass(text: str, q: Tensor, k: Tensor, sink: Tensor, **given: Any) -> Tensor:
    _, found = module(text, HEAD_DIM, "triton", sink)(q, k, k, return_mass=True, **given)
    assert found.dtype == torch.float32 and found.is_contiguous()
    return found


@in_interpreter
@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(("n_q", "n_k", "start"), [(9, 61, 52), (40, 23, 30)])
def test_is_the_sum_of_the_weights(name: str, n_q: int, n_k: int, start: int) -> None:
    text, (q, k, sink) = f"pattern p {{ {PATTERNS[name]} }}", inputs(n_q, n_k, batch=2)
    expected = weights(text, q, k, sink, q_offset=start).sum(2)
    torch.testing.assert_close(mass(text, q, k, sink, q_offset=start), expected, rtol=0.0, atol=1e-5)


@in_interpreter
@pytest.mark.parametrize("documents", ["documents", "documents restart"])
def test_of_packed_documents(documents: str) -> None:
    text, (q, k, sink) = f"pattern p {{ {documents} causal attend window(20) }}", inputs(61, 61)
    cu_seqlens = torch.tensor([0, 17, 17, 61], dtype=torch.int32)
    expected = weights(text, q, k, sink, cu_seqlens=cu_seqlens).sum(2)
    torch.testing.assert_close(mass(text, q, k, sink, cu_seqlens=cu_seqlens), expected, rtol=0.0, atol=1e-5)


LISTS = {
    "keys and pages": "block 16 alibi softcap 5.0 learned_sink causal attend near | picks | pages",
    "documents": "documents block 16 attend (picks | pages) & causal",
    "documents restart": "documents restart block 16 attend near | picks | (pages - picks)",
}


@in_interpreter
@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("heads", [1, KV_HEADS, HEADS])
def test_of_lists_of_rows(name: str, heads: int) -> None:
    n, (q, k, sink) = 37, inputs(37, 37)
    declared = "input picks : rows input pages : rows(blocks) let near = window(5)"
    text, generator = f"pattern p {{ {declared} {LISTS[name]} }}", torch.Generator().manual_seed(heads)
    picks = torch.rand(1, heads, n, n + 4, generator=generator).argsort(-1)[..., :7].int() - 2
    pages = torch.rand(1, 1, n, 4, generator=generator).argsort(-1)[..., :2].int() - 1
    given: dict[str, Any] = {"inputs": {"picks": picks, "pages": pages}}
    if "documents" in name:
        given["cu_seqlens"] = torch.tensor([0, 11, 11, n], dtype=torch.int32)
    expected = weights(text, q, k, sink, **given).sum(2)
    torch.testing.assert_close(mass(text, q, k, sink, **given), expected, rtol=0.0, atol=1e-5)


@in_interpreter
def test_no_query_gives_no_mass() -> None:
    q, k, sink = inputs(0, 5)
    assert torch.equal(mass("pattern p { attend full }", q, k, sink), torch.zeros(1, HEADS, 5))


@in_interpreter
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_what_is_unseen_has_no_effect(value: float) -> None:
    """A spoilt key reaches the queries that see it and, through their log-sum-exps, what these see; no other key."""
    n, bad = 30, 13
    text, (q, k, sink) = "pattern p { causal attend window(9) }", inputs(n, n)
    seen = sparsec.parse(text).pattern().mask(n, n, HEADS, KV_HEADS)
    kept = mass(text, q, k, sink)[0]
    spoilt_key, spoilt_query = k.clone(), q.clone()
    spoilt_key[..., bad, 3], spoilt_query[..., bad, 3] = value, value
    for given, queries in (((q, spoilt_key), seen[:, :, bad]), ((spoilt_query, k), torch.arange(n)[None] == bad)):
        reached = (seen & queries[:, :, None]).any(dim=1)
        found = mass(text, *given, sink)[0]
        assert torch.equal(found[~reached], kept[~reached])
        assert not found[reached].isfinite().all()


@in_interpreter
def test_of_kernels_from_a_folder() -> None:
    text, (q, k, sink) = f"pattern p {{ {PATTERNS['strided']} }}", inputs(33, 33)
    lowered = sparsec.parse(text).pattern().lowered(HEADS, KV_HEADS)
    compilation = Compilation(lowered, HEAD_DIM, HEAD_DIM, "float32", "interpreter")
    launches = Launches.of(compilation.forward, compilation.backward, None)
    files = {
        f"{part}.py": text.encode() for part, text in BACKEND.sources(compilation, ("forward", "backward")).items()
    }
    folder = BACKEND.load(launches, Path(), files)
    forward, loaded = folder.forward, folder.mass
    _, lse = forward.forward(q, k, k, q_offset=0, scale=None, lists=())
    assert loaded is not None
    found = loaded.mass(q, k, lse, q_offset=0, scale=None, lists=())
    assert torch.equal(found, mass(text, q, k, sink))
    assert BACKEND.load(replace(launches, backward=None), Path(), files).mass is None

"""KV caches on a GPU: walks in chunks and tokens against one pass, and a replayed CUDA graph; skipped without one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.runtime.module import SparseAttention

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SOURCES = {
    "s2": "pattern p { block 64 causal attend sink(64) | window(4b) | stride(4b, phase = -g) }",
    "by head": "pattern p { block 64 causal attend window(2b) | stride(4b, phase = -h) }",
    "random": "pattern p { block 64 causal attend window(2b) | random(3, seed = 5) }",
    "duo": "pattern p { causal where g in [0] attend full otherwise attend sink(64) | window(256) }",
    "bent": "pattern p { causal attend chunk(300)  softcap 30  alibi learned_sink }",
    "tokens": "pattern p { causal attend window(100) | stride(7, phase = 3) }",
}
HEADS, KV_HEADS = 8, 2
CASES = (
    *((name, 128, torch.bfloat16) for name in SOURCES),
    *((name, 64, torch.bfloat16) for name in ("s2", "duo")),
    *(("s2", head_dim, dtype) for dtype in (torch.float16, torch.float32) for head_dim in (64, 128)),
    ("bent", 64, torch.float32),
    ("random", 64, torch.float16),
    ("s2", 256, torch.bfloat16),
)
BOUNDS = (0, 700, 701, 702, 712, 728, 1111, 1112, 1200)


def made(name: str, head_dim: int, dtype: torch.dtype) -> SparseAttention:
    attn = sparsec.compile(
        SOURCES[name], heads=HEADS, kv_heads=KV_HEADS, head_dim=head_dim, dtype=dtype, device="cuda", target="triton"
    )
    if attn.sink is not None:
        attn = attn.cuda()
        with torch.no_grad():
            attn.sink.copy_(torch.linspace(-1, 1, HEADS))
    return attn


def drawn(n: int, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(n)
    q, k, v = (torch.randn(2, heads, n, head_dim, device="cuda").to(dtype) for heads in (HEADS, KV_HEADS, KV_HEADS))
    return q, k, v


@pytest.mark.filterwarnings("ignore:the cache keeps every key")
@pytest.mark.parametrize(("name", "head_dim", "dtype"), CASES, ids=lambda value: str(value).removeprefix("torch."))
@torch.no_grad()
def test_walk(name: str, head_dim: int, dtype: torch.dtype) -> None:
    attn, call = made(name, head_dim, dtype), drawn(BOUNDS[-1], head_dim, dtype)
    whole, lse = attn(*call, return_lse=True)
    exact = sparsec.compile(
        SOURCES[name], heads=HEADS, kv_heads=KV_HEADS, head_dim=head_dim, dtype=torch.float32, target="reference"
    ).cuda()
    if attn.sink is not None:
        exact.sink = attn.sink
    right = exact(*(t.float() for t in call))
    cache = attn.new_cache(2, BOUNDS[-1])
    cache.keys.fill_(float("nan"))
    cache.values.fill_(float("nan"))
    found, sums = [], []
    for first, last in pairwise(BOUNDS):
        out, part = attn(*(t[:, :, first:last] for t in call), cache=cache, return_lse=True)
        found.append(out)
        sums.append(part)
    error, allowed = ((t.float() - right).abs().max().item() for t in (torch.cat(found, 2), whole))
    assert error <= max(2 * allowed, 1e-5), (error, allowed)
    torch.testing.assert_close(torch.cat(sums, 2), lse, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:the cache keeps every key")
@pytest.mark.parametrize("name", SOURCES)
@torch.no_grad()
def test_masses(name: str) -> None:
    """Those of all calls are those of one pass, and two runs give the same bits."""
    attn, call = made(name, 64, torch.float32), drawn(BOUNDS[-1], 64, torch.float32)
    whole = attn(*call, return_mass=True)[1]
    cache, found = attn.new_cache(2, BOUNDS[-1]), torch.zeros_like(whole)
    for first, last in pairwise(BOUNDS):
        new, twin = [t[:, :, first:last] for t in call], cache.fork()
        mass = attn(*new, cache=cache, return_mass=True)[1]
        assert torch.equal(mass, attn(*new, cache=twin, return_mass=True)[1])
        found[..., :last] += mass
    torch.testing.assert_close(found, whole, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_padded_rows() -> None:
    attn, (q, k, v) = made("s2", 64, torch.bfloat16), drawn(300, 64, torch.bfloat16)
    cache = attn.new_cache(2, 400)
    out = attn(q, k, v, cache=cache, lengths=[120, 300])
    alone = attn(*(t[:1, :, 180:] for t in (q, k, v)))
    torch.testing.assert_close(out[:1, :, 180:], alone, rtol=2e-2, atol=2e-2)
    assert not out[0, :, :180].any() and cache.lengths == (120, 300)


@torch.no_grad()
def test_graph_replays() -> None:
    """One captured step, replayed: the lengths live on the device. A replay past the greatest length writes nothing."""
    attn, call = made("s2", 128, torch.bfloat16), drawn(600, 128, torch.bfloat16)
    whole = attn(*call)
    cache = attn.new_cache(2, 600)
    attn(*(t[:, :, :500] for t in call), cache=cache)
    step = [t[:, :, 500:501].clone() for t in call]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        attn(*step, cache=cache)  # warm
    torch.cuda.current_stream().wait_stream(stream)
    cache.truncate(500)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attn(*step, cache=cache)
    cache.lengths_tensor.fill_(500)
    found = []
    for at in range(500, 600):
        for buffer, t in zip(step, call, strict=True):
            buffer.copy_(t[:, :, at : at + 1])
        graph.replay()
        found.append(out.clone())
    torch.testing.assert_close(torch.cat(found, 2), whole[:, :, 500:], rtol=2e-2, atol=2e-2)
    cache.refresh()
    assert cache.lengths == (600, 600)
    graph.replay()
    torch.cuda.synchronize()


@torch.no_grad()
def test_two_runs_are_equal() -> None:
    attn, call = made("duo", 128, torch.bfloat16), drawn(3000, 128, torch.bfloat16)
    runs = []
    for _ in range(2):
        cache = attn.new_cache(2, 3000)
        runs.append(
            [attn(*(t[:, :, a:b] for t in call), cache=cache) for a, b in ((0, 2990), (2990, 2991), (2991, 3000))]
        )
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))

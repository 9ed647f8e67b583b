"""Graphs, streams, devices, lengths and addresses on a GPU, against plain calls of one module; skipped without one.

`tests/unit/runtime/test_on_a_card.py` asks the same of a machine that is not there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.runtime.module import SparseAttention

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
RANDOM = "pattern p { block 64 causal attend window(2b) | random(3, seed = 5) }"
DUO = "pattern p { causal where g in [0] attend full otherwise attend sink(64) | window(256) }"
S2 = "pattern p { block 64 causal attend sink(64) | window(4b) | stride(4b, phase = -g) }"
HEADS, KV_HEADS = 8, 2


def made(source: str, device: str = "cuda:0") -> SparseAttention:
    return sparsec.compile(
        source, heads=HEADS, kv_heads=KV_HEADS, head_dim=64, dtype=torch.bfloat16, device=device, target="triton"
    )


def drawn(n: int, device: str = "cuda:0", batch: int = 2) -> list[Tensor]:
    torch.manual_seed(n)
    return [torch.randn(batch, h, n, 64, device=device).bfloat16() for h in (HEADS, KV_HEADS, KV_HEADS)]


def captured(call: Callable[[], object], first: bool = True) -> torch.cuda.CUDAGraph:
    """Of a call, after a first one on a side stream."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        if first:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def passes(attn: SparseAttention, tensors: list[Tensor], g: Tensor, into: list[Tensor]) -> None:
    leaves = [tensor.requires_grad_() for tensor in tensors]
    out = attn(*leaves)
    into[:] = [out.detach(), *torch.autograd.grad(out, leaves, g)]


@pytest.mark.parametrize("source", [RANDOM, DUO], ids=["random", "duo"])
def test_a_graph_of_forward_and_backward(source: str) -> None:
    attn, tensors, found, want = made(source), drawn(500), [], []
    g = torch.randn_like(tensors[0])
    graph = captured(lambda: passes(attn, tensors, g, found))
    for n in (500, 300, 500):  # calls of the same and of another length, between capture and replay
        passes(attn, drawn(n), torch.randn_like(drawn(n)[0]), want)
    with torch.no_grad():
        for tensor, other in zip(tensors, drawn(501), strict=True):
            tensor.copy_(other[:, :, :500])
    graph.replay()
    passes(attn, tensors, g, want)
    assert all(map(torch.equal, found, want))


@torch.no_grad()
def test_a_graph_with_lengths() -> None:
    """A replay reads the lengths where they lie; those outside 0..N count as the nearest."""
    attn, tensors = made(DUO), drawn(80)
    caches = [attn.new_cache(2, 200) for _ in range(2)]
    for cache in caches:
        attn(*(t[:, :, :40] for t in tensors), cache=cache)
    step, counts, found = [t[:, :, 40:44].clone() for t in tensors], torch.tensor([1, 4], device="cuda"), []
    graph = captured(lambda: found.append(attn(*step, cache=caches[0], lengths=counts)))
    caches[0].truncate(40)
    for given, meant in (([1, 4], [1, 4]), ([0, 2], [0, 2]), ([-3, 9], [0, 4])):
        counts.copy_(torch.tensor(given))
        graph.replay()
        out = attn(*step, cache=caches[1], lengths=meant)
        torch.testing.assert_close(found[-1], out, rtol=2e-2, atol=2e-2)
    caches[0].refresh()
    assert caches[0].lengths == caches[1].lengths == (41, 50)


@torch.no_grad()
def test_a_graph_takes_no_lengths_of_the_host_and_no_first_call() -> None:
    attn, tensors = made("pattern p { causal attend window(77) }"), drawn(3)
    with pytest.raises(sparsec.CallError, match="expected a first call of this kind on cuda:0"):
        captured(lambda: attn(*tensors), first=False)
    cache = attn.new_cache(2, 100)
    attn(*tensors, cache=cache, lengths=[1, 2])
    attn(*tensors, cache=cache)
    with pytest.raises(sparsec.CallError, match="expected lengths as a tensor on cuda:0"):
        captured(lambda: attn(*tensors, cache=cache, lengths=[1, 2]), first=False)
    assert attn(*tensors).isfinite().all()


@torch.no_grad()
def test_no_call_waits_for_the_device() -> None:
    attn = made(RANDOM)
    with pytest.warns(UserWarning, match="the cache keeps every key"):
        cache = attn.new_cache(2, 900)
    counts = torch.tensor([1, 2], device="cuda")
    for n in (300, 301, 20):
        torch.cuda.set_sync_debug_mode("error" if n != 300 else "default")  # the first calls may
        attn(*drawn(n))
        attn(*drawn(n), cache=cache)
        attn(*drawn(3), cache=cache, lengths=counts)
        attn(*drawn(3), cache=cache, lengths=[1, 2])
    torch.cuda.set_sync_debug_mode("default")
    cache.refresh()
    assert cache.lengths == (627, 633)


@pytest.mark.parametrize("source", [RANDOM, DUO], ids=["random", "duo"])
@torch.no_grad()
def test_streams(source: str) -> None:
    """The same calls by turns on several streams, each busy with something else first."""
    attn, tensors = made(source), drawn(400)
    want = attn(*tensors)
    torch.cuda.synchronize()
    streams, found = [torch.cuda.Stream() for _ in range(3)], []
    busy = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    for stream in streams * 3:
        with torch.cuda.stream(stream):
            busy @ busy
            found.append(attn(*tensors))
    torch.cuda.synchronize()
    assert all(torch.equal(out, want) for out in found)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("source", [RANDOM, DUO], ids=["random", "duo"])
def test_two_devices(source: str) -> None:
    """One module on both, the first being the current one."""
    attn, found = made(source), {}
    for device in ("cuda:0", "cuda:1", "cuda:0"):
        tensors, into = [t.to(device) for t in drawn(333)], []
        passes(attn, tensors, torch.ones_like(tensors[0]), into)
        cache = attn.new_cache(2, 400, device=device)
        with torch.no_grad():
            for n in (333, 17, 1):
                into.append(attn(*(t.detach()[:, :, :n] for t in tensors), cache=cache))
        assert all(t.device == torch.device(device) for t in into)
        found[device] = [t.cpu() for t in into]
    assert torch.cuda.current_device() == 0
    for one, other in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("which", range(3), ids="qkv")
def test_odd_addresses(which: int) -> None:
    attn, tensors, g = made(S2), drawn(300), torch.randn(2, HEADS, 300, 64, device="cuda").bfloat16()
    want, found = [], []
    passes(attn, tensors, g, want)
    room = tensors[which].new_zeros(tensors[which].numel() + 1)
    tensors = [tensor.detach() for tensor in tensors]
    tensors[which] = room[1:].view_as(tensors[which]).copy_(tensors[which])
    assert tensors[which].data_ptr() % 16
    passes(attn, tensors, g, found)
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)

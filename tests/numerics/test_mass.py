"""The mass of keys against the dense probabilities of the reference."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import sparsec
from sparsec.runtime.module import SparseAttention

pytestmark = pytest.mark.kernels
HEADS, KV_HEADS = 4, 2
SETS = {
    "window and sink": "attend (window(40) | sink(4)) & causal",
    "bent scores": "block 16 softcap 5 alibi learned_sink attend (window(40) | stride(4b)) & causal",
    "draws": "block 16 where h in [0, 1] attend random(2b, seed = 3) where h in [2, 3] attend window(9) | sink(3)",
    "documents": "documents causal attend window(30)",
    "documents restart": "documents restart causal attend window(30)",
}
SHAPES = ((150, 150, 0), (70, 150, 80), (70, 150, 20), (40, 20, 90), (0, 9, 9), (9, 0, 0))


@cache
def attention(target: str, text: str, dtype: torch.dtype) -> SparseAttention:
    text = f"pattern p {{ heads {HEADS} kv {KV_HEADS} {text} }}"
    attn = sparsec.compile(text, head_dim=20, value_dim=12, dtype=dtype, target=target, device="cpu")
    if attn.sink is not None:
        torch.nn.init.normal_(attn.sink, generator=torch.Generator().manual_seed(1))
    return attn


def call(text: str, shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    n_q, n_k, offset = shape
    more: dict[str, Any] = {"q_offset": offset}
    if text.startswith("documents"):
        n_q = n_k
        more = {"cu_seqlens": torch.tensor([0, n_k // 4, n_k // 4, n_k // 3, n_k], dtype=torch.int32)}
    generator, batch = torch.Generator().manual_seed(n_q), 1 if "cu_seqlens" in more else 2
    sizes = (HEADS, n_q, 20), (KV_HEADS, n_k, 20), (KV_HEADS, n_k, 12)
    return tuple(torch.randn(batch, *size, generator=generator).to(dtype) for size in sizes), more


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("text", SETS.values(), ids=SETS)
@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_it_is_the_sum_of_the_dense_probabilities(
    target: str, text: str, dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    qkv, more = call(text, shape, dtype)
    wanted = attention("reference", text, dtype)(*qkv, return_mass=True, **more)[1]
    out, lse, mass = attention(target, text, dtype)(*qkv, return_lse=True, return_mass=True, **more)
    assert mass.dtype == torch.float32 and mass.shape == (*out.shape[:2], qkv[1].shape[2])
    assert torch.allclose(mass, wanted, rtol=2e-6, atol=2e-6)
    assert bool((mass[wanted == 0] == 0).all())
    if "learned_sink" not in text:
        rows = (lse > -torch.inf).sum(dim=2)
        assert torch.allclose(mass.sum(dim=2), rows.float(), rtol=1e-5)


@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_what_a_query_does_not_see_changes_nothing(target: str) -> None:
    text = SETS["window and sink"]
    attn, ((q, k, v), _) = attention(target, text, torch.float32), call(text, (150, 150, 0), torch.float32)
    out, mass = attn(q, k, v, return_mass=True)
    q, k = q.clone(), k.clone()
    k[:, :, 100] = float("nan")  # which queries 100 to 139 see
    seen = attn(q, k, v, return_mass=True)[1]
    apart = [*range(4, 61), *range(100, 101)]
    assert torch.equal(seen[:, :, 4:61], mass[:, :, 4:61]) and bool(seen[:, :, apart[-1]].isnan().all())
    q[:, :, :50] = float("nan")
    later = attn(q, v=v, k=call(text, (150, 150, 0), torch.float32)[0][1], return_mass=True)[1]
    assert torch.equal(later[:, :, 50:], mass[:, :, 50:])
    assert out.isfinite().all()


def test_it_is_the_same_whatever_the_number_of_threads() -> None:
    text = SETS["bent scores"]
    attn, (qkv, _) = attention("cpu", text, torch.float32), call(text, (300, 300, 0), torch.float32)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(attn(*qkv, return_mass=True)[1])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_it_has_no_gradient_and_leaves_those_of_the_output(target: str) -> None:
    text = SETS["window and sink"]
    attn, (qkv, _) = attention(target, text, torch.float32), call(text, (60, 60, 0), torch.float32)
    q, k, v = (t.requires_grad_() for t in qkv)
    out, mass = attn(q, k, v, return_mass=True)
    assert out.requires_grad and not mass.requires_grad
    assert all(each is not None for each in torch.autograd.grad(out.sum(), (q, k, v)))


@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_samples_of_vmap_are_calls_of_their_own(target: str) -> None:
    attn = attention(target, SETS["bent scores"], torch.float32)
    qkv = [torch.stack((t, t.flip(2))) for t in call(SETS["bent scores"], (60, 60, 0), torch.float32)[0]]
    found = torch.func.vmap(lambda *each: attn(*each, return_mass=True)[1])(*qkv)
    assert torch.equal(found[1], attn(*(t[1] for t in qkv), return_mass=True)[1])


def test_its_flops_are_those_of_one_product() -> None:
    attn, (qkv, _) = attention("torch", SETS["window and sink"], torch.float32), call("", (64, 64, 0), torch.float32)
    counts = []
    for asked in (False, True):
        with FlopCounterMode(display=False) as counter:
            attn(*qkv, return_mass=asked)
        counts.append(counter.get_total_flops())
    assert counts[1] * 32 == counts[0] * 52

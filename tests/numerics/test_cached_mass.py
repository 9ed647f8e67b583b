"""The mass of keys of calls with a cache, kept keys among them, against the dense probabilities of the reference."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.runtime.module import SparseAttention

pytestmark = [pytest.mark.kernels, pytest.mark.filterwarnings("ignore:the cache keeps every key")]
HEADS, KV_HEADS = 4, 2
SETS = {
    "kept": "attend (sink(4) | window(8) | kept) & causal",
    "bent scores": "block 16 softcap 5 alibi learned_sink attend (window(6) | stride(2b) | kept) & causal",
    "by group": "where g == 0 attend kept & causal otherwise attend window(20) & causal",
}
CALLS = (33, 1, 1, 50, 1, 100, 1, 1, 120, 1)
KEPT = (4, 6)
"""After which calls marks are taken away."""


@cache
def attention(target: str, text: str) -> SparseAttention:
    text = f"pattern p {{ heads {HEADS} kv {KV_HEADS} input kept : tokens {text} }}"
    attn = sparsec.compile(text, head_dim=20, value_dim=12, target=target, device="cpu")
    if attn.sink is not None:
        torch.nn.init.normal_(attn.sink, generator=torch.Generator().manual_seed(1))
    return attn.requires_grad_(False)


def tokens(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and marks of new tokens of two sequences."""
    sizes = (HEADS, n, 20), (KV_HEADS, n, 20), (KV_HEADS, n, 12)
    q, k, v = (torch.randn(2, *size, generator=generator) for size in sizes)
    return q, k, v, torch.rand(2, KV_HEADS, n, generator=generator) < 0.5


@pytest.mark.parametrize("text", SETS.values(), ids=SETS)
@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_it_is_the_sum_of_the_dense_probabilities(target: str, text: str) -> None:
    attn, oracle, generator = attention(target, text), attention("reference", text), torch.Generator().manual_seed(2)
    kv, k, v, marks = attn.new_cache(2, sum(CALLS)), *tokens(0, generator)[1:]
    for nth, n in enumerate(CALLS):
        q, *new = tokens(n, generator)
        k, v, marks = (torch.cat([old, fresh], 2) for old, fresh in zip((k, v, marks), new, strict=True))
        out, lse, mass = attn(
            q, *new[:2], cache=kv, inputs={"kept": new[2]}, return_lse=True, return_mass=[0, 1] if nth % 3 else True
        )
        wanted = oracle(q, k, v, inputs={"kept": marks}, return_lse=True, return_mass=True)
        assert mass.dtype == torch.float32 and mass.shape == wanted[2].shape
        for found, each in zip((out, lse, mass), wanted, strict=True):
            assert torch.allclose(found, each, rtol=5e-6, atol=5e-6)
        assert bool((mass[wanted[2] == 0] == 0).all())
        if nth in KEPT:
            marks = marks & (torch.rand(marks.shape, generator=generator) < 0.5)
            kv.keep("kept", marks)


@pytest.mark.parametrize("n", [1, 40])
@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_the_groups_that_are_asked_for_get_it(target: str, n: int) -> None:
    attn, generator = attention(target, SETS["kept"]), torch.Generator().manual_seed(3)
    kv = attn.new_cache(2, 100)
    for _ in range(2):  # the first call is on an empty cache
        q, k, v, marks = tokens(n, generator)
        whole = attn(q, k, v, cache=kv.fork(), inputs={"kept": marks}, return_mass=True)[1]
        mass = attn(q, k, v, cache=kv, inputs={"kept": marks}, return_mass=[1])[1]
        assert torch.equal(mass[:, 2:], whole[:, 2:]) and not mass[:, :2].any() and bool(whole[:, :2].any())
    with pytest.raises(sparsec.CallError, match="expected a KV group of return_mass between 0 and 1, got 2"):
        attn(q, k, v, cache=kv, inputs={"kept": marks}, return_mass=[2])


@pytest.mark.parametrize("target", ["torch", "cpu"])
def test_sequences_of_other_lengths(target: str) -> None:
    attn, generator = attention(target, SETS["kept"]), torch.Generator().manual_seed(4)
    kv, rows = attn.new_cache(2, 60), [tokens(0, generator)[1:] for _ in range(2)]
    for counts in ([20, 9], [3, 0], [0, 1], [1, 1]):
        q, *new = tokens(max(counts), generator)
        mass = attn(q, *new[:2], cache=kv, lengths=counts, inputs={"kept": new[2]}, return_mass=True)[1]
        for b, (count, row) in enumerate(zip(counts, rows, strict=True)):
            first = max(counts) - count
            k, v, marks = (torch.cat([old, each[:, :, first:]], 2) for old, each in zip(row, new, strict=True))
            rows[b] = k, v, marks
            wanted = attention("reference", SETS["kept"])(
                q[:, :, first:], k, v, inputs={"kept": marks}, return_mass=True
            )[1]
            assert torch.allclose(mass[b, :, : k.shape[2]], wanted[b], rtol=5e-6, atol=5e-6)
            assert not mass[b, :, k.shape[2] :].any()
        assert mass.shape[2] == kv.length


def test_it_is_the_same_whatever_the_number_of_threads() -> None:
    attn, generator = attention("cpu", SETS["kept"]), torch.Generator().manual_seed(5)
    kv, (q, k, v, marks) = attn.new_cache(2, 5000), tokens(4000, generator)
    attn(q, k, v, cache=kv, inputs={"kept": marks})
    kv.keep("kept", marks)
    q, k, v, marks = tokens(3, generator)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(attn(q, k, v, cache=kv.fork(), inputs={"kept": marks}, return_mass=True)[1])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])

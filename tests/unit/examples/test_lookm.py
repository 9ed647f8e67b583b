"""`examples/merge/lookm.py` against its rule, key by key, and against attention to what that leaves."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import sparsec

FOLDER = Path(__file__).parents[3] / "examples" / "merge"
BATCH, HEADS, GROUPS, KEYS, DIM = 2, 4, 2, 40, 8
IMPORTANT, RECENT = 4, 6


@pytest.fixture(scope="module")
def lookm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lookm", FOLDER / "lookm.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn((BATCH, heads, n, DIM), generator=generator) for heads in (HEADS, GROUPS, GROUPS))
    return q, k, v


def mass_of_key(q: Tensor, k: Tensor) -> Tensor:
    """[N]: causal soft-max probabilities, added up over the queries of the heads [h, N, D] that share keys [N, D]."""
    scores = (q @ k.mT / math.sqrt(DIM)).masked_fill(torch.ones(len(k), len(k)).triu(1).bool(), -math.inf)
    return scores.softmax(-1).sum((0, 1))


def by_rule(k: Tensor, mass: Tensor) -> list[list[int]]:
    """The keys that each pivot stands for, its own number first."""
    older = sorted(range(len(k) - RECENT), key=lambda n: -float(mass[n]))
    found = {pivot: [pivot] for pivot in (*older[:IMPORTANT], *range(len(k) - RECENT, len(k)))}
    for n in range(len(k)):
        if n not in found:
            nearest = max(found, key=lambda p: float(k[n] @ k[p] / (k[n].norm() * k[p].norm())))
            found[nearest].append(n)
    return list(found.values())


def test_keys_join_the_pivot_that_they_are_most_like(lookm: ModuleType) -> None:
    q, k, _ = drawn(KEYS, 0)
    mass = torch.stack([mass_of_key(q[b, h : h + 1], k[b, h // 2]) for b in range(BATCH) for h in range(HEADS)])
    labels = lookm.pivots(k, mass.view(BATCH, HEADS, KEYS), important=IMPORTANT, recent=RECENT)
    for b in range(BATCH):
        for g in range(GROUPS):
            wanted = by_rule(k[b, g], mass_of_key(q[b, 2 * g : 2 * g + 2], k[b, g]))
            own = labels[b, g].tolist()
            assert sorted(map(sorted, wanted)) == sorted(
                [n for n in range(KEYS) if own[n] == label] for label in set(own)
            )


@pytest.mark.parametrize("target", ["torch", pytest.param("cpu", marks=pytest.mark.kernels)])
def test_a_new_token_attends_to_means_that_weigh_their_number(lookm: ModuleType, target: str) -> None:
    attn = sparsec.compile(
        FOLDER / "lookm.sparse", heads=HEADS, kv_heads=GROUPS, head_dim=DIM, target=target, device="cpu"
    )
    (q, k, v), (new_q, new_k, new_v) = drawn(KEYS, 0), drawn(1, 1)
    with pytest.warns(UserWarning, match="the cache keeps every key"):
        cache = attn.new_cache(BATCH, KEYS + 10)
    lookm.prefill(attn, cache, q, k, v, important=IMPORTANT / KEYS, recent=RECENT / KEYS)
    assert cache.kept is not None and bool((cache.kept.lists[..., 2] == IMPORTANT + RECENT).all())
    found = attn(new_q, new_k, new_v, cache=cache, inputs=lookm.unmerged(new_k))
    for b in range(BATCH):
        for g in range(GROUPS):
            parts = by_rule(k[b, g], mass_of_key(q[b, 2 * g : 2 * g + 2], k[b, g]))
            keys, values = (
                torch.stack([*(each[b, g, part].mean(0) for part in parts), new[b, g, 0]])
                for each, new in ((k, new_k), (v, new_v))
            )
            counts = torch.tensor([*map(float, map(len, parts)), 1.0]).log()
            for h in (2 * g, 2 * g + 1):
                scores = keys @ new_q[b, h, 0] / math.sqrt(DIM) + counts
                torch.testing.assert_close(found[b, h, 0], scores.softmax(0) @ values, atol=2e-6, rtol=1e-5)

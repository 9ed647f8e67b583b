"""The scores and budgets of `examples/compress`, and `adaptive`, against the published rules, on random tensors."""

from __future__ import annotations

import h2o
import published
import pyramidkv
import pytest
import snapkv
import torch
from torch import Tensor, nn

import sparsec
from sparsec.integrations.transformers import Prompt, adaptive
from sparsec.integrations.transformers.budgets import Even, kept_count

HEADS, GROUPS, LENGTH, DIM = 6, 2, 90, 8


def prompt(length: int = LENGTH, seed: int = 0) -> Prompt:
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, n, length, DIM, dtype=torch.float64, generator=draw) for n in (HEADS, GROUPS, GROUPS))
    dense = sparsec.parse("pattern p { causal attend full }").pattern().among("kept")
    attn = sparsec.compile(
        dense, heads=HEADS, kv_heads=GROUPS, head_dim=DIM, dtype=torch.float64, target="torch", device="cpu"
    )
    return Prompt(0, nn.Identity(), 2 * q, k, v, DIM**-0.5, {}, attn)


def kept(scores: Tensor, keys: int) -> list[list[set[int]]]:
    marks = Even(keys)(scores, 0)
    return [[set(group.nonzero().flatten().tolist()) for group in row] for row in marks]


def groups_of(of: Prompt) -> list[list[tuple[list[list[list[float]]], list[list[float]]]]]:
    """By row and KV group the queries of its heads, and its keys."""
    share = HEADS // GROUPS
    return [
        [(q[g * share : (g + 1) * share].tolist(), k[g].tolist()) for g in range(GROUPS)]
        for q, k in zip(of.q, of.k, strict=True)
    ]


@pytest.mark.parametrize(("keys", "window", "kernel"), [(30, 12, 5), (50, 32, 7), (12, 12, 5)])
def test_snapkv(keys: int, window: int, kernel: int) -> None:
    of = prompt()
    wanted = [[published.snapkv(q, k, keys, window, kernel) for q, k in row] for row in groups_of(of)]
    assert kept(snapkv.score(of, window=window, kernel=kernel), keys) == wanted


def test_snapkv_keeps_a_prompt_of_its_window() -> None:
    assert snapkv.score(prompt(9), window=9).isposinf().all()
    assert not snapkv.score(prompt(9), window=8)[..., 0].isposinf().any()


@pytest.mark.parametrize(("keys", "recent"), [(30, 10), (45, 0), (64, 64)])
def test_h2o(keys: int, recent: int) -> None:
    of = prompt(seed=1)
    wanted = [[published.h2o(q, k, keys, recent) for q, k in row] for row in groups_of(of)]
    assert kept(h2o.score(of, recent=recent), keys) == wanted


@pytest.mark.parametrize("floor", [0.0, 0.01, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 1.0])
def test_adakv(floor: float, share: float) -> None:
    scores = torch.randn(2, 4, 60, generator=torch.Generator().manual_seed(2)) * torch.tensor([[1], [3], [9], [0.1]])
    found = adaptive(share, floor=floor)(scores, 0)
    for row, of_row in zip(found, scores.tolist(), strict=True):
        wanted = published.adakv(of_row, max(1, int(share * 60)), floor)
        assert [set(group.nonzero().flatten().tolist()) for group in row] == wanted
    if floor == 0.0 and share == 0.3:
        assert len({int(number) for number in found[0].sum(1)}) == 4, "no group is like another"


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("layers", [2, 5, 32])
def test_pyramidkv(share: float, layers: int) -> None:
    found = pyramidkv.shares(share, layers, beta=20)
    assert [1000 * each for each in found] == pytest.approx(published.pyramidkv(1000 * share, layers, 1000, 20))
    assert sum(found) / layers == pytest.approx(share)
    assert all(0 < kept_count(found, layer, 1000) <= 1000 for layer in range(layers))


def test_pyramidkv_of_one_layer() -> None:
    assert pyramidkv.shares(0.2, 1) == [0.2]

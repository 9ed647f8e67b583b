"""Baselines of patterns with inputs compute the pattern's own attention, and what is live is the reference's count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sparsec
from sparsec.bench.baselines import baseline_mask, masked
from sparsec.bench.gathering import by_gathering, rows_of
from sparsec.pictures.given import given_coverage, live_mask
from sparsec.reference import attention, mask
from sparsec.testing.inputs import drawn_inputs

N = 150
TEXTS = [
    "input x : rows attend x | sink(1)",
    "input x : blocks attend x | sink(2)",
    "input x : columns input y : rows(blocks) where g == 0 attend x | sink(3 + h) otherwise attend y | sink(1)",
    "input x : labels attend x | window(3 + h)",
    "attend window(9) | sink(2)",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("heads", "n_q"), [(4, N), (4, 37), (2, 1)])
def test_the_mask_and_the_gathering_are_the_reference(text: str, seed: int, heads: int, n_q: int) -> None:
    pattern = sparsec.parse(f"pattern p {{ block 16 {text} }}").pattern().resolve(heads, 2)
    given = drawn_inputs(pattern, batch=2, n_q=n_q, n_k=N, q_offset=N - n_q, seed=seed)
    whole = mask(pattern, n_q, N, inputs=given) if given else mask(pattern, n_q, N)[None]
    live = live_mask(pattern, given, n_q, N, N - n_q)
    assert torch.equal(live.repeat_interleave(heads // live.shape[1], 1), whole)
    q, k, v = torch.randn(2, heads, n_q, 8), torch.randn(2, 2, N, 8), torch.randn(2, 2, N, 8)
    expected = attention(q, k, v, whole, pattern.score)[0].float()
    for call in (
        masked(live, q, k, v, scale=None),
        by_gathering(live, q, k, v, rows=min(rows_of(pattern), n_q), scale=None),
    ):
        torch.testing.assert_close(call(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("text", TEXTS)
def test_coverage(text: str) -> None:
    pattern = sparsec.parse(f"pattern p {{ block 16 {text} }}").pattern().resolve(4, 2)
    given = drawn_inputs(pattern, batch=2, n_q=N, n_k=N, q_offset=0, seed=1)
    whole = mask(pattern, N, N, inputs=given) if given else mask(pattern, N, N)[None]
    found = given_coverage(pattern, given, N, (16, 32))
    assert sorted(head for each in found for head in each.heads) == [0, 1, 2, 3]
    for each in found:
        for head in each.heads:
            own = whole[:, head]
            assert each.exact and each.live_pairs == pytest.approx(float(own.sum()) / len(own))
            assert each.causal == (not bool(own.triu(1).any()))
            rows, columns = np.diff(each.rows).tolist(), np.diff(each.columns).tolist()
            cells = [[cell.mean().item() for cell in row.split(columns, 1)] for row in own[0].double().split(rows)]
            assert np.allclose(each.live, cells)


def test_a_mask_that_is_too_large_is_not_made() -> None:
    pattern = sparsec.parse("pattern p { input x : rows attend x }").pattern().resolve(1, 1)
    with pytest.raises(sparsec.SparsecError, match="its mask has"):
        baseline_mask(pattern, {"x": torch.zeros(1, 1, 1 << 17, 1, dtype=torch.int32)}, 1 << 17, 1 << 17, 0)

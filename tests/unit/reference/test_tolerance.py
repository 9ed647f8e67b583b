"""How far from exact attention a kernel may be: a share of plain attention's errors, more of it where rows are few."""

from __future__ import annotations

import pytest
import torch

from sparsec.reference.attention import attention
from sparsec.reference.tolerance import FLOOR, allowed_errors
from sparsec.testing.tolerance import Expected, assert_close

SMALL = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", SMALL, ids=str)
def test_many_rows_leave_nothing_to_chance(dtype: torch.dtype) -> None:
    assert allowed_errors(0.01, 0.001, dtype, 10**8) == pytest.approx((0.02, 0.0011), rel=1e-3)


def test_what_is_allowed_shrinks_with_rows() -> None:
    bounds = [allowed_errors(0.01, 0.001, torch.bfloat16, rows) for rows in (0, 1, 4, 100, 10_000)]
    assert bounds[0] == bounds[1] == pytest.approx((0.06, 0.0033))
    assert bounds[2] == pytest.approx((0.04, 0.0022))
    assert bounds[1:] == sorted(bounds[1:], reverse=True) and len(set(bounds)) == 4


def test_float32_is_held_to_its_multiple_whatever_the_rows() -> None:
    assert allowed_errors(1e-4, 1e-5, torch.float32, 1) == pytest.approx((1e-3, 1e-4))
    assert allowed_errors(1e-9, 1e-9, torch.float32, 1) == (FLOOR, FLOOR)


@pytest.mark.parametrize("keys", [1, 2, 3, 40])
@pytest.mark.parametrize("dtype", SMALL, ids=str)
def test_right_attention_of_few_rows_passes(dtype: torch.dtype, keys: int) -> None:
    """Scores and sums in float32, weights rounded to the dtype and their sum not: as kernels have it."""
    mask = torch.ones(2, 1, keys, dtype=torch.bool)
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        q = torch.randn(2, 2, 1, 16, generator=generator).to(dtype)
        k, v = (torch.randn(2, 2, keys, 16, generator=generator).to(dtype) for _ in "kv")
        scores = (q.float() @ k.float().mT) / 4
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        out = (weights.to(dtype).float() @ v.float() / weights.sum(-1, keepdim=True)).to(dtype)
        exact, plain = attention(q, k, v, mask), attention(q, k, v, mask, dtype=dtype)
        assert_close(out, scores.logsumexp(-1), Expected(*exact, *plain), mask)


def test_few_rows_hide_no_lost_key() -> None:
    """A row of two keys, of which one is lost."""
    dtype, mask = torch.bfloat16, torch.ones(2, 1, 2, dtype=torch.bool)
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        q, k, v = (torch.randn(2, 2, n, 16, generator=generator).to(dtype) for n in (1, 2, 2))
        exact, plain = attention(q, k, v, mask), attention(q, k, v, mask, dtype=dtype)
        with pytest.raises(AssertionError, match="error of the output"):
            assert_close(v[..., :1, :].clone(), exact[1].float(), Expected(*exact, *plain), mask)

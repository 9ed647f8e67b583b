"""A cache that was given room for more tokens goes on as if it had had it from the start."""

from __future__ import annotations

import pytest
import torch

import sparsec

CPU = pytest.param("cpu", marks=pytest.mark.kernels)


@pytest.mark.parametrize("target", ["torch", CPU])
@pytest.mark.parametrize(
    "terms",
    [
        "full",
        "window(6) | sink(2)",
        "window(40)",
        "stride(5, phase = -g) | window(3)",
        "columns(30 ..) | window(4)",
        "window(1b) | random(2)",
    ],
)
def test_a_cache_goes_on_after_it_has_grown(terms: str, target: str) -> None:
    text = f"pattern p {{ heads 4 kv 2  block 16  causal  attend {terms} }}"
    attn = sparsec.compile(text, head_dim=16, target=target)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 70, 16, generator=generator) for heads in (4, 2, 2))
    whole = attn(q, k, v)
    with torch.no_grad():
        cache = attn.new_cache(2, 20, rollback=3)
        first = 0
        for length, room in ((1, 20), (12, 25), (12, 26), (9, 70), (36, 70)):
            cache.grow(room)
            part = slice(first, first + length)
            out = attn(q[:, :, part], k[:, :, part], v[:, :, part], cache=cache)
            torch.testing.assert_close(out, whole[:, :, part], rtol=1e-4, atol=1e-5)
            first += length
        assert cache.lengths == (70, 70) and cache.max_len == 70
        assert cache.nbytes == attn.new_cache(2, 70, rollback=3).nbytes
        cache.truncate(67)
        out = attn(q[:, :, 67:], k[:, :, 67:], v[:, :, 67:], cache=cache)
        torch.testing.assert_close(out, whole[:, :, 67:], rtol=1e-4, atol=1e-5)

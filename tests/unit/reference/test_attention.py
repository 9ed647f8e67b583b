"""Dense reference attention against plain PyTorch, and its promises about rows and keys that nobody sees."""

from __future__ import annotations

import torch

from sparsec.reference import attention
from sparsec.sema.model import Score


def inputs(heads: int = 4, kv_heads: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, heads, 9, 8, generator=generator)
    k, v = torch.randn(2, 2, kv_heads, 13, 8, generator=generator)
    visible = torch.rand(heads, 9, 13, generator=generator) < 0.5
    visible[..., 0] = True
    return q, k, v, visible


def test_equals_scaled_dot_product_attention() -> None:
    q, k, v, visible = inputs()
    out, lse = attention(q, k, v, visible, Score(0.3))
    keys, values = (x.double().repeat_interleave(2, dim=1) for x in (k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(q.double(), keys, values, visible, scale=0.3)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    scores = (q.double() @ keys.mT * 0.3).masked_fill(~visible, float("-inf"))
    torch.testing.assert_close(lse, torch.logsumexp(scores, dim=-1), rtol=1e-12, atol=1e-12)
    assert torch.equal(attention(q, k, v, visible)[0], attention(q, k, v, visible, Score(8**-0.5))[0])


def test_empty_rows_and_unseen_keys() -> None:
    q, k, v, visible = inputs()
    visible[1, 3] = False
    visible[:, :, 5] = False
    clean = attention(q, k, v, visible)
    k[:, :, 5], v[:, :, 5] = float("nan"), float("nan")
    q.requires_grad_()
    out, lse = attention(q, k, v, visible)
    assert torch.equal(out, clean[0])
    assert torch.equal(lse, clean[1])
    assert torch.all(out[:, 1, 3] == 0)
    assert torch.all(lse[:, 1, 3] == float("-inf"))

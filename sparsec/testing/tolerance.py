"""The tolerance policy: errors against float64, held to a multiple of those of plain PyTorch attention.

Invariant: the exact result is the reference's; the plain one is dense attention in the dtype of the inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsec.reference.attention import attention
from sparsec.reference.tolerance import allowed_errors


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one call: the exact output and LSE (float64), and the output and LSE of plain attention in the dtype."""

    exact: Tensor
    exact_lse: Tensor
    plain: Tensor
    plain_lse: Tensor


def expected_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float | None = None) -> Expected:
    """q [batch, heads, Nq, D]; k, v [batch, kv_heads, Nk, D]; mask bool [heads, Nq, Nk]."""
    factor = scale if scale is not None else 1 / math.sqrt(q.shape[-1])
    exact, exact_lse = attention(q.double(), k.double(), v.double(), mask, factor)
    plain, plain_lse = _plain(q, k, v, mask, factor)
    return Expected(exact, exact_lse, plain, plain_lse)


def assert_close(out: Tensor, lse: Tensor, expected: Expected) -> None:
    """Errors within `reference.tolerance.allowed_errors`, those of the LSE relative to 1 + its magnitude; no NaN.

    Rows without a visible key are exactly 0, with LSE -inf.
    """
    assert not bool(out.isnan().any()), "the output holds NaN"
    assert not bool(lse.isnan().any()), "the log-sum-exp holds NaN"
    empty = expected.exact_lse == -math.inf
    assert torch.equal(lse == -math.inf, empty), "the LSE is -inf in other rows than those that see no key"
    assert not bool(out[empty].any()), "the output of a row that sees no key is not 0"
    weight = (1 + expected.exact_lse.abs()).masked_fill(empty, 1)
    pairs = (
        ("output", _error(out, expected.exact), _error(expected.plain, expected.exact)),
        ("LSE", _error(lse, expected.exact_lse) / weight, _error(expected.plain_lse, expected.exact_lse) / weight),
    )
    for what, error, plain in pairs:
        if error.numel():
            bounds = allowed_errors(float(plain.max()), float(plain.mean()), out.dtype)
            for kind, found, bound in zip(("largest", "mean"), (error.max(), error.mean()), bounds, strict=True):
                assert float(found) <= bound, f"{kind} error of the {what} is {float(found):.3g}, allowed {bound:.3g}"


def _error(actual: Tensor, exact: Tensor) -> Tensor:
    same = actual.double() == exact  # -inf in both
    return (actual.double() - exact).abs().masked_fill(same, 0)


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~mask, -math.inf)
    weights = scores.softmax(dim=-1).masked_fill(~mask, 0)
    return weights @ v, scores.logsumexp(dim=-1)

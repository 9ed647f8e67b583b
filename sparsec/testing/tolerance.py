"""The tolerance policy: errors against float64, held to a multiple of those of plain PyTorch attention.

Invariant: the exact result is the reference's; the plain one is dense attention in the dtype of the inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sparsec.reference.attention import attention
from sparsec.reference.tolerance import allowed_errors
from sparsec.sema.model import Score

PLAIN = Score()
"""No score modifier."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one call: the exact output and LSE (float64), and the output and LSE of plain attention in the dtype."""

    exact: Tensor
    exact_lse: Tensor
    plain: Tensor
    plain_lse: Tensor


def expected_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    score: Score = PLAIN,
    *,
    sink: Tensor | None = None,
    q_offset: int | None = None,
) -> Expected:
    """q [batch, heads, Nq, D]; k, v [batch, kv_heads, Nk, D]; mask bool [heads, Nq, Nk]; sink [heads]."""
    dense = partial(attention, q, k, v, mask, score.scale, softcap=score.softcap, alibi=score.alibi)
    exact, plain = (dense(sink=sink, q_offset=q_offset, dtype=dtype) for dtype in (torch.float64, q.dtype))
    return Expected(*exact, *plain)


def assert_close(out: Tensor, lse: Tensor, expected: Expected) -> None:
    """Errors within `reference.tolerance.allowed_errors`, those of the LSE relative to 1 + its magnitude; no NaN.

    Rows without a visible key are exactly 0, with LSE -inf.
    """
    if bool(out.isnan().any()):
        raise AssertionError("the output holds NaN")
    if bool(lse.isnan().any()):
        raise AssertionError("the log-sum-exp holds NaN")
    empty = expected.exact_lse == -math.inf
    if not (torch.equal(lse == -math.inf, empty)):
        raise AssertionError("the LSE is -inf in other rows than those that see no key")
    if bool(out[empty].any()):
        raise AssertionError("the output of a row that sees no key is not 0")
    weight = (1 + expected.exact_lse.abs()).masked_fill(empty, 1)
    assert_errors("output", _error(out, expected.exact), _error(expected.plain, expected.exact), dtype=out.dtype)
    found, plain = (_error(actual, expected.exact_lse) / weight for actual in (lse, expected.plain_lse))
    assert_errors("LSE", found, plain, dtype=out.dtype)


def assert_errors(what: str, error: Tensor, *plain: Tensor, dtype: torch.dtype) -> None:
    """The largest and the mean error within the policy, given those of plain attention: of several, the largest."""
    if not error.numel():
        return
    bounds = allowed_errors(max(float(t.max()) for t in plain), max(float(t.mean()) for t in plain), dtype)
    for kind, found, bound in zip(("largest", "mean"), (error.max(), error.mean()), bounds, strict=True):
        if not float(found) <= bound:
            raise AssertionError(f"{kind} error of the {what} is {float(found):.3g}, allowed {bound:.3g}")


def _error(actual: Tensor, exact: Tensor) -> Tensor:
    same = actual.double() == exact  # -inf in both
    return (actual.double() - exact).abs().masked_fill(same, 0)

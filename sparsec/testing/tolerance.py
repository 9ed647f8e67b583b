"""The tolerance policy: errors against float64, held to a multiple of those of plain PyTorch attention.

Invariant: the exact result is the reference's; the plain one is dense attention in the dtype of the inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sparsec.reference.attention import PLAIN, attention
from sparsec.reference.tolerance import allowed_errors
from sparsec.sema.model import Score


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
    key_bias: Tensor | None = None,
    q_offset: int | None = None,
) -> Expected:
    """q [B, heads, Nq, D]; k, v [B, kv_heads, Nk, D]; mask bool [heads, Nq, Nk], or with a batch; sink [heads]."""
    dense = partial(attention, q, k, v, mask, score, key_bias=key_bias)
    exact, plain = (dense(sink=sink, q_offset=q_offset, dtype=dtype) for dtype in (torch.float64, q.dtype))
    return Expected(*exact, *plain)


def out_and_lse(returned: object, q: Tensor, value_dim: int) -> tuple[Tensor, Tensor]:
    """What a call for q [B, H, Nq, D] returned, if it is (out, LSE); raises AssertionError if not.

    The output has to be [B, H, Nq, value_dim], of q's dtype and device. The LSE is [B, H, Nq] on the same device, in
    float32, or in float64 for a float64 q.
    """
    wanted = q.new_empty((*q.shape[:3], value_dim))
    lse = q.new_empty(q.shape[:3], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
    match returned:
        case (Tensor() as out, Tensor() as sums):
            if _described(out) == _described(wanted) and _described(sums) == _described(lse):
                return out, sums
    raise AssertionError(f"expected (out, LSE) of {_described((wanted, lse))}, got {_described(returned)}")


def _described(value: object) -> str:
    match value:
        case Tensor():
            return f"{value.dtype} {list(value.shape)}" + ("" if value.is_cpu else f" on {value.device}")
        case tuple() | list() if len(value) < 5:
            return f"({', '.join(map(_described, value))})"
        case None:
            return "None"
        case _:
            return f"{type(value).__module__}.{type(value).__qualname__}"


def assert_close(out: Tensor, lse: Tensor, expected: Expected, mask: Tensor | None = None) -> None:
    """Errors within `reference.tolerance.allowed_errors`, those of the LSE relative to 1 + its magnitude; no NaN.

    Rows without a visible key are exactly 0, with LSE -inf. With `mask`, bool [heads, Nq, Nk] or with a batch, the
    message names a row.
    """
    empty = expected.exact_lse == -math.inf
    wrong = {
        "the output holds NaN": out.isnan().any(dim=-1),
        "the log-sum-exp holds NaN": lse.isnan(),
        "the LSE is -inf in other rows than those that see no key": (lse == -math.inf) != empty,
        "the output of a row that sees no key is not 0": out.bool().any(dim=-1) & empty,
    }
    for message, rows in wrong.items():
        if bool(rows.any()):
            raise AssertionError(f"{message}{_farthest(rows, mask)}")
    weight = (1 + expected.exact_lse.abs()).masked_fill(empty, 1)
    of_out = _error(out, expected.exact), _error(expected.plain, expected.exact)
    of_lse = tuple(_error(actual, expected.exact_lse) / weight for actual in (lse, expected.plain_lse))
    for what, (found, plain) in (("output", of_out), ("LSE", of_lse)):
        try:
            assert_errors(what, found, plain, dtype=out.dtype, rows=int((~empty).sum()))
        except AssertionError as error:
            raise AssertionError(f"{error}{_farthest(found, mask)}") from None


def _farthest(off: Tensor, mask: Tensor | None) -> str:
    """The first row that is wrong, bool [batch, heads, Nq], or that of the largest error [batch, heads, Nq(, D)]."""
    if mask is None:
        return ""
    batch, head, row = (int(n) for n in torch.unravel_index(off.double().argmax(), off.shape)[:3])
    which = "first" if off.dtype == torch.bool else f"farthest off, by {float(off.max()):.3g}"
    own = mask if mask.dim() == 3 else mask[batch if len(mask) > 1 else 0]
    return f"\n{which}: sequence {batch}, head {head}, query {row}, which sees {_ranges(own[head, row])}"


def _ranges(row: Tensor, most: int = 8) -> str:
    """The keys of a row of a mask, in half-open ranges."""
    keys = row.nonzero().flatten()
    if not len(keys):
        return "no key"
    breaks = (keys[1:] != keys[:-1] + 1).nonzero().flatten() + 1
    runs = [f"{int(run[0])}..{int(run[-1]) + 1}" for run in torch.tensor_split(keys, breaks)]
    return "keys " + ", ".join(runs[:most]) + (f" and {len(runs) - most} more runs" if len(runs) > most else "")


def assert_errors(what: str, error: Tensor, *plain: Tensor, dtype: torch.dtype, rows: int) -> None:
    """The largest and the mean error within the policy, given those of plain attention: of several, the largest.

    `rows`: how many rows of queries that see a key made those of plain attention.
    """
    if not error.numel():
        return
    bounds = allowed_errors(max(float(t.max()) for t in plain), max(float(t.mean()) for t in plain), dtype, rows)
    for kind, found, bound in zip(("largest", "mean"), (error.max(), error.mean()), bounds, strict=True):
        if not float(found) <= bound:
            raise AssertionError(f"{kind} error of the {what} is {float(found):.3g}, allowed {bound:.3g}")


def _error(actual: Tensor, exact: Tensor) -> Tensor:
    same = actual.double() == exact  # -inf in both
    return (actual.double() - exact).abs().masked_fill(same, 0)

"""Exact probes of a forward kernel: what no tolerance can hide.

Invariant: every probe compares integers or bits; outputs are allocated over NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sparsec.reference.attention import PLAIN
from sparsec.sema.model import Score
from sparsec.testing.tolerance import assert_close, expected_attention, out_and_lse

Attend = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(q, k, v) -> (out, LSE)."""


def check_forward(
    attend: Attend,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    score: Score = PLAIN,
    *,
    sink: Tensor | None = None,
    key_bias: Tensor | None = None,
    q_offset: int | None = None,
    apart: bool = False,
    within_tolerance: bool = True,
) -> None:
    """Holds one call within the tolerance policy (unless told not to) and to the exact probes; raises AssertionError.

    q [batch, heads, Nq, D]; k, v [batch, kv_heads, Nk, D and Dv]; mask bool [heads, Nq, Nk], or with a batch where
    `apart`; sink [heads], the learned one; key_bias as of `attention`. The probes ride along as one more batch row, or
    `apart` in a call of their own, as documents and inputs ask for: with q = 0 the exponential of the LSE counts the
    visible keys (not where scores depend on positions or keys, which would weigh them), and with v = bits of the key's
    index the output tells, bit by bit, how many of them have it set. A second call has NaN in every key and value that
    no query may see, and must give the same bits.
    """
    batch, sink = q.shape[0], None if sink is None else sink.detach()
    key_bias = None if key_bias is None else key_bias.detach()
    mask = seen(mask, key_bias, q.shape[1])
    bits = _index_bits(v)
    more = torch.randn(k[:1].shape, generator=torch.Generator().manual_seed(0)).to(k.dtype)
    rows = batch if apart else 1
    probe = torch.zeros_like(q[:rows]), more.expand(rows, *k.shape[1:]), bits.expand(rows, *v.shape[1:])
    calls = [(q, k, v), probe] if apart else [tuple(map(torch.cat, zip((q, k, v), probe, strict=True)))]
    with uninitialised_as_nan():
        out, lse = _joined([out_and_lse(attend(*call), call[0], v.shape[3]) for call in calls])
    if within_tolerance:
        want = expected_attention(q, k, v, mask, score, sink=sink, key_bias=key_bias, q_offset=q_offset)
        assert_close(out[:batch], lse[:batch], want, mask)
    if not score.needs_positions and key_bias is None:
        at_sink = torch.zeros(1) if sink is None else sink.exp()
        for row, visible in enumerate(mask.expand(rows, *mask.shape[-3:]), batch):
            _check_counts(out[row], lse[row], bits, visible, at_sink)
    unseen = ~seen_by_group(mask, k.shape[1])[..., None]
    nan = float("nan")
    with uninitialised_as_nan():
        again, again_lse = _joined(
            [
                out_and_lse(attend(q, k.masked_fill(unseen, nan), v.masked_fill(unseen, nan)), q, v.shape[3])
                for q, k, v in calls
            ]
        )
    if not (torch.equal(out, again) and torch.equal(lse, again_lse)):
        raise AssertionError(
            "NaN was put into the keys and values that no query may see, and changed the result: they are read (dense "
            "masked attention has to select before it multiplies, for 0 times NaN is NaN)"
        )


def _joined(results: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    outs, sums = zip(*results, strict=True)
    return torch.cat(outs).detach(), torch.cat(sums).detach()


@contextmanager
def uninitialised_as_nan() -> Iterator[None]:
    """New tensors without values hold NaN, so that an output that no kernel writes shows."""
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)


def _index_bits(v: Tensor) -> Tensor:
    """[Nk, Dv] of 0 and 1, like v: bit d of the key's index plus one, and of mixtures of it in the dimensions left."""
    index = torch.arange(1, v.shape[2] + 1)
    columns = [((index * (2 * (d // 12) ** 2 + 1)) >> (d % 12)) & 1 for d in range(v.shape[3])]
    return torch.stack(columns, dim=-1).to(v.dtype)


def _check_counts(out: Tensor, lse: Tensor, bits: Tensor, mask: Tensor, at_sink: Tensor) -> None:
    """at_sink [heads] or [1]: what the learned sink adds to the sum of exponentials."""
    visible = mask.sum(dim=-1)
    extra = at_sink.double()[:, None]
    counted = (lse.double().exp() - extra).round().long()
    if not torch.equal(counted, visible):
        raise AssertionError(f"keys seen {_first_difference(counted, visible)}")
    sums = out.double() * (visible + extra)[..., None]
    told = mask.double() @ bits.double()
    # In 16 bits the mean itself is rounded: the count of a bit is known to one part in 2**7.
    slack = 0.05 if out.dtype.itemsize > 2 else told * 2**-7 + 0.05
    if not bool(((sums - told).abs() <= slack).all()):
        raise AssertionError("the visible keys are others than those of the mask")


def _first_difference(counted: Tensor, visible: Tensor) -> str:
    head, row = (counted != visible).nonzero()[0].tolist()
    return f"by head {head} in row {row}: {int(counted[head, row])}, expected {int(visible[head, row])}"


def seen(mask: Tensor, key_bias: Tensor | None, heads: int) -> Tensor:
    """The mask without the keys whose bias [b, x, Nk] is -inf."""
    if key_bias is None:
        return mask
    return mask & (key_bias != -math.inf).repeat_interleave(heads // key_bias.shape[1], dim=1)[..., None, :]


def seen_by_group(mask: Tensor, kv_heads: int) -> Tensor:
    """bool [kv_heads, Nk], or with the mask's batch: whether any query of any head of the group may see the key."""
    heads, queries, keys = mask.shape[-3:]
    return mask.reshape(*mask.shape[:-3], kv_heads, heads // kv_heads * queries, keys).any(dim=-2)

"""Exact probes of a forward kernel: what no tolerance can hide.

Invariant: every probe compares integers or bits; outputs are allocated over NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sparsec.testing.tolerance import assert_close, expected_attention

Attend = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(q, k, v) -> (out, LSE)."""


def check_forward(attend: Attend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float | None = None) -> None:
    """Holds one call within the tolerance policy and to the exact probes; raises AssertionError.

    q [batch, heads, Nq, D]; k, v [batch, kv_heads, Nk, D]; mask bool [heads, Nq, Nk]. The probes ride along as one more
    batch row: with q = 0 the exponential of the LSE counts the visible keys, and with v = bits of the key's index the
    output tells, bit by bit, how many of them have it set. A second call has NaN in every key and value that no query
    may see, and must give the same bits.
    """
    batch = q.shape[0]
    bits = _index_bits(v)
    q = torch.cat([q, torch.zeros_like(q[:1])])
    k = torch.cat([k, torch.randn(k[:1].shape, generator=torch.Generator().manual_seed(0)).to(k.dtype)])
    v = torch.cat([v, bits.expand(1, *v.shape[1:])])
    with uninitialised_as_nan():
        out, lse = attend(q, k, v)
    assert out.shape == q.shape and out.dtype == q.dtype, f"the output is {out.dtype} {tuple(out.shape)}"
    assert lse.shape == q.shape[:3] and lse.dtype == torch.float32, f"the LSE is {lse.dtype} {tuple(lse.shape)}"
    assert_close(out[:batch], lse[:batch], expected_attention(q[:batch], k[:batch], v[:batch], mask, scale))
    _check_counts(out[batch], lse[batch], bits, mask)
    unseen = ~_seen_by_group(mask, k.shape[1])[None, :, :, None]
    with uninitialised_as_nan():
        again, again_lse = attend(q, k.masked_fill(unseen, float("nan")), v.masked_fill(unseen, float("nan")))
    assert torch.equal(out, again) and torch.equal(lse, again_lse), "keys that no query may see change the result"


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
    """[Nk, D] of 0 and 1, like v: bit d of the key's index plus one, and of mixtures of it in the dimensions left."""
    index = torch.arange(1, v.shape[2] + 1)
    columns = [((index * (2 * (d // 12) ** 2 + 1)) >> (d % 12)) & 1 for d in range(v.shape[3])]
    return torch.stack(columns, dim=-1).to(v.dtype)


def _check_counts(out: Tensor, lse: Tensor, bits: Tensor, mask: Tensor) -> None:
    visible = mask.sum(dim=-1)
    counted = lse.double().exp().round().long()
    assert torch.equal(counted, visible), f"keys seen {_first_difference(counted, visible)}"
    sums = out.double() * visible[..., None]
    told = mask.double() @ bits.double()
    # In 16 bits the mean itself is rounded: the count of a bit is known to one part in 2**7.
    slack = 0.05 if out.dtype == torch.float32 else told * 2**-7 + 0.05
    assert bool(((sums - told).abs() <= slack).all()), "the visible keys are others than those of the mask"


def _first_difference(counted: Tensor, visible: Tensor) -> str:
    head, row = (counted != visible).nonzero()[0].tolist()
    return f"by head {head} in row {row}: {int(counted[head, row])}, expected {int(visible[head, row])}"


def _seen_by_group(mask: Tensor, kv_heads: int) -> Tensor:
    """bool [kv_heads, Nk]: whether any query of any head of the group may see the key."""
    return mask.reshape(kv_heads, mask.shape[0] // kv_heads, *mask.shape[1:]).any(dim=2).any(dim=1)

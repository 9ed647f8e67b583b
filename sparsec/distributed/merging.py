"""Outputs and log-sum-exps of queries over several sets of keys -> those over all of them.

Invariant: sums are taken in the order of the sets, in float32 at least: the same on every rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from sparsec.distributed.exchange import exchange_of

PARTIAL = "partial results"


def merged_by_lse(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """out [..., D] and lse [...] over each set of keys, no key in two -> over all. Differentiable."""
    lses = torch.stack([lse for _, lse in parts])
    nothing = lses.isinf()
    finite = lses.masked_fill(nothing, torch.finfo(lses.dtype).min)
    lse = finite.logsumexp(0).masked_fill(nothing.all(0), -torch.inf)
    shares = finite.softmax(0).masked_fill(nothing, 0.0).unsqueeze(-1)
    kind = parts[0][0].dtype
    wide = torch.promote_types(kind, torch.float32)
    weighted = [out.to(wide) * share for (out, _), share in zip(parts, shares, strict=True)]
    return sum(weighted[1:], weighted[0]).to(kind), lse


def merged_over_ranks(out: Tensor, lse: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """Each rank's own, over the keys that it has, by one all-gather -> over all keys, on every rank. No gradients."""
    if dist.get_world_size(group) == 1:
        return out, lse
    whole, total = merged_by_lse(_of_ranks(out, lse, group))
    return whole.to(out.dtype), total


def sum_over_ranks(own: Tensor, group: ProcessGroup) -> Tensor:
    """The sum of the ranks' tensors, on every rank; of bool whether one has it. No gradients."""
    if dist.get_world_size(group) == 1:
        return own
    sent = (own.to(torch.uint8) if own.dtype == torch.bool else own).contiguous()
    found = sent.new_empty((dist.get_world_size(group), *sent.shape))
    with exchange_of(PARTIAL, group):
        dist.all_gather(list(found.unbind()), sent, group)
    if own.dtype == torch.bool:
        return found.any(0)
    total = found[0]
    for each in found[1:]:
        total = total + each
    return total


def heads_of_ranks(out: Tensor, lse: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """out [B, H, N, D] and lse [B, H, N] of each rank's heads -> of all heads in the ranks' order, on every rank. No
    gradients."""
    found = _of_ranks(out, lse, group)
    return torch.cat([each for each, _ in found], 1).to(out.dtype), torch.cat([each for _, each in found], 1)


def _of_ranks(out: Tensor, lse: Tensor, group: ProcessGroup) -> list[tuple[Tensor, Tensor]]:
    """Every rank's, outputs in the type of the LSE."""
    packed = torch.cat([out.to(lse.dtype), lse.unsqueeze(-1)], dim=-1).contiguous()
    found = packed.new_empty((dist.get_world_size(group), *packed.shape))
    with exchange_of(PARTIAL, group):
        dist.all_gather(list(found.unbind()), packed, group)
    return [(each[..., :-1], each[..., -1]) for each in found.unbind()]

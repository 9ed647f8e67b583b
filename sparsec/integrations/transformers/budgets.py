"""The scores of a layer's keys -> which of them stay.

A budget is a function (scores [B, G, N], layer) -> bool [B, G, N], for a prompt of N keys in G KV groups.
Invariant: a share of the keys, or a number of them, counts the keys of one KV group; at least one stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError

Amount = float | int | Sequence[float | int]
"""A share of a prompt (a float), a number of keys (an int), or one of these for each layer."""
Budget = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, slots=True)
class Even:
    """Every KV group keeps the `amount` of keys with the highest scores."""

    amount: Amount

    def __call__(self, scores: Tensor, layer: int) -> Tensor:
        best = scores.topk(kept_count(self.amount, layer, scores.shape[2]), dim=2).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(2, best, True)


@dataclass(frozen=True, slots=True)
class Adaptive:
    """See `adaptive`."""

    amount: Amount
    floor: float

    def __call__(self, scores: Tensor, layer: int) -> Tensor:
        groups, length = scores.shape[1:]
        each = kept_count(self.amount, layer, length)
        sure = (
            Even(kept_count(self.floor, layer, each))(scores, layer) if self.floor else torch.zeros_like(scores).bool()
        )
        others = scores.masked_fill(sure, -torch.inf).flatten(1)
        best = others.topk(groups * each - int(sure[0].sum()), dim=1).indices
        return sure.flatten(1).scatter_(1, best, True).view_as(sure)


def adaptive(amount: Amount, *, floor: float = 0.2) -> Adaptive:
    """AdaKV's budget (arXiv 2407.11550): a layer keeps as many keys as with `amount` for each KV group, and the highest
    scores of all its groups get them. `floor`: the share of its even part that each group keeps in any case, at least
    one key if it is above 0."""
    if not 0 <= floor <= 1:
        raise CallError(f"expected floor from 0 to 1, a share of the budget, got {floor}")
    return Adaptive(amount, float(floor))


def budget_of(keep: Amount | Budget, layers: int) -> Budget:
    """The budget that `keep` names for a model of so many layers. Raises CallError."""
    found = keep if callable(keep) else Even(keep)
    if isinstance(found, Even | Adaptive):
        if isinstance(found.amount, Sequence) and len(found.amount) != layers:
            raise CallError(f"expected a budget for each of {layers} layers, got {len(found.amount)}")
        for layer in range(layers):
            kept_count(found.amount, layer, 1)
    return found


def kept_count(amount: Amount, layer: int, length: int) -> int:
    """The keys of a KV group that stay of `length`: int(share * length) for a share. Raises CallError."""
    one = amount[layer] if isinstance(amount, Sequence) else amount
    if isinstance(one, float) and 0 < one <= 1:
        return max(1, int(one * length))
    if isinstance(one, int) and not isinstance(one, bool) and one > 0:
        return min(one, length)
    raise CallError(
        f"expected a share above 0 and up to 1, or a number of keys of at least 1, for layer {layer}, got {one!r}"
    )

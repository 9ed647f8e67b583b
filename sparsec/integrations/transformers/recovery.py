"""The queries and keys of a layer, and policies of what a cache keeps -> how much of the attention each recovers.

A policy recovers, of a query, the soft-max mass on the keys that it holds: exp(lse over these - lse over all).
Invariant: nothing of as many entries as pairs of queries and keys is made; each policy costs one run of a kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparsec.integrations.transformers.marks import most_attended, of_ids
from sparsec.runtime.module import SparseAttention

DENSE = "pattern dense { causal attend full }"
HELD = """
pattern held {
    input kept : tokens
    input latest : length
    causal
    attend kept | window(latest)
}
"""
"""The keys of any policy, given at a call."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a policy holds for a query: the keys that are `kept`, bool [B, 1 or groups, N], and the `latest`."""

    kept: Tensor
    latest: int

    def count(self, groups: int) -> Tensor:
        """int64 [B, groups]: the keys that are held when the prompt ends."""
        tail = torch.arange(self.kept.shape[-1], device=self.kept.device) >= self.kept.shape[-1] - self.latest
        return (self.kept | tail).sum(-1).expand(-1, groups)


@dataclass(frozen=True, slots=True)
class Policy:
    """Its name, and the set of its keys as a pattern's `attend` writes it."""

    name: str
    attends: str


FULL = Policy("full", "full")


class Method(Protocol):
    """Policies, cheapest first; what recovers too little with all of them sees everything."""

    @property
    def policies(self) -> tuple[Policy, ...]: ...

    def held(self, tokens: Tensor, mass: Tensor, groups: int) -> tuple[Held, ...]:
        """Of each policy, for a prompt of `tokens` [B, N] and the mass [B, heads, N] of its keys in a layer."""
        ...


@dataclass(frozen=True, slots=True)
class FastGen:
    """special, punctuation: ids of tokens. local, frequent: shares of the prompt's length."""

    special: tuple[int, ...]
    punctuation: tuple[int, ...]
    local: float
    frequent: float

    @property
    def policies(self) -> tuple[Policy, ...]:
        names = ("special", "punctuation", "frequent", "local")
        terms = ("special", "punctuation", "frequent", "window(latest)")
        return tuple(Policy("+ " * bool(n) + name, " | ".join(terms[: n + 1])) for n, name in enumerate(names))

    def most(self, length: int) -> int:
        """The keys that are called frequent in a prompt."""
        return math.ceil(self.frequent * length)

    def latest(self, length: int) -> int:
        return max(1, int(self.local * length))

    def held(self, tokens: Tensor, mass: Tensor, groups: int) -> tuple[Held, ...]:
        length = tokens.shape[1]
        special = of_ids(tokens, self.special)
        listed = special | of_ids(tokens, self.punctuation)
        kept = listed[:, None] | most_attended(mass, listed, groups, self.most(length))
        return (
            Held(special[:, None], 0),
            Held(listed[:, None], 0),
            Held(kept, 0),
            Held(kept, self.latest(length)),
        )


@dataclass(frozen=True, slots=True)
class StreamingHeads:
    """The first `sink` tokens and the `recent` ones, or everything, as DuoAttention has it."""

    sink: int
    recent: int

    @property
    def policies(self) -> tuple[Policy, ...]:
        return (Policy("streaming", "sink(first) | window(latest)"),)

    def held(self, tokens: Tensor, mass: Tensor, groups: int) -> tuple[Held, ...]:
        first = torch.arange(tokens.shape[1], device=tokens.device) < self.sink
        return (Held(first.expand(tokens.shape[0], 1, -1), self.recent),)


@dataclass(frozen=True, slots=True)
class LayerRecovery:
    """Of a layer, with a row for each policy and one for `FULL`, a column for each KV group. recovered: float64, a mean
    over the queries. keys: int64, the keys held of all prompts together. bytes_a_key: of key and value."""

    recovered: Tensor
    keys: Tensor
    bytes_a_key: int


def layer_recovery(
    method: Method,
    tokens: Tensor,
    dense: SparseAttention,
    held: SparseAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    minimum: bool,
) -> tuple[Tensor, LayerRecovery]:
    """The layer's dense attention, and what each policy recovers of it.

    dense, held: of the patterns `DENSE` and `HELD`. minimum: a group recovers what the least of its query heads does,
    in place of their mean.
    """
    groups, n_keys = k.shape[1:3]
    out, lse, mass = dense(q, k, v, return_lse=True, return_mass=True)
    recovered, keys = [], []
    for each in method.held(tokens, mass, groups):
        latest = torch.tensor([each.latest], dtype=torch.int32).to(q.device)
        _, of_held = held(q, k, v, inputs={"kept": each.kept, "latest": latest}, return_lse=True)
        of_heads = (of_held - lse).exp().mean((0, 2), dtype=torch.float64).view(groups, -1)
        recovered.append(of_heads.amin(1) if minimum else of_heads.mean(1))
        keys.append(each.count(groups).sum(0))
    recovered.append(torch.ones_like(recovered[0]))
    keys.append(torch.full_like(keys[0], n_keys * k.shape[0]))
    bytes_a_key = (k.shape[3] + v.shape[3]) * k.element_size()
    return out, LayerRecovery(torch.stack(recovered).cpu(), torch.stack(keys).cpu(), bytes_a_key)

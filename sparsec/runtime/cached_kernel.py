"""What every target's kernels over a cache offer: attention to the keys of an arena and of the call, and their storing.

Invariant: attention comes before storing, for a new key may take the slot of one that a query still sees; neither
reads a length on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sparsec.plan.cached import CachedPlan


@dataclass(frozen=True, slots=True)
class Cached:
    """A cache as kernels see it, B sequences.

    keys, values: [B, slots, D], contiguous; what no key has been stored in may hold anything, NaN included.
    lengths: int32 [B], the tokens that each sequence has already. counts: int32 [B], how many of the call's N tokens
    are its own: the last ones of the N, the rest before them being padding.
    places: int32 [kv_heads, regions, 2]: base and capacity of each region, 0 and 0 where a group has fewer.
    """

    keys: Tensor
    values: Tensor
    lengths: Tensor
    counts: Tensor
    places: Tensor


class CachedKernel(Protocol):
    """Attention over a cache; `source` is its generated text, empty without one."""

    @property
    def plan(self) -> CachedPlan: ...

    @property
    def source(self) -> str: ...

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cache: Cached,
        *,
        scale: float | None,
        lists: tuple[Tensor, ...],
        sink: Tensor | None = None,
        store: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Attention of q [B, H, N, D] to the cached keys and to k, v [B, G, N, D], any strides.

        With `store` these are then stored, as by the method; else the cache stays as it is.

        Row r of sequence b stands at position lengths[b] + counts[b] - N + r, and Nk is lengths[b] + counts[b].
        `lists`: the tables of `runtime.draws` of `plan.attend`, class by class, from query block 0 on; `sink` float32
        [H] where the pattern has one. Returns out like q and the natural-log LSE, float32 [B, H, N], contiguous; a row
        that sees no key has 0 and -inf (or the sink), and so has padding, without the sink.
        """
        ...

    def store(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        """Writes the last counts[b] rows of k and v [B, G, N, D] to their slots in cache.keys and cache.values.

        A key that later ones of the same call displace, or that lies past the arena, is not written.
        """
        ...

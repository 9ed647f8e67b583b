"""What every target's kernels over a cache offer: attention to the keys of an arena and of the call, and their storing.

Invariant: attention comes before storing, for a new key may take the slot of one that a query still sees; neither
reads a length on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.plan.launch import CachedLaunch


@dataclass(slots=True, eq=False)
class Cached:
    """A cache as kernels see it, B sequences.

    keys, values: [B, slots, D], contiguous; what no key has been stored in may hold anything, NaN included.
    lengths: int32 [B], the tokens that each sequence has already. counts: int32 [B], how many of the call's N tokens
    are its own: the last ones of the N, the rest before them being padding (None: all N).
    places: int32 [kv_heads, regions, 2]: base and capacity of each region, 0 and 0 where a group has fewer.
    state, max_len: as of `runtime.kv.cache.KVCache`, for a kernel that `advances`: storing then counts the tokens in
    state and lengths, and raises CallError before anything is written if a sequence would have more than max_len.
    """

    keys: Tensor
    values: Tensor
    lengths: Tensor
    counts: Tensor | None
    places: Tensor
    state: Tensor | None = None
    max_len: int = POSITION_LIMIT
    checked: bool = False
    """Set by a kernel that has found the tensors, counts aside, to be what it takes."""

    def numbers(self, new: int) -> tuple[list[int], list[int]]:
        """Lengths and counts on the host."""
        return self.lengths.tolist(), self.counted(new).tolist()

    def counted(self, new: int) -> Tensor:
        """`counts` of a call of `new` tokens."""
        if self.counts is not None:
            return self.counts
        return torch.full((len(self.lengths),), new, dtype=torch.int32, device=self.lengths.device)


def check_room(lengths: Sequence[int], counts: Sequence[int], max_len: int) -> None:
    """Raises CallError unless `counts` more tokens fit in each sequence."""
    for row, (have, more) in enumerate(zip(lengths, counts, strict=True)):
        if have + more > max_len:
            raise CallError(
                f"expected at most {max_len} tokens in the cache, got {have} + {more} in sequence {row}; "
                "nothing was written"
            )


class CachedKernel(Protocol):
    """Attention over a cache; `source` is its generated text, empty without one."""

    @property
    def plan(self) -> CachedLaunch: ...

    @property
    def source(self) -> str: ...

    @property
    def advances(self) -> bool:
        """Whether storing counts the tokens where a cache's `state` is given."""
        ...

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
        checked: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Attention of q [B, H, N, D] to the cached keys and to k, v [B, G, N, D], any strides.

        With `store` these are then stored, as by the method; else the cache stays as it is. `checked`: the shapes,
        dtypes and devices of q, k, v and sink are known to be right.

        Row r of sequence b stands at position lengths[b] + counts[b] - N + r, and Nk is lengths[b] + counts[b].
        `lists`: the tables of `runtime.draws` of `CachedLaunch.chunks`, class by class, from query block 0 on; `sink`
        float32 [H] where the pattern has one. Returns out like q and the natural-log LSE, float32 [B, H, N],
        contiguous; a row that sees no key has 0 and -inf (or the sink), and so has padding, without the sink.
        """
        ...

    def store(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        """Writes the last counts[b] rows of k and v [B, G, N, D] to their slots in cache.keys and cache.values.

        A key that later ones of the same call displace, or that lies past the arena, is not written.
        """
        ...

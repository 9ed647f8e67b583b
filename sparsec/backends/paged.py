"""Attention over a server's memory of keys and values, which lies in pages: what a kernel of it takes and gives.

Invariant: nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from sparsec.diagnostics.model import CallError
from sparsec.plan.launch import CachedLaunch

if TYPE_CHECKING:
    from torch import Tensor

    from sparsec.backends.base import Lookup


@dataclass(frozen=True, slots=True, eq=False)
class Pages:
    """The memory, and what is there of the requests of a call.

    keys [pages, page_size, G, D], values [pages, page_size, G, Dv], any strides. table: int32 [requests, most pages],
    starts: int32 [requests + 1], lengths: int32 [requests], all contiguous. Request r has the rows starts[r] ..
    starts[r + 1] - 1 of the call's queries and lengths[r] tokens, of which these are the last; its key j is in row
    j % page_size of page table[r, j // page_size]. Where no query needs a page, as `plan.kv.pages` says, the table may
    hold any number; any page may hold anything, NaN too, but in the rows of a request's tokens that its queries see.
    """

    keys: Tensor
    values: Tensor
    table: Tensor
    starts: Tensor
    lengths: Tensor

    @property
    def page_size(self) -> int:
        return self.keys.shape[1]

    @property
    def longest(self) -> int:
        """The most tokens of a request for which the table has room."""
        return self.table.shape[1] * self.page_size


class PagedKernel(Protocol):
    """Attention to keys in pages; `source` is its text, empty without one."""

    @property
    def plan(self) -> CachedLaunch:
        """As of the same pattern's cache: its layout says which keys are needed."""
        ...

    @property
    def source(self) -> str: ...

    def build(self) -> None:
        """As of a `base.BackwardKernel`."""
        ...

    def attend(
        self,
        q: Tensor,
        pages: Pages,
        *,
        scale: float | None,
        lists: tuple[Tensor, ...],
        sink: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention of q [tokens, H, D], any strides, to the keys of each token's own request.

        A number of the table that is read and is no page's counts as the nearest that is. `lists`: the tables of
        `runtime.draws` of `CachedLaunch.chunks`, from query block 0 on, for `Pages.longest` tokens; `sink` float32 [H]
        where the pattern has one. `inputs`: as of a call of one sequence for each request, with `Pages.longest` keys;
        but rows of ROW, and labels of queries, are of the call's q, for all requests together. `key_bias`: [1 or
        requests, x, keys], from position 0 on. Returns out [tokens, H, Dv] and the natural-log LSE, float32 [tokens,
        H], contiguous; a row that sees no key has 0 and -inf (or the sink). Raises CallError for starts and lengths
        that the tensors have not, where nothing has to be waited for.
        """
        ...


def check_requests(starts: Sequence[int], lengths: Sequence[int], tokens: int, longest: int) -> None:
    """Raises CallError unless the requests have the call's tokens, each at most `longest` of its own."""
    if starts[0] != 0 or starts[-1] != tokens or any(a > b for a, b in pairwise(starts)):
        raise CallError(f"expected cu_seqlens_q to rise from 0 to {tokens}, the tokens of q, got {list(starts)[:8]}")
    for r, (count, length) in enumerate(zip((b - a for a, b in pairwise(starts)), lengths, strict=True)):
        if not count <= length <= longest:
            raise CallError(
                f"expected seq_lens from the {count} tokens of the call to the {longest} of a row of block_table, "
                f"got {length} of request {r}"
            )


def no_paged() -> PagedKernel:
    """In place of `Kernels.make_paged`. Raises CallError."""
    raise CallError("expected a module with kernels for attention over pages, got one without; target='torch' has them")

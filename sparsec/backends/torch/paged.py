"""Attention over pages on the `torch` target: the keys of a block's columns are gathered from their pages.

Invariant: a column that no row of a tile sees is not looked up; memory stays as it does over a cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.paged import Pages, check_requests
from sparsec.backends.torch.kernel import Scores, State, kept, wide_type
from sparsec.backends.torch.tiles import Block, Sequence, asked_apart, head_groups, query_blocks
from sparsec.ir.bands.band import Asks
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.launch import CachedLaunch


@dataclass(frozen=True, slots=True)
class TorchPaged:
    """See `backends.paged.PagedKernel`. Starts and lengths are read on the host, to walk the tile programs."""

    planned: CachedPlan
    source: str = ""

    @property
    def plan(self) -> CachedLaunch:
        return CachedLaunch.of(self.planned, self.planned)

    def build(self) -> None:
        """There is nothing to build."""

    def attend(
        self,
        q: Tensor,
        pages: Pages,
        *,
        scale: float | None,
        lists: tuple[Tensor, ...] = (),
        sink: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        out = q.new_zeros((*q.shape[:2], pages.values.shape[3]))
        lse = q.new_full(q.shape[:2], -math.inf, dtype=wide_type(q))
        starts, lengths = pages.starts.tolist(), pages.lengths.tolist()
        check_requests(starts, lengths, q.shape[0], pages.longest)
        for r, length in enumerate(lengths):
            rows = slice(starts[r], starts[r + 1])
            of_heads = q[rows].transpose(0, 1), out[rows].transpose(0, 1), lse[rows].transpose(0, 1)
            said = tuple(_of_request(each, r, rows) for each in inputs)
            bias = None if key_bias is None else key_bias[r if len(key_bias) > 1 else 0][None]
            self._attend_one(*of_heads, pages, r, length, scale, sink, said, bias)
        return out, lse

    def _attend_one(
        self,
        q: Tensor,
        out: Tensor,
        lse: Tensor,
        pages: Pages,
        r: int,
        length: int,
        scale: float | None,
        sink: Tensor | None,
        inputs: tuple[Lookup, ...],
        key_bias: Tensor | None,
    ) -> None:
        """Of request r, with q [H, n, D], into out and lse; inputs and bias are its own."""
        plan, first = self.planned.attend, length - q.shape[1]
        score = Scores.of(plan, q[None], scale, key_bias)
        whole = Sequence((first, length), (0, length), first, 0, length, first, False, q.device)
        of_classes = head_groups(plan, plan.classes)
        apart = (asked_apart(each, whole, plan.heads, range(1), inputs) for each in of_classes)
        for heads, sequence in chain.from_iterable(apart):
            for rows, blocks in query_blocks(heads, sequence):
                at = slice(0, 1), heads.heads, rows
                queries = q[None, heads.heads, rows].to(score.wide)
                state = State.start(queries, out.shape[-1], None if sink is None else sink[heads.heads])
                for block in filter(None, map(_seen, blocks)):
                    bias = score.bias_of(at, block)
                    keys, values = _columns(pages, r, heads.groups, block, score.wide)
                    keys, values = kept(keys, bias), kept(values, bias)
                    scores, _ = score.of_block(queries, keys, block, heads, bias)
                    state = state.step(scores, values, block.live)
                out[heads.heads, rows] = state.output()[0].to(out.dtype)
                lse[heads.heads, rows] = state.log_sum_exp()[0]


def _of_request(lookup: Lookup, r: int, rows: slice) -> Lookup:
    """The lookup of a call of request r alone, which has these rows."""

    def own(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[r : r + 1] if len(tensor) > 1 else tensor

    data, ordered = own(lookup.data), own(lookup.ordered)
    assert data is not None, "a lookup has data"
    if lookup.test.asks in (Asks.ROW, Asks.LABEL):
        data, ordered = data[:, :, rows], None if ordered is None else ordered[:, :, rows]
    return replace(lookup, data=data, keys=own(lookup.keys), ordered=ordered)


def _seen(block: Block) -> Block | None:
    """The block with the columns that some row sees, if there are any."""
    if block.live is None:
        return block
    if block.own:
        return block if block.live.any() else None
    seen = block.live.any(dim=0)
    if not seen.any():
        return None
    return replace(block, columns=block.columns[seen], j=block.j[:, seen], live=block.live[:, seen])


def _columns(pages: Pages, r: int, groups: list[int], block: Block, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """Keys and values [1, heads, columns, D]; of a block with `own` columns [1, heads, rows, columns, D], zeros where
    the row does not see the column."""
    columns = block.columns.where(block.live, 0) if block.own and block.live is not None else block.columns
    page = pages.table[r, columns // pages.page_size].long().clamp(0, pages.keys.shape[0] - 1)
    row = columns % pages.page_size
    of_groups = torch.tensor(groups, device=page.device).view(-1, *(1,) * columns.dim())
    found = (memory[page, row, of_groups][None].to(wide) for memory in (pages.keys, pages.values))
    if block.own and block.live is not None:
        found = (rows.where(block.live[..., None], 0) for rows in found)
    keys, values = found
    return keys, values

"""Attention over pages on the `torch` target: the keys of a block's columns are gathered from their pages.

Invariant: a column that no row of a tile sees is not looked up; memory stays as it does over a cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsec.backends.paged import Pages, check_requests
from sparsec.backends.torch.kernel import Scores, State, wide_type
from sparsec.backends.torch.tiles import Block, Sequence, head_groups, query_blocks
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
    ) -> tuple[Tensor, Tensor]:
        out = q.new_zeros((*q.shape[:2], pages.values.shape[3]))
        lse = q.new_full(q.shape[:2], -math.inf, dtype=wide_type(q))
        starts, lengths = pages.starts.tolist(), pages.lengths.tolist()
        check_requests(starts, lengths, q.shape[0], pages.longest)
        for r, length in enumerate(lengths):
            rows = slice(starts[r], starts[r + 1])
            of_heads = q[rows].transpose(0, 1), out[rows].transpose(0, 1), lse[rows].transpose(0, 1)
            self._attend_one(*of_heads, pages, r, length, scale, sink)
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
    ) -> None:
        """Of request r, with q [H, n, D], into out and lse."""
        plan, first = self.planned.attend, length - q.shape[1]
        score = Scores.of(plan, q[None], scale, None)
        whole = Sequence((first, length), (0, length), first, 0, length, first, False, q.device)
        for heads in head_groups(plan, plan.classes):
            for rows, blocks in query_blocks(heads, whole):
                queries = q[None, heads.heads, rows].to(score.wide)
                state = State.start(queries, out.shape[-1], None if sink is None else sink[heads.heads])
                for block in filter(None, map(_seen, blocks)):
                    keys, values = _columns(pages, r, heads.groups, block, score.wide)
                    scores, _ = score.of_block(queries, keys, block, heads, None)
                    state = state.step(scores, values, block.live)
                out[heads.heads, rows] = state.output()[0].to(out.dtype)
                lse[heads.heads, rows] = state.log_sum_exp()[0]


def _seen(block: Block) -> Block | None:
    """The block with the columns that some row sees, if there are any."""
    if block.live is None:
        return block
    seen = block.live.any(dim=0)
    if not seen.any():
        return None
    return replace(block, columns=block.columns[seen], j=block.j[:, seen], live=block.live[:, seen])


def _columns(pages: Pages, r: int, groups: list[int], block: Block, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """Keys and values [1, heads, columns, D]."""
    page = pages.table[r, block.columns // pages.page_size].long().clamp(0, pages.keys.shape[0] - 1)
    row = block.columns % pages.page_size
    of_groups = torch.tensor(groups, device=page.device)[:, None]
    return pages.keys[page, row, of_groups][None].to(wide), pages.values[page, row, of_groups][None].to(wide)

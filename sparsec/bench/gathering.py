"""A call's live pairs -> attention by gathering keys by hand, as PyTorch users write it: index_select and small SDPAs.

Invariant: lists and masks are made beforehand, so that a call only gathers and attends; heads of one KV group share
what is gathered for them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsec.sema.model import InputKind, ResolvedPattern

GATHERED_BYTES = 1 << 26
"""Of keys that are gathered at a time."""


def rows_of(pattern: ResolvedPattern) -> int:
    """How many queries share a list: one where an input lists keys of each query, else a block."""
    if any(decl.kind is InputKind.ROWS for decl in pattern.inputs):
        return 1
    tiles = [decl.tile[0] for decl in pattern.inputs if decl.kind is InputKind.BLOCKS and decl.tile is not None]
    return min(tiles, default=pattern.block)


def by_gathering(
    live: Tensor, q: Tensor, k: Tensor, v: Tensor, *, rows: int, scale: float | None
) -> Callable[[], Tensor]:
    """`live`: bool [B or 1, X, Nq, Nk] as `pictures.given.live_mask` gives it; q [B, H, Nq, D]; k, v [B, G, Nk, D]."""
    batch, heads, n_q, head_dim = q.shape
    groups, n_k = k.shape[1:3]
    per_group, units = heads // groups, -(-n_q // rows)
    live = torch.nn.functional.pad(live, (0, 0, 0, units * rows - n_q)).to(q.device)
    of_group = (
        live.view(len(live), groups, per_group, units * rows, n_k) if live.shape[1] == heads else live[:, :, None]
    )
    tiles = of_group.reshape(*of_group.shape[:3], units, rows, n_k).expand(batch, groups, -1, -1, -1, -1)
    named = tiles.any(4).any(2)
    longest = max(int(named.sum(-1).max()), 1)
    lists = named.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :longest].contiguous()
    base = (torch.arange(batch * groups, device=q.device) * n_k).view(batch, groups, 1, 1)
    step = max(1, GATHERED_BYTES // (batch * groups * longest * head_dim * k.element_size()))
    chunks = []
    for first in range(0, units, step):
        part = lists[:, :, first : first + step]
        index = part[:, :, None, :, None].expand(-1, -1, tiles.shape[2], -1, rows, -1)
        seen = tiles[:, :, :, first : first + step].gather(-1, index)  # [B, G, P or 1, c, rows, L]
        seen = seen.transpose(2, 3)
        if rows > 1 or seen.shape[3] > 1:
            seen = seen.expand(-1, -1, -1, per_group, -1, -1)
        chunks.append(((part + base).flatten(), seen.reshape(-1, 1, seen.shape[3] * rows, longest)))

    def attend() -> Tensor:
        padded = torch.nn.functional.pad(q, (0, 0, 0, units * rows - n_q)) if units * rows > n_q else q
        packed = padded.view(batch, groups, per_group, units, rows, head_dim).transpose(2, 3)
        keys, values = (t.reshape(-1, t.shape[-1]) for t in (k, v))
        outs = []
        for number, (index, seen) in enumerate(chunks):
            few = packed[:, :, number * step : (number + 1) * step]
            near_k, near_v = (t.index_select(0, index).view(-1, 1, longest, t.shape[-1]) for t in (keys, values))
            out = torch.nn.functional.scaled_dot_product_attention(
                few.reshape(-1, 1, per_group * rows, head_dim), near_k, near_v, attn_mask=seen, scale=scale
            )
            outs.append(out.view(batch, groups, few.shape[2], per_group, rows, -1))
        whole = torch.cat(outs, dim=2).transpose(2, 3)
        return whole.reshape(batch, heads, units * rows, -1)[:, :, :n_q]

    return attend

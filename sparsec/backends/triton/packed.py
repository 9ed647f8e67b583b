"""Cumulative document lengths -> the tiles of all documents, one row a tile; on the device, with no host in between.

Invariant: the table's length follows from the number of rows and of documents alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


def document_tiles(cu_seqlens: Tensor, rows: int, tile: int, *, restart: bool) -> Tensor:
    """int32 [ceil(rows / tile) + documents, 3]: a tile's number, its document's first row and one past its last.

    cu_seqlens: int32 [documents + 1]. Tiles of `tile` rows lie on a grid from row 0, or with `restart` from the start
    of each document; one that holds rows of two documents comes twice. What is left of the table is 0.
    """
    begin, end = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    if len(begin) == 0:
        return torch.zeros((0, 3), dtype=torch.int32, device=cu_seqlens.device)
    first, count, stop = document_grid(cu_seqlens, tile, restart=restart)
    n = torch.arange(-(-rows // tile) + len(begin), device=cu_seqlens.device)
    found = torch.searchsorted(stop, n, right=True)
    document = found.clamp(max=len(begin) - 1)
    number = first[document] + n - (stop - count)[document]
    table = torch.stack((number, begin[document], end[document]), dim=1)
    return torch.where((found < len(begin))[:, None], table, 0).to(torch.int32)


def document_grid(cu_seqlens: Tensor, tile: int, *, restart: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each document the number of its first tile, how many it has, and how many come up to its end."""
    begin, end = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    first = torch.zeros_like(begin) if restart else begin // tile
    past = (end - begin + tile - 1) // tile if restart else (end + tile - 1) // tile
    count = torch.where(end > begin, past - first, 0)
    return first, count, count.cumsum(0)

"""Cumulative document lengths -> the tiles of all documents, one row a tile; on the device, with no host in between.

Invariant: the table's length follows from the number of rows and of documents alone.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from sparsec._resources import read_data
from sparsec.backends.triton.launches import KernelEntry, Recorded, derived, launch
from sparsec.backends.triton.modules import load_module
from sparsec.plan.target import LISTED_DOCUMENTS, LISTED_PLACES, PLAIN


def document_tiles(
    cu_seqlens: Tensor, rows: int, tile: int, *, restart: bool, recorded: Recorded | None = None
) -> Tensor:
    """int32 [ceil(rows / tile) + documents, 3]: a tile's number, its document's first row and one past its last.

    cu_seqlens: int32 [documents + 1]. Tiles of `tile` rows lie on a grid from row 0, or with `restart` from the start
    of each document; one that holds rows of two documents comes twice. What is left of the table is 0.
    """
    documents = len(cu_seqlens) - 1
    places = -(-rows // tile) + documents if documents else 0
    make = partial(torch.empty, (places, 3), dtype=torch.int32, device=cu_seqlens.device)
    (found,) = derived(recorded, make)
    fixed = {"RESTART": restart, "ROWS": LISTED_PLACES, "WALK": LISTED_DOCUMENTS}
    entry = KernelEntry(_kernel(), cu_seqlens.device, PLAIN, fixed)
    given = {"cu_seqlens": cu_seqlens.contiguous(), "found": found, "documents": documents}
    launch(entry, -(-places // LISTED_PLACES), {**given, "places": places, "tile": tile}, recorded)
    return found


@cache
def _kernel() -> Any:
    return load_module(read_data("templates/triton/documents.py")).find_document_tiles


def document_grid(cu_seqlens: Tensor, tile: int, *, restart: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each document the number of its first tile, how many it has, and how many come up to its end."""
    begin, end = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    first = torch.zeros_like(begin) if restart else begin // tile
    past = (end - begin + tile - 1) // tile if restart else (end + tile - 1) // tile
    count = torch.where(end > begin, past - first, 0)
    return first, count, count.cumsum(0)

"""The lookups of a call -> arguments of kernels by name, and lists of rows -> for each entry the rows that list it.

Invariant: all of it is made on the device, and nothing is read back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.triton.emit_inputs import NUMBERS, STEMS
from sparsec.backends.triton.packed import document_grid
from sparsec.ir.bands.band import Asks, InputTest

ELEMENTS = {**dict.fromkeys(STEMS.values(), torch.int32), "cells": torch.uint8, "ancestors": torch.uint8}
ELEMENTS |= {"entries": torch.int32, "key_labels": torch.int32}
"""By what a tensor is called, before `_<g>`."""


def input_arguments(tests: tuple[InputTest, ...], lookups: tuple[Lookup, ...]) -> dict[str, object]:
    """The arguments of the tests of a plan, whatever the order of the lookups."""
    given: dict[str, object] = {}
    for g, test in enumerate(tests):
        (lookup,) = (each for each in lookups if each.test == test)
        given |= _numbers(f"input_{g}", lookup.data)
        given[f"input_{g}_first"] = lookup.first
        given[f"{STEMS[test.asks]}_{g}"] = lookup.data
        if test.asks is Asks.ROW:
            given |= {f"entries_{g}": lookup.data, f"ordered_{g}": lookup.ordered}
        if lookup.keys is not None:
            given |= {**_numbers(f"keys_{g}", lookup.keys), f"key_labels_{g}": lookup.keys}
    return given


def _numbers(name: str, data: Tensor) -> dict[str, object]:
    batches, heads = data.shape[:2]
    rows, columns = (1, 1, *data.shape[2:])[-2:]
    return dict(zip((f"{name}_{each}" for each in NUMBERS), (batches, heads, rows, columns), strict=True))


def listing_of(entries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """int32 [b, x, Nq * c]: the rows that list entry 0, those that list 1, ...; and [b, x, count + 1]: their starts.

    Rows of one entry ascend. `entries`: [b, x, Nq, c], those outside 0 .. count - 1 being absent.
    """
    batch, heads, rows, columns = entries.shape
    numbers = entries.where((entries >= 0) & (entries < count), count).reshape(batch, heads, rows * columns)
    ordered, place = numbers.sort(dim=-1, stable=True)
    each = torch.arange(count + 1, dtype=ordered.dtype, device=ordered.device).expand(batch, heads, -1).contiguous()
    starts = torch.searchsorted(ordered.contiguous(), each, out_int32=True)
    return (place // max(columns, 1)).to(torch.int32).contiguous(), starts


def within_documents(entries: Tensor, width: int, cu_seqlens: Tensor, *, restart: bool) -> Tensor:
    """The entries as numbers of tiles of `document_tiles(cu_seqlens, Nq, width)`, -1 for those of other documents."""
    first, count, stop = document_grid(cu_seqlens, width, restart=restart)
    rows = torch.arange(entries.shape[2], device=entries.device)
    if len(count) == 0:
        return entries.new_full(entries.shape, -1)
    document = torch.searchsorted(cu_seqlens[1:].contiguous(), rows, right=True)
    inside = (document < len(count)) & (rows >= cu_seqlens[0])
    document = document.clamp(max=len(count) - 1)
    own = entries - first[document][:, None]
    known = inside[:, None] & (own >= 0) & (own < count[document][:, None])
    return torch.where(known, own + (stop - count)[document][:, None], -1)

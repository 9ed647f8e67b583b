"""The lookups of a call -> arguments of kernels by name, and lists of rows -> for each entry the rows that list it.

Invariant: all of it is made on the device, and nothing is read back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.entries import int32_of
from sparsec.backends.triton.emit_inputs import BITS, NUMBERS
from sparsec.backends.triton.launches import Recorded, derived
from sparsec.backends.triton.packed import document_grid
from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.band import Asks
from sparsec.plan.launch import LaunchPlan
from sparsec.runtime.inputs.prepare import counts_before, numbers_of

ELEMENTS = {"cells": torch.uint8}
ELEMENTS |= dict.fromkeys(("marks", "columns", "ordered", "entries", "labels", "key_labels"), torch.int32)
ELEMENTS |= dict.fromkeys(("length", *BITS), torch.int32)
"""By what a tensor is called, before `_<g>`."""


def input_arguments(
    plan: LaunchPlan, lookups: tuple[Lookup, ...], recorded: Recorded | None = None
) -> dict[str, object]:
    """The arguments of the tests of a plan, whatever the order of the lookups; `recorded`: see `derived`."""
    given: dict[str, object] = {}
    for g, test in enumerate(plan.inputs):
        if test not in plan.of_inputs:
            continue
        (lookup,) = (each for each in lookups if each.test == test)
        given |= {**_numbers(f"input_{g}", lookup.data), f"input_{g}_first": lookup.first}
        tensors = _tensors(lookup, recorded, of_pairs=test in plan.looked_up)
        given |= {f"{name}_{g}": tensor for name, tensor in tensors.items()}
        if lookup.ordered is not None:
            given[f"input_{g}_listed"] = lookup.ordered.shape[-1]
        if lookup.keys is not None:
            given |= _numbers(f"keys_{g}", lookup.keys)
    return given


def _tensors(lookup: Lookup, recorded: Recorded | None, *, of_pairs: bool) -> dict[str, Tensor | None]:
    """By what they are called, before `_<g>`."""
    data = lookup.data

    def bits(make: Callable[[Tensor], Tensor]) -> Tensor:
        (found,) = derived(recorded, lambda data: _bits(make(data)), data)
        return found

    match lookup.test.asks:
        case Asks.MARKED | Asks.COLUMN | Asks.SLASH | Asks.SLASH_TILE:
            columns = {} if lookup.ordered is None else {"columns": lookup.ordered}
            if not of_pairs:
                return {"marks": data, **columns}
            return {"marks": data, "picked": bits(_picked), **columns}
        case Asks.ROW:
            (entries,) = derived(recorded, int32_of, data)
            return {"entries": entries, "ordered": lookup.ordered}
        case Asks.CELL:
            return {"cells": data}
        case Asks.LABEL:
            return {"labels": data, "key_labels": lookup.keys}
        case Asks.ANCESTOR:
            return {"ancestors": bits(lambda data: data), "descendants": bits(lambda data: data.mT)}
        case Asks.KEY_BELOW | Asks.QUERY_BELOW | Asks.NEAR:
            return {"length": data}
        case Asks.KEPT | Asks.KEPT_MARK:
            raise InternalError("no tensor of a call says what lists of kept keys do")
        case _:
            assert_never(lookup.test.asks)


def _picked(counts: Tensor) -> Tensor:
    """As long as the counts: the last number is none."""
    return torch.nn.functional.pad(counts[..., 1:], (0, 1)) > counts


def _bits(flags: Tensor) -> Tensor:
    """int32 [..., ceil(n / 32)]: bit m % 32 of number m // 32 is flag m of [..., n]."""
    words = -(-flags.shape[-1] // 32)
    padded = torch.nn.functional.pad(flags, (0, words * 32 - flags.shape[-1]))
    places = torch.arange(32, dtype=torch.int32, device=flags.device)
    of_each = padded.reshape(*flags.shape[:-1], words, 32).to(torch.int32) << places
    return of_each.sum(-1, dtype=torch.int32)


def _numbers(name: str, data: Tensor) -> dict[str, object]:
    batches, heads = data.shape[:2]
    rows, columns = (1, 1, *data.shape[2:])[-2:]
    return dict(zip((f"{name}_{each}" for each in NUMBERS), (batches, heads, rows, columns), strict=True))


def columns_of_groups(counts: Tensor, columns: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """`Lookup.data` and `Lookup.ordered` of lists [b, x, ...], of which those of one KV group become one."""
    batch, heads, places = counts.shape
    share = heads // groups
    if share <= 1:
        return counts, columns
    marks = (counts[..., 1:] > counts[..., :-1]).view(batch, groups, share, places - 1).any(2)
    together = counts_before(marks)
    return together, numbers_of(together, columns.shape[-1] * share)


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


def within_documents(entries: Tensor, cu_seqlens: Tensor, *, width: int, restart: bool) -> Tensor:
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

"""The tensors of a call over pages -> the same, found to be what the kernels take.

Invariant: nothing is read from a device unless values are to be checked; every mistake is a CallError with the expected
and the given value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsec.backends.paged import Pages, check_requests
from sparsec.diagnostics.arguments import instance
from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.kv.pages import dead_pages
from sparsec.runtime.call_tensors import CallTensors


def check_rows(of: CallTensors, given: dict[str, tuple[Tensor, int, int]]) -> None:
    """Raises CallError unless each (tensor, heads, dim) is [tokens, heads, dim], with as many tokens as the others."""
    first = next(iter(given.values()))[0]
    for name, (tensor, heads, dim) in given.items():
        if instance(name, tensor, Tensor).dim() != 3 or tuple(tensor.shape[1:]) != (heads, dim):
            raise CallError(f"expected {name} of shape [tokens, {heads}, {dim}], got {list(tensor.shape)}")
        if tensor.shape[0] != first.shape[0]:
            raise CallError(f"expected {first.shape[0]} tokens in {name}, got {tensor.shape[0]}")
        _check_place(of, name, tensor, first.device)


def check_pages(of: CallTensors, k_pages: Tensor, v_pages: Tensor, device: torch.device) -> None:
    """Raises CallError unless they are pages of keys and of values."""
    for name, pages, dim in (("k_pages", k_pages, of.head_dim), ("v_pages", v_pages, of.value_dim)):
        shape = tuple(instance(name, pages, Tensor).shape)
        if len(shape) != 4 or shape[1] < 1 or shape[2:] != (of.kv_heads, dim):
            raise CallError(f"expected {name} of shape [pages, page_size, {of.kv_heads}, {dim}], got {list(shape)}")
        _check_place(of, name, pages, device)
    sizes = list(k_pages.shape[:2]), list(v_pages.shape[:2])
    if sizes[0] != sizes[1]:
        raise CallError(f"expected v_pages of {sizes[0]} pages and rows like k_pages, got {sizes[1]}")


def _check_place(of: CallTensors, name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.dtype != of.dtype:
        raise CallError(f"expected {name} of dtype {of.dtype}, got {tensor.dtype}")
    if of.on_cpu and not tensor.is_cpu:
        raise CallError(f"expected CPU tensors for target {of.target!r}, got {name} on {tensor.device}")
    if tensor.device != device:
        raise CallError(f"expected {name} on {device}, got it on {tensor.device}")


def pages_of(
    q: Tensor, k_pages: Tensor, v_pages: Tensor, block_table: Tensor, cu_seqlens_q: Tensor, seq_lens: Tensor
) -> Pages:
    """What kernels take of a call whose rows and pages are right. Raises CallError."""
    requests = len(seq_lens) if instance("seq_lens", seq_lens, Tensor).dim() == 1 else -1
    wanted = {
        "seq_lens": (seq_lens, "[requests]", (requests,)),
        "cu_seqlens_q": (cu_seqlens_q, "[requests + 1]", (requests + 1,)),
        "block_table": (block_table, "[requests, pages]", (requests,)),
    }
    for name, (tensor, shape, sizes) in wanted.items():
        instance(name, tensor, Tensor)
        fits = tensor.dim() == (2 if name == "block_table" else 1) and tuple(tensor.shape[: len(sizes)]) == sizes
        if not fits or tensor.dtype != torch.int32 or tensor.device != q.device:
            got = f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
            raise CallError(f"expected {name} int32 {shape} on {q.device}, got {got}, with {max(requests, 0)} requests")
    if k_pages.shape[0] == 0 and q.shape[0] > 0:
        raise CallError(f"expected pages for {q.shape[0]} tokens, got none")
    pages = Pages(k_pages, v_pages, *(each.contiguous() for each in (block_table, cu_seqlens_q, seq_lens)))
    if max(k_pages.shape[0], q.shape[0]) >= POSITION_LIMIT:
        raise CallError(f"expected fewer than 2**29 pages and tokens, got {k_pages.shape[0]} and {q.shape[0]}")
    return pages


def check_table(pages: Pages, layout: CacheLayout, tokens: int) -> None:
    """Reads starts, lengths and the table's entries of live pages. Raises CallError for one that is no page's."""
    starts, lengths = pages.starts.tolist(), pages.lengths.tolist()
    check_requests(starts, lengths, tokens, pages.longest)
    table, count = pages.table.cpu(), pages.keys.shape[0]
    for r, length in enumerate(lengths):
        first, size = length - (starts[r + 1] - starts[r]), pages.page_size
        if first == length:
            continue
        wrong = (table[r, : -(-length // size)] < 0) | (table[r, : -(-length // size)] >= count)
        for dead in dead_pages(layout, first + 1, size):
            wrong[dead.start : dead.stop] = False
        if wrong.any():
            n = int(wrong.int().argmax())
            raise CallError(f"expected a page from 0 to {count - 1} in block_table[{r}, {n}], got {int(table[r, n])}")


def check_slots(slots: Tensor, k: Tensor, k_pages: Tensor, *, values: bool) -> None:
    """Raises CallError unless they are a slot for each row of k; `values`: the numbers, too, are to be right."""
    kinds = (torch.int32, torch.int64)
    instance("slot_mapping", slots, Tensor)
    if slots.dtype not in kinds or tuple(slots.shape) != tuple(k.shape[:1]) or slots.device != k.device:
        got = f"{slots.dtype} {list(slots.shape)} on {slots.device}"
        raise CallError(f"expected slot_mapping int32 or int64 [{len(k)}] on {k.device}, got {got}")
    if values:
        there, count = slots[slots >= 0], k_pages.shape[0] * k_pages.shape[1]
        if bool((there >= count).any()):
            raise CallError(f"expected slots below {count} in slot_mapping, got {int(there.max())}")
        ordered = there.sort().values
        again = ordered[1:][ordered.diff() == 0]
        if len(again):
            raise CallError(f"expected each slot once in slot_mapping, got {int(again[0])} twice")

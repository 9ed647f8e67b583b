"""A call's lookups -> what the CPU kernels take.

Invariant: every address that a kernel makes of a lookup lies within its tensor.
"""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.cpu import calls
from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.band import Asks
from sparsec.plan.launch import LaunchPlan
from sparsec.runtime.kv.lists import KeptLists

_LOOKUP = calls.LOOKUP.packer()
_NO_LOOKUP = bytes(_LOOKUP.size)
_OF_LISTS = (Asks.KEPT, Asks.KEPT_MARK)


def with_whole_rows(plan: LaunchPlan, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Keys or values whose rows are contiguous, where the kernels of the plan read single rows."""
    if all(test.asks is not Asks.ROW for test in plan.inputs):
        return tensors
    return tuple(t if t.stride(3) == 1 else t.contiguous() for t in tensors)


def lookup_table(
    plan: LaunchPlan, given: tuple[Lookup, ...], batch: int, kept: KeptLists | None = None
) -> array[int] | None:
    """The lookups of the plan's tests in order, None without any; the tensors must outlive it. Raises CallError."""
    if not plan.inputs:
        return None
    of_kept = b"" if kept is None else _list_rows(plan, kept)
    if [lookup.test for lookup in given] != list(plan.of_inputs if of_kept else plan.inputs):
        raise CallError(f"expected a lookup for each test of an input, got {[lookup.test for lookup in given]}")
    rows, rest, ordered = b"", iter(given), plan.ordered
    for test in plan.inputs:
        if of_kept and test.asks in _OF_LISTS:
            rows += of_kept
            continue
        lookup, in_order = next(rest), test in ordered
        rows += _row(plan, lookup, lookup.data, batch)
        other = lookup.keys if lookup.keys is not None else lookup.ordered
        if other is None:
            if in_order or test.asks is Asks.LABEL:
                raise CallError(f"expected a second tensor for {test}, got none")
            rows += _NO_LOOKUP
            continue
        rows += _row(plan, lookup, other, batch)
        if in_order and test.asks is Asks.ROW and other.shape != lookup.data.shape:
            raise CallError(f"expected ordered lists like the lists, got {list(other.shape)}")
    return array("b", rows)


def _list_rows(plan: LaunchPlan, kept: KeptLists) -> bytes:
    """Both lookups of a test that lists of kept keys answer; heads are told apart where their marks differ."""
    heads = plan.heads if kept.by_head else plan.kv_heads
    return _LOOKUP.pack(kept.entries.data_ptr(), 1, heads, *kept.entries.shape, 0) + _LOOKUP.pack(
        kept.lists.data_ptr(), kept.lists.shape[0], plan.kv_heads, 1, 3, 0
    )


def bias_arguments(plan: LaunchPlan, key_bias: Tensor | None, batch: int) -> tuple[int, ...]:
    """`calls.FORWARD`'s fields of a key bias; the tensor must outlive them. Raises CallError."""
    if (key_bias is not None) != (plan.score.bias is not None):
        raise CallError(f"expected {'no' if key_bias is not None else 'a'} key_bias for this pattern")
    if key_bias is None:
        return (0,) * 6
    fits = key_bias.dim() == 3 and key_bias.shape[0] in (1, batch)
    fits = fits and key_bias.shape[1] in (1, plan.kv_heads, plan.heads)
    if not fits or str(key_bias.dtype) != "torch.float32" or not key_bias.is_cpu:
        raise CallError(
            f"expected a key_bias float32 [{batch}, {plan.heads} or {plan.kv_heads}, keys] on the CPU, "
            f"got {key_bias.dtype} {list(key_bias.shape)} on {key_bias.device}"
        )
    of_batch, *apart = key_bias.stride()
    return key_bias.data_ptr(), *key_bias.shape[1:], of_batch if key_bias.shape[0] > 1 else 0, *apart


def _row(plan: LaunchPlan, lookup: Lookup, data: Tensor, batch: int) -> bytes:
    asks, dtype, first, shape = lookup.test.asks, data.dtype, lookup.first, data.shape
    wanted = torch.int32
    if asks is Asks.ROW:
        if dtype is torch.int64 and data is lookup.data:
            wanted, first = dtype, 1
    elif asks is Asks.CELL or asks is Asks.ANCESTOR:
        wanted = torch.uint8
    ready = dtype is wanted and data.is_cpu and data.is_contiguous() and 2 <= len(shape) <= 4
    if not ready or shape[0] not in (1, batch) or shape[1] not in (1, plan.kv_heads, plan.heads):
        raise CallError(
            f"expected a contiguous {str(wanted).removeprefix('torch.')} tensor of {batch} sequences and "
            f"{plan.heads} or {plan.kv_heads} heads on the CPU, got {data.dtype} {list(shape)} on {data.device}"
        )
    if len(shape) == 4:
        return _LOOKUP.pack(data.data_ptr(), *shape, first)
    return _LOOKUP.pack(data.data_ptr(), *shape[:2], *(1,) * (4 - len(shape)), *shape[2:], first)

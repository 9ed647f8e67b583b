"""`kv_dtype`: what a cache stores keys and values as, when that is not what calls give.

Invariant: `to_stored` gives the bytes that every backend stores, and attention takes all keys, those of the call too,
as `from_stored` gives them: how tokens are divided into calls changes no number.

int8: a row x of numbers is stored as round(x / s), ties to even, with s = max |x| / 127, and after these numbers the 4
bytes of s, a float32. A number is off by at most s / 2, which is max |x| / 254. A row with a number that is not finite
is NaN throughout; one whose numbers are all below 127 times the least normal float32 is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError

_SMALLER: dict[torch.dtype, tuple[torch.dtype, ...]] = {
    torch.float64: (torch.bfloat16, torch.float16, torch.int8),
    torch.float32: (torch.bfloat16, torch.float16, torch.int8),
    torch.bfloat16: (torch.int8,),
    torch.float16: (torch.int8,),
}
"""By what calls give."""
_LARGEST = 127
_BESIDE = 4
"""Bytes of a row's scale."""


def kv_dtype_of(asked: torch.dtype | str | None, dtype: torch.dtype) -> torch.dtype:
    """What a cache stores for calls of `dtype`; None: that. Raises CallError for another than it may be."""
    if asked is None:
        return dtype
    known = dtype, *_SMALLER[dtype]
    names = {dtype_name(each): each for each in known}
    found = names.get(asked) if isinstance(asked, str) else asked
    if found not in known:
        raise CallError(f"expected kv_dtype None or one of {', '.join(names)} for {dtype} calls, got {asked}")
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """As plans name it."""
    return str(dtype).removeprefix("torch.")


def width_of(dim: int, kv_dtype: torch.dtype) -> int:
    """Elements of a stored row of `dim` numbers."""
    return dim + _BESIDE if kv_dtype == torch.int8 else dim


def to_stored(x: Tensor, kv_dtype: torch.dtype) -> Tensor:
    """Rows [..., dim] of floats as a cache stores them, [..., width]."""
    if kv_dtype != torch.int8:
        return x.to(kv_dtype)
    x = x.to(torch.float32)
    largest = x.abs().amax(-1, keepdim=True)
    scale = largest / _LARGEST
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, 0.0, scale)
    scale = torch.where(largest.isfinite(), scale, torch.nan)
    live = scale > 0
    numbers = torch.where(live, x * torch.where(live, 1 / scale, 0.0), 0.0).round().to(torch.int8)
    return torch.cat([numbers, scale.contiguous().view(torch.int8)], -1)


def from_stored(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """What stored rows [..., width] stand for, [..., dim] of `dtype`."""
    if rows.dtype != torch.int8:
        return rows.to(dtype)
    scale = rows[..., -_BESIDE:].contiguous().view(torch.float32)
    return (rows[..., :-_BESIDE].to(torch.float32) * scale).to(dtype)

"""CPU tensors -> the same tensors in memory whose next byte, above or below, no kernel may touch.

Invariant: shape, strides and values stay; an element's address stays a multiple of its size.

Only the ends of a whole tensor are watched: what runs past one head into the next is for the numerics to find.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from sparsec.runtime.devices import PerDevice

GUARD_PAGES = ("above", "below")
"""Tensors end just below a page that may be neither read nor written, or start just above one."""
HEAP = "heap"
"""Tensors have memory of torch's allocator, around which AddressSanitizer lays red zones, and not a byte more."""
_PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None, use_errno=True)


def placed(tensor: Tensor, side: str) -> Tensor:
    """A copy of what lies between the lowest element that the strides reach and the highest; the next byte is `side`'s:
    one of GUARD_PAGES, or HEAP."""
    if tensor.numel() == 0:
        return tensor
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    flat = torch.empty(extent, dtype=tensor.dtype) if side == HEAP else _against_a_page(extent, tensor.dtype, side)
    ctypes.memmove(flat.data_ptr(), tensor.data_ptr(), flat.nbytes)
    return flat.as_strided(tensor.shape, tensor.stride())


def _against_a_page(count: int, dtype: torch.dtype, side: str) -> Tensor:
    nbytes = count * dtype.itemsize
    inside = -(-nbytes // _PAGE) * _PAGE
    memory = mmap.mmap(-1, inside + 2 * _PAGE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (base, base + _PAGE + inside):
        if _LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), 0) != 0:  # 0: PROT_NONE
            raise OSError(ctypes.get_errno(), "mprotect failed")
    offset = _PAGE + (inside - nbytes if side == "above" else 0)
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=offset)  # holds the mapping as long as it lives


def one_more(pages: Tensor) -> Tensor:
    """A copy of contiguous [pages, ...] with one page more, which may be neither read nor written."""
    extra = -(-pages[0].nbytes // _PAGE) * _PAGE
    inside = -(-pages.nbytes // _PAGE) * _PAGE
    memory = mmap.mmap(-1, inside + extra)
    base, offset = ctypes.addressof(ctypes.c_char.from_buffer(memory)), inside - pages.nbytes
    ctypes.memmove(base + offset, pages.data_ptr(), pages.nbytes)
    if _LIBC.mprotect(ctypes.c_void_p(base + inside), ctypes.c_size_t(extra), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect failed")
    made = torch.frombuffer(memory, dtype=pages.dtype, count=pages.numel() + pages[0].numel(), offset=offset)
    return made.view(-1, *pages.shape[1:])


class _Guarding(TorchFunctionMode):
    """Places every CPU tensor that a function of torch allocates: a kernel's outputs, scratch and tables."""

    def __init__(self, side: str) -> None:
        super().__init__()
        self.side = side

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, Tensor)]
        owned = {t.untyped_storage().data_ptr() for t in given}  # views, and what is changed in place, stay

        def owner(tensor: Tensor) -> Tensor:
            return tensor if tensor.untyped_storage().data_ptr() in owned else placed(tensor, self.side)

        return tree_map_only(Tensor, owner, found)


@contextmanager
def guarding(side: str) -> Iterator[None]:
    """Within it, tensors that torch allocates are placed, and kernels keep none from one call to the next."""
    anew = patch.object(PerDevice, "on", lambda kept, device: kept.make(device))
    with anew, nullcontext() if side == HEAP else _Guarding(side):
        yield

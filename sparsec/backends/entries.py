"""Entries of lists, as kernels have them.

Invariant: an entry that names nothing still does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ABSENT = 2**31 - 1
"""Above every number of an entry."""


def int32_of(entries: Tensor) -> Tensor:
    """Entries of lists as int32: those that are too large for it are ABSENT, and the least is -1 if they were int64."""
    return entries if str(entries.dtype) == "torch.int32" else entries.clamp(-1, ABSENT).int()

"""The tolerance policy: how far a kernel may be from exact attention, given how far plain PyTorch is in the same dtype.

A fixed bound either lets a missing block of keys pass or refuses correct 16-bit kernels; a relative one does neither.
"""

from __future__ import annotations

import math

import torch

FLOOR = 1e-5
"""Errors up to this are always allowed."""


def allowed_errors(plain_largest: float, plain_mean: float, dtype: torch.dtype, rows: int) -> tuple[float, float]:
    """The largest and the mean error allowed: 2x and 1.1x those of plain attention (float32: 10x), or the floor.

    Plain attention's errors are a draw: from `rows` rows that see a key, a 16-bit dtype's are known to one part in
    sqrt(rows), and may be short by twice that.
    """
    of_largest, of_mean = (10.0, 10.0) if dtype == torch.float32 else (2.0, 1.1)
    chance = 1.0 if dtype == torch.float32 else 1 + 2 / math.sqrt(max(rows, 1))
    return max(FLOOR, of_largest * chance * plain_largest), max(FLOOR, of_mean * chance * plain_mean)

"""How Triton's kernels that take keys of lists are compiled, and of how many rows and keys their programs are.

Invariant: as of `target`: the figures depend on the arguments alone.
"""

from __future__ import annotations

from dataclasses import replace

from sparsec.plan.picks import Family
from sparsec.plan.target import LaunchShape, decode_shape, decode_tile_sizes, family


def gather_shape(target: str, head_dim: int, dtype: str) -> tuple[LaunchShape, int]:
    """How Triton's kernels of lists of rows are compiled, and how many keys or rows they take at a time."""
    stages = 1 if family(target) is Family.CDNA or dtype == "float32" else 2
    narrow = dtype == "float32" or head_dim > 128
    return LaunchShape(4, stages, False), 16 if narrow and head_dim > 64 else 32


def kept_shape(target: str, head_dim: int, dtype: str, rows: int) -> tuple[LaunchShape, int]:
    """How kernels over lists of kept keys are compiled for programs of `rows`, at most `decode_rows`, and how many keys
    they take at a time."""
    if dtype == "float32":
        return LaunchShape(4 if head_dim <= 64 else 8, 1, False), 16
    keys = decode_tile_sizes(target, head_dim, dtype)[1]
    shape = decode_shape(target, head_dim, dtype, rows, keys)
    # In four warps 16 rows beside 64 keys of more than 64 numbers spill, and so do more rows beside any 64 keys.
    wide = (head_dim > 64 or rows > 16) and head_dim <= 128 and family(target) is not Family.CDNA
    shape = replace(shape, warps=8) if wide else shape
    # More than 32 rows beside more than two tiles of keys on their way spill under Triton 3.6.
    return (replace(shape, stages=min(2, shape.stages)) if rows > 32 else shape), keys


def column_stages(head_dim: int, dtype: str) -> int | None:
    """Stages of a forward kernel's loop over a list of columns; None: the launch's. More keys on their way to wide
    rows take registers that no thread has left."""
    return 2 if dtype != "float32" and 64 < head_dim <= 128 else None


def gather_rows(members: int) -> int:
    """The rows of a program that has one row of so many query heads: a power of two that tensor cores take."""
    return max(16, 1 << (members - 1).bit_length())

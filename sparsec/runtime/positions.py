"""Which positions a call may have: below a limit that lets kernels compute in 32 bits.

Invariant: what `sparsec verify --prove` assumes of positions holds of every call that passes.
"""

from __future__ import annotations

import torch

from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.bounds import POSITION_LIMIT


def position(name: str, given: int) -> int:
    """`given`, an integer or a graph's symbol of one; raises CallError for anything else."""
    counts = type(given) is int or (isinstance(given, int | torch.SymInt) and not isinstance(given, bool))
    return given if counts else integer(name, given)


def check_positions(q_offset: int, n_queries: int, n_keys: int) -> None:
    """Raises CallError for positions that are too large."""
    if q_offset + n_queries >= POSITION_LIMIT or n_queries - q_offset >= POSITION_LIMIT or n_keys >= POSITION_LIMIT:
        raise CallError(f"expected positions below 2**29, got q_offset {q_offset}, Nq {n_queries}, Nk {n_keys}")

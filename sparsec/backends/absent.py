"""What stands in place of kernels that a backend or a folder has not: calls that say so.

Invariant: each raises CallError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsec.diagnostics.model import CallError

if TYPE_CHECKING:
    from sparsec.backends.base import CachedKernel, MassKernel


def no_mass() -> MassKernel:
    """In place of `Kernels.make_mass`."""
    raise CallError("expected a module whose kernels give a mass, got return_mass for one whose kernels do not")


def no_kept() -> CachedKernel:
    """In place of `Kernels.make_kept`."""
    raise CallError("expected a module with kernels for `keep`, got one without")


def no_stored(kv_dtype: str, lists: bool) -> CachedKernel:
    """In place of `Kernels.make_stored`."""
    raise CallError(f"expected kv_dtype None for these kernels, which take keys as calls give them, got {kv_dtype}")

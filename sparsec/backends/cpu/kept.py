"""Lists of kept keys -> the structs by which the kernels take them, made once for a cache.

Invariant: what the structs point at lives as long as these.
"""

from __future__ import annotations

import ctypes
from array import array
from dataclasses import dataclass

from sparsec.backends.base import Cached
from sparsec.backends.cpu import calls
from sparsec.backends.cpu.lookups import lookup_table
from sparsec.plan.launch import LaunchPlan
from sparsec.runtime.kv.lists import PAD, KeptLists

_KEPT, _MARKS = calls.KEPT.structure(), calls.MARKS.structure()


@dataclass(frozen=True, slots=True, eq=False)
class ListCall:
    """The lists, the structs of a call for them, and the lookups of a plan that asks nothing else of inputs."""

    kept: KeptLists
    by_head: bool
    struct: ctypes.Structure
    marks: ctypes.Array[ctypes.Structure]
    lookups: array[int] | None

    def with_marks(self) -> int:
        """The address of the struct, with the marks of the call at hand."""
        for to, mark in zip(self.marks, self.kept.new, strict=True):
            to.data = mark.data_ptr()
            to.stride[:] = mark.stride()
            to.batch, to.heads = mark.shape[:2]
        return ctypes.addressof(self.struct)


def list_call(plan: LaunchPlan, cache: Cached) -> ListCall:
    kept, made = cache.kept, cache.made
    assert kept is not None
    if not isinstance(made, ListCall) or made.kept is not kept or made.by_head != kept.by_head:
        rows, marks = len(kept.keys), (_MARKS * len(kept.of.ordinals))()
        tensors = (each.data_ptr() for each in (kept.keys, kept.values, kept.entries))
        struct = _KEPT(*tensors, rows, rows - PAD, kept.lists.data_ptr(), ctypes.addressof(marks))
        lookups = None if plan.of_inputs else lookup_table(plan, (), len(kept.lists), kept)
        cache.made = made = ListCall(kept, kept.by_head, struct, marks, lookups)
    return made

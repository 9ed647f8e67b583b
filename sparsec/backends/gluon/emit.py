"""Kernel plan -> the text of a Python module of Gluon kernels for sm_90, one a head class.

Gluon is Triton's language with layouts and barriers in the text. What the two share is printed as Triton's, from the
views of `backends.triton.emit`, and then put in Gluon's words. Invariant: as of that module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sparsec.backends.base import Unavailable
from sparsec.backends.environment import render
from sparsec.backends.triton.emit import triton_view
from sparsec.backends.triton.emit_columns import of_columns
from sparsec.backends.triton.sources import with_functions
from sparsec.backends.triton.view import KernelView, ModuleView
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.launch import LaunchPlan
from sparsec.plan.target import GLUON, shared_memory_bytes

STEP_KEYS = 128
"""Keys of one step; key tiles that are smaller come several at a time."""
LISTED_KEYS = 64
"""Listed keys of one step, or that one program copies."""
GROUP_ROWS = 64
"""Rows of a warp group, as its tensor cores take them."""
WIDEST = 128
"""Head dimensions above leave too few registers, or too little shared memory."""
MOST_STAGES = 3
REGISTERS = {(1, False): (240, 240), (1, True): (240, 240), (2, False): (240, 24), (2, True): (232, 40)}
"""Of a thread of a warp group and of the warp that has tiles copied: by the number of groups, and whether a step has
more than two tiles. Together, they are those of a multiprocessor."""
_BARRIER_BYTES = 2048
_IMPORTS = """\
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

copy = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
"""


class NotPrinted(Unavailable):
    """A plan that Gluon's kernels do not serve."""

    def __init__(self, lack: str) -> None:
        super().__init__(f"expected a plan for Gluon's kernels, which take {lack}")
        self.lack = f"Gluon's kernels take {lack}"


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """One class's kernel. `tensors` and `sizes`: what it is given beside the outputs; `parts`: key tiles of a step."""

    kernel: KernelView
    tensors: tuple[str, ...]
    sizes: tuple[str, ...]
    groups: int
    parts: int
    stages: int

    @property
    def listed(self) -> tuple[str, ...]:
        """What the lists' keys and values are called, in the order of the loops over them."""
        numbers = (loop.list_number for loop in self.kernel.column_loops)
        return tuple(f"listed_{what}_{n}" for n in numbers for what in ("keys", "values"))

    @property
    def worker_warps(self) -> list[int]:
        """Of the partitions after the first."""
        return [*[4] * (self.groups - 1), 1]

    @property
    def worker_registers(self) -> list[int]:
        of_group, of_copies = REGISTERS[self.groups, self.parts > 2]
        return [*[of_group] * (self.groups - 1), of_copies]


@dataclass(frozen=True, slots=True)
class GluonView:
    """`key_columns` and `value_columns`: those of buffers; what lies beyond the dimension is 0 there."""

    module: ModuleView
    kernels: tuple[ScheduleView, ...]
    """Of the classes that have tiles."""
    step_keys: int
    key_columns: int
    value_columns: int
    lists: tuple[int, ...]
    """As of `list_numbers`."""
    listed_keys: int


def emit_gluon(plan: KernelPlan) -> str:
    """The source of the module whose kernels `forward_0`, `forward_1`, ... serve the classes of `plan`, in order.

    Raises NotPrinted for a plan that they do not serve.
    """
    check_printed(plan)
    return in_gluon(with_functions(render("templates/gluon/forward.py.jinja", gluon_view(plan))))


def check_printed(plan: KernelPlan) -> None:
    """Raises NotPrinted."""
    if plan.dtype == "float32":
        raise NotPrinted(f"bfloat16 and float16, not {plan.dtype}")
    if (most := max(plan.head_dim, plan.value_dim)) > WIDEST:
        raise NotPrinted(f"head dimensions up to {WIDEST}, not {most}")
    if plan.head_dim % 8 or plan.value_dim % 8:
        raise NotPrinted(f"head dimensions that are multiples of 8, not {plan.head_dim} and {plan.value_dim}")
    programs = [of.program for of in plan.classes]
    if all(each.gathers and not (each.full or each.masked or of_columns(each)) for each in programs):
        raise NotPrinted("patterns with tiles of keys or lists for all queries, not lists of each row's alone")


def gluon_view(plan: KernelPlan) -> GluonView:
    module = triton_view(plan)
    columns = padded(plan.head_dim), padded(plan.value_dim)
    kernels = (_schedule(module, kernel, columns) for kernel in module.kernels if kernel.has_tiles)
    return GluonView(module, tuple(kernels), STEP_KEYS, *columns, list_numbers(plan), LISTED_KEYS)


def list_numbers(plan: KernelPlan | LaunchPlan) -> tuple[int, ...]:
    """The lists of single keys for all queries, by the numbers of their arguments."""
    return tuple(plan.inputs.index(test) for test in plan.columns)


def padded(columns: int) -> int:
    """The columns of a buffer, a power of two, which has whole lines of its swizzle."""
    return max(16, 1 << (columns - 1).bit_length())


def _schedule(module: ModuleView, kernel: KernelView, columns: tuple[int, int]) -> ScheduleView:
    of_rows = ("q0", "first_tile", "tiles", "batches") if module.documents == "none" else ()
    tables = ("table", *(["document_tiles"] if module.documents != "none" else []))
    lists = tuple(f"draws_{each.ordinal}" for each in kernel.lists)
    visits = ((), ()) if kernel.asked is None else (("visits",), ("visits_row",))
    tensors = (*tables, *lists, *module.start.arguments, *module.score.arguments, *kernel.inputs.tensors, *visits[0])
    sizes = ("nq", "nk", *of_rows, *module.score.sizes, *kernel.inputs.sizes, *visits[1])
    groups = max(1, kernel.query_tile // GROUP_ROWS)
    room = shared_memory_bytes(GLUON) - _BARRIER_BYTES - 2 * groups * GROUP_ROWS * columns[0]
    stages = min(MOST_STAGES, room // (2 * STEP_KEYS * sum(columns)))
    parts = max(1, STEP_KEYS // kernel.key_tile)
    return ScheduleView(kernel, tuple(dict.fromkeys(tensors)), sizes, groups, parts, stages)


_SHARED = re.compile(r"\btl\.(?=\w)")
_COLUMNS = re.compile(r"\btl\.arange\(0, \d+\)\[None, :\]")
_RANGE = re.compile(r"\btl\.range\(")
_SPOTS = re.compile(r"\bspot = n \+ tl\.arange\(0, \d+\)")
_LANES = re.compile(r"\btl\.(arange\(0, \w+|zeros\(\[\w+\], tl\.int32)\)")


def in_gluon(text: str) -> str:
    """Triton's words as Gluon's.

    The columns of a tile are `within` it, a step takes LISTED_KEYS of a list, and vectors that are no part of a tile
    lie across the LANES of a partition.
    """
    text = text.replace("import triton\nimport triton.language as tl\n", _IMPORTS).replace("@triton.jit", "@gluon.jit")
    text = _SPOTS.sub(f"spot = n + tl.arange(0, {LISTED_KEYS})", text)
    text = _RANGE.sub("range(", _COLUMNS.sub("within", text))
    return _SHARED.sub("gl.", _LANES.sub(r"tl.\1, LANES)", text))

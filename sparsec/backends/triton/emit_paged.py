"""Plans of attention over a cache -> the text of a Python module of Triton kernels for the same over pages.

Invariant: where a key lies follows from the call's table alone; the layout says only which keys are dead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsec.backends.environment import render
from sparsec.backends.triton.emit import checked_name, module_view
from sparsec.backends.triton.emit_cached import CachedKernelView, SlotView, kernel_view
from sparsec.backends.triton.expr import assignment
from sparsec.backends.triton.sources import with_functions
from sparsec.backends.triton.view import ModuleView
from sparsec.ir.expr.nodes import TRUE, Bool
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.kv.pages import HeadConstants, dead_of_class

REQUESTS = 128
"""How many requests of a call over pages a program looks at at a time for that of its query tile."""


@dataclass(frozen=True, slots=True)
class PagedView:
    """`module` has what a forward module's view has; the `slot` of a kernel is the function that says which keys are
    dead."""

    module: ModuleView
    attend: tuple[CachedKernelView, ...]
    decode: tuple[CachedKernelView, ...]


def emit_triton_paged(chunks: CachedPlan, decode: CachedPlan) -> str:
    """The module of two plans that `with_dead_keys` gave: requests with many rows by `chunks`, with few by `decode`."""
    return with_functions(render("templates/triton/paged.py.jinja", paged_view(chunks, decode)))


def paged_view(chunks: CachedPlan, decode: CachedPlan) -> PagedView:
    module = module_view(chunks.attend, "attend", (), packed=True)
    tests = tuple(_dead_view(f"dead_{n}", *dead_of_class(chunks, of)) for n, of in enumerate(chunks.attend.classes))
    return PagedView(
        replace(module, kernels=()),
        tuple(map(kernel_view, module.kernels, tests)),
        tuple(map(kernel_view, module_view(decode.attend, "decode", (), packed=True).kernels, tests)),
    )


def _dead_view(name: str, test: Bool, constants: HeadConstants) -> SlotView:
    checked = tuple(checked_name(each) for each, _ in constants)
    names = {"j": "j", "stop": "stop", "end": "end", **{each: each for each in checked}}
    lines = ("found = j >= 0",) if test == TRUE else assignment("found", test, names)
    return SlotView(name, (), (), lines, checked, False)

"""Plan of attention over a cache -> the text of a Python module: kernels `attend_<n>` and `decode_<n>`, merge, store.

Invariant: a chunk's kernel and decode's find a key by the same slot function; names and numbers are those of
`backends.triton.emit`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sparsec.backends.environment import render
from sparsec.backends.triton.emit import checked_name, module_view
from sparsec.backends.triton.expr import assignment
from sparsec.backends.triton.sources import with_functions
from sparsec.backends.triton.view import InputsView, KernelView, ModuleView
from sparsec.ir.bands.kept import WORD, KeptMarks
from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.nodes import Expr, Int
from sparsec.plan.heads import group_table
from sparsec.plan.kv.cached import CachedPlan

_WIDTH = 80
"""Arguments wider than this, with commas, stand one a line."""
_PLACE = re.compile(r"(?:base|capacity)(\d+)")


@dataclass(frozen=True, slots=True)
class SlotView:
    """A function of the key j to its slot; it reads base and capacity of `regions`, and `constants` (name, column).

    `arguments` names all these; `wide`: they are too many for one line.
    """

    name: str
    regions: tuple[int, ...]
    constants: tuple[tuple[str, int], ...]
    lines: tuple[str, ...]
    arguments: tuple[str, ...]
    wide: bool


@dataclass(frozen=True, slots=True)
class CachedKernelView:
    """One class's kernel, and the function that finds its keys; `blocks` name the lengths of its tables of draws."""

    kernel: KernelView
    slot: SlotView
    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CachedView:
    """`module` has what a forward module's view has; `store` a function for each kind of KV group.

    `regions`: of each group in the table of places; `store_columns`: of the table of groups, whose first is the kind.
    """

    module: ModuleView
    attend: tuple[CachedKernelView, ...]
    decode: tuple[CachedKernelView, ...]
    store: tuple[SlotView, ...]
    regions: int
    store_columns: int
    words: int
    """Of the marks of an entry of a list of kept keys; 0 without lists."""
    said: InputsView
    """What a call says of its keys, and lines that set `word_<n>`, the words of its rows' marks."""


def emit_triton_cached(chunks: CachedPlan, decode: CachedPlan) -> str:
    """The module of two plans of one pattern: chunks of queries by `chunks`, a few queries by `decode`."""
    return with_functions(render("templates/triton/cached.py.jinja", cached_view(chunks, decode)))


def cached_view(chunks: CachedPlan, decode: CachedPlan) -> CachedView:
    assert chunks.slots == decode.slots, "both plans are of one pattern"
    module = module_view(chunks.attend, "attend", ())
    slots = tuple(
        _slot_view(f"slot_{n}", slots.slot, {name: column for column, (name, _) in enumerate(head_class.constants, 1)})
        for n, (slots, head_class) in enumerate(zip(chunks.slots, chunks.attend.classes, strict=True))
    )
    decoding = module_view(decode.attend, "decode", ()).kernels
    return CachedView(
        module=replace(module, kernels=()),
        attend=tuple(map(kernel_view, module.kernels, slots)),
        decode=tuple(map(kernel_view, decoding, slots)),
        store=tuple(
            _slot_view(
                f"kept_{n}",
                group_class.slots.kept,
                {name: column for column, (name, _) in enumerate(group_class.constants, 1)},
            )
            for n, group_class in enumerate(chunks.store)
        ),
        regions=chunks.regions,
        store_columns=len(group_table(chunks.store)[0]),
        words=0 if chunks.kept is None else chunks.kept.words,
        said=InputsView() if chunks.kept is None else _said(chunks.kept, chunks.attend.heads),
    )


def _said(kept: KeptMarks, heads: int) -> InputsView:
    tensors, sizes = [], []
    lines = [f"word_{word} = tl.zeros([ROWS], tl.int32)" for word in range(kept.words)]
    for n in range(len(kept.ordinals)):
        numbers = [f"said_{n}_batches", f"said_{n}_heads"]
        tensors.append(f"said_{n}")
        sizes += numbers
        given, first = f"said_{n}, {', '.join(numbers)}, nq, batch, group, row, there", kept.bit(n, 0)
        for word in range(first // WORD, (first + kept.share - 1) // WORD + 1):
            lines.append(f"word_{word} = word_of(word_{word}, {given}, {word}, {first}, {kept.share}, {heads})")
    return InputsView(tuple(tensors), tuple(sizes), tuple(lines))


def kernel_view(kernel: KernelView, slot: SlotView) -> CachedKernelView:
    return CachedKernelView(kernel, slot, tuple(f"blocks_{view.ordinal}" for view in kernel.lists))


def _slot_view(name: str, slot: Expr, columns: Mapping[str, int]) -> SlotView:
    read = names_in(slot)
    regions = tuple(sorted({int(found[1]) for found in map(_PLACE.fullmatch, read) if found}))
    constants = tuple((checked_name(name), columns[name]) for name in sorted(read & columns.keys()))
    names = {"j": "j", "stop": "stop", **{name: checked_name(name) for name in columns}}
    arguments = [name for name, _ in constants]
    for n in reversed(regions):
        names |= {f"base{n}": f"base_{n}", f"capacity{n}": f"capacity_{n}"}
        arguments[:0] = f"base_{n}", f"capacity_{n}"
    lines = assignment("found", slot, names)
    if isinstance(slot, Int):
        lines = (f"found = tl.zeros_like(j) + ({slot.value})",)
    return SlotView(name, regions, constants, lines, tuple(arguments), len(", ".join(arguments)) > _WIDTH)

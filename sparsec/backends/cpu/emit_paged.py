"""Plans of attention over a cache -> C++ text of the same over pages, for chunks of queries and for single ones.

Invariant: where a key lies follows from the call's table alone; the layout says only which keys are dead.
"""

from __future__ import annotations

from dataclasses import replace

from sparsec.backends.cpu.emit import forward_view, packs_by_kind, with_own_keys
from sparsec.backends.cpu.expr import condition
from sparsec.backends.cpu.source import PAGED_CHUNKS, PAGED_ROWS, print_kernel
from sparsec.backends.cpu.view import CppView, DeadView, initialiser
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.nodes import TRUE, Bool
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.kv.pages import dead, distinct


def emit_cpp_paged(chunks: CachedPlan, rows: CachedPlan, *, symbol: str = "sparsec") -> str:
    """C++17 source with entry points <symbol>_attend_paged_chunks and <symbol>_attend_paged_rows.

    Each is `int (const sparsec_paged_call*)`. The plans are as of `emit_cpp_cached`. It may be joined with others.
    """
    of_chunks = _view(chunks, symbol, "i")
    of_rows = _view(rows, symbol, "j")
    assert chunks.attend.inputs == rows.attend.inputs, "plans of one pattern ask the same in one order"
    order, classes = rows.attend.inputs, zip(rows.attend.classes, of_rows.classes, strict=True)
    packs, kinds = packs_by_kind(rows.attend)
    of_rows = replace(
        of_rows,
        classes=tuple(with_own_keys(of, view, order) for of, view in classes),
        gathered=(),
        lane_tile="KEY_TILE",
        lane="j",
        other="i",
        packs=packs,
        kinds=kinds,
    )
    return f"{print_kernel(PAGED_CHUNKS, of_chunks)}\n{print_kernel(PAGED_ROWS, of_rows)}"


def _view(plan: CachedPlan, symbol: str, lane: str) -> CppView:
    """The forward view without the constants of slot maps."""
    classes = tuple(
        replace(of, constants=tuple(c for c in of.constants if c[0] not in names_in(slots.slot)))
        for of, slots in zip(plan.attend.classes, plan.slots, strict=True)
    )
    return replace(forward_view(replace(plan.attend, classes=classes), symbol, lane), dead=_dead(plan.layout))


def _dead(layout: CacheLayout) -> DeadView:
    groups = tuple(distinct(group) for group in layout.groups)
    kinds = tuple(dict.fromkeys(groups))
    tests = []
    for regions in kinds:
        test: Bool = TRUE
        for region in regions:
            test = x.both(test, dead(region))
        tests.append(condition(test))
    return DeadView(initialiser(kinds.index(group) for group in groups), tuple(tests))

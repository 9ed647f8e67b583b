"""Plans of attention over a cache -> C++ text: chunks of queries and storing by one plan, single queries by another.

Invariant: query heads of a pack read the same keys of one KV group: they share class and constants.
"""

from __future__ import annotations

from dataclasses import replace

from sparsec.backends.cpu.emit import forward_view, of_members, pack_views, with_kept_tiles, with_own_keys
from sparsec.backends.cpu.expr import scalar
from sparsec.backends.cpu.source import CHUNK, ENCODED, ROW_MASS, ROWS, print_kernel
from sparsec.backends.cpu.view import CppView, KeptView, SlotClassView, SlotsView, initialiser
from sparsec.ir.bands.band import InputTest
from sparsec.ir.bands.kept import KeptMarks
from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.nodes import Expr
from sparsec.plan.heads import class_of_member
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.kv.cached import CachedPlan


def emit_cpp_cached(
    chunks: CachedPlan, rows: CachedPlan, *, symbol: str = "sparsec", kv_dtype: str | None = None
) -> str:
    """C++17 source with entry points <symbol>_attend_chunk, <symbol>_store and <symbol>_attend_rows.

    Each is `int (const sparsec_cached_call*)`. `chunks` and `rows` are plans of one pattern, `rows` with query tiles of
    one row. It may be joined with other sources. kv_dtype: what the cache stores keys and values as (None: as they
    are); calls then have those that <symbol>_encode made of theirs.
    """
    of_chunks, of_rows = views(chunks, rows, symbol, kv_dtype)
    of_chunk = CHUNK if of_chunks.kv_dtype == of_chunks.dtype else ENCODED
    return f"{print_kernel(of_chunk, of_chunks)}\n{print_kernel(ROWS, of_rows)}"


def emit_cpp_cached_mass(
    chunks: CachedPlan, rows: CachedPlan, *, symbol: str = "sparsec", kv_dtype: str | None = None
) -> str:
    """Of the same plans the source of the mass of keys, entry point `int <symbol>_add_mass(const
    sparsec_cached_call*)`. It may be joined with other sources."""
    return print_kernel(ROW_MASS, views(chunks, rows, symbol, kv_dtype)[1])


def views(chunks: CachedPlan, rows: CachedPlan, symbol: str, kv_dtype: str | None = None) -> tuple[CppView, CppView]:
    """What the templates print of chunks and storing, and of single rows."""
    order = chunks.attend.inputs
    of_rows = _view(rows, symbol, "j", order)
    classes = zip(rows.attend.classes, of_rows.classes, strict=True)
    of_rows = replace(
        of_rows,
        classes=tuple(with_own_keys(of, view, order) for of, view in classes),
        gathered=(),
        lane_tile="KEY_TILE",
        lane="j",
        other="i",
        packs=pack_views(rows.attend),
    )
    of_chunks = _view(chunks, symbol, "i", order)
    of_classes = zip(chunks.attend.classes, of_chunks.classes, strict=True)
    taken = tuple(with_kept_tiles(of, view, order) for of, view in of_classes)
    gathered = taken if any(of.own.gathers for of in taken) else ()
    packs = pack_views(chunks.attend) if gathered else ()
    of_chunks = replace(of_chunks, classes=taken, gathered=gathered, stored=_stored(chunks), packs=packs)
    held = kv_dtype or of_chunks.dtype
    return replace(of_chunks, kv_dtype=held), replace(of_rows, kv_dtype=held)


def _view(plan: CachedPlan, symbol: str, lane: str, order: tuple[InputTest, ...]) -> CppView:
    """The forward view, its head constants divided between the tile programs and the slot maps."""
    assert plan.attend.inputs == order, "plans of one pattern ask the same in one order"
    heads, programs, slots = plan.attend.heads, [], []
    for head_class, of_class in zip(plan.attend.classes, plan.slots, strict=True):
        names = names_in(of_class.slot)
        programs.append(replace(head_class, constants=tuple(c for c in head_class.constants if c[0] not in names)))
        slots.append(_slot_class(of_class.slot, head_class.heads, head_class.constants, heads, plan.regions))
    found = SlotsView(plan.regions, initialiser(class_of_member(c.heads for c in plan.attend.classes)), tuple(slots))
    view = forward_view(replace(plan.attend, classes=tuple(programs)), symbol, lane)
    return replace(view, slots=found, kept=None if plan.kept is None else _kept(plan.kept, plan.attend))


def _kept(kept: KeptMarks, attend: KernelPlan) -> KeptView:
    ranks = (kept.ordinals.index(n) if n in kept.ordinals else 0 for n in range(len(attend.declared)))
    wanted = (initialiser(f"{word}u" for word in kept.wanted_words(g)) for g in range(attend.kv_heads))
    return KeptView(kept.words, len(kept.ordinals), initialiser(ranks), initialiser(wanted))


def _stored(plan: CachedPlan) -> SlotsView:
    groups = plan.attend.kv_heads
    classes = [_slot_class(c.slots.kept, c.groups, c.constants, groups, plan.regions) for c in plan.store]
    return SlotsView(plan.regions, initialiser(class_of_member(c.groups for c in plan.store)), tuple(classes))


def _slot_class(
    slot: Expr,
    members: tuple[int, ...],
    constants: tuple[tuple[str, tuple[int, ...]], ...],
    count: int,
    regions: int,
) -> SlotClassView:
    names = names_in(slot)
    return SlotClassView(
        tuple(of_members(name, members, values, count) for name, values in constants if name in names),
        tuple(n for n in range(regions) if not names.isdisjoint((f"base{n}", f"capacity{n}"))),
        scalar(slot),
    )

"""Kernel plan, forward or backward -> the frozen view that templates/cpu reads -> C++ text.

Invariant: the text needs no file beside it, and holds only what the pattern uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

from sparsec.backends.cpu.expr import condition, name_of, scalar, vector_mask
from sparsec.backends.cpu.inputs import LOOKUPS_A_TEST, headers_of, view_of
from sparsec.backends.cpu.modifiers import modifiers_view
from sparsec.backends.cpu.source import BACKWARD, FORWARD, MASS, print_kernel
from sparsec.backends.cpu.view import (
    ClassView,
    ColumnsView,
    ConstantView,
    CppView,
    GatherView,
    LetView,
    ListView,
    OwnKeysView,
    PickView,
    SegmentView,
    initialiser,
)
from sparsec.ir.bands.band import Asks, InputTest
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.fold import lists_in, picks_in
from sparsec.ir.expr.nodes import TRUE, Bool, Int, Var
from sparsec.ir.tiles.program import Gather, Segment, TileProgram, lets_for, names_read
from sparsec.plan.heads import by_member, class_of_member, head_table, packs
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan

_SYMBOL = re.compile(r"[a-z][a-z0-9_]*\Z")
_UNSAFE = re.compile(r"[^A-Za-z0-9 .,:;|&~()\[\]<>=+*/%_-]")


def emit_cpp(plan: KernelPlan, *, symbol: str = "sparsec") -> str:
    """C++17 source of the forward kernel, entry point `int <symbol>_forward(const sparsec_call*)`.

    Sources with different symbols may be joined into one translation unit.
    """
    view = forward_view(plan, symbol)
    return print_kernel(FORWARD, replace(view, classes=tuple(map(_looking_ahead, view.classes))))


def emit_cpp_backward(plan: BackwardPlan, *, symbol: str = "sparsec") -> str:
    """C++17 source of the gradients' kernel, entry point `int <symbol>_backward(const sparsec_backward_call*)`.

    Its tables of draws are those of the forward kernel, in the same order. It may be joined with other sources.
    """
    return print_kernel(BACKWARD, _transposed_view(plan, symbol))


def emit_cpp_mass(plan: BackwardPlan, *, symbol: str = "sparsec") -> str:
    """C++17 source of the kernel of keys' mass, entry point `int <symbol>_mass(const sparsec_mass_call*)`; likewise."""
    return print_kernel(MASS, _transposed_view(plan, symbol))


def _transposed_view(plan: BackwardPlan, symbol: str) -> CppView:
    tables = _tables(plan.forward)
    classes = tuple(_transposed_class(c, plan.forward, tables) for c in plan.transposed)
    view = _view(plan.forward, plan.transposed, classes, symbol, transposed=True)
    return _gathering(view, plan.forward, _classes(plan.forward, "i"))


def forward_view(plan: KernelPlan, symbol: str, lane: str = "i") -> CppView:
    """The view of the plan's own classes; `lane` is the variable of a mask that is a vector."""
    view = _view(plan, plan.classes, _classes(plan, lane), symbol, transposed=False)
    return _gathering(view, plan, view.classes)


def _looking_ahead(of: ClassView) -> ClassView:
    """The class whose loops say which tile comes next, but those that skip tiles."""
    after, found = "-1", list(of.segments)
    for n in reversed(range(len(found))):
        if not found[n].when:
            found[n] = replace(found[n], after=after, ordinal=n)
            after = f"first_{n}"
    return replace(of, segments=tuple(found))


def _classes(plan: KernelPlan, lane: str) -> tuple[ClassView, ...]:
    first_table = accumulate((len(c.program.lists) for c in plan.classes), initial=0)
    return tuple(
        _class(c, plan, tuple(_list(c.program, n, first + n) for n in range(len(c.program.lists))), lane)
        for c, first in zip(plan.classes, first_table, strict=False)
    )


def _gathering(view: CppView, plan: KernelPlan, classes: tuple[ClassView, ...]) -> CppView:
    """The view with what finds the rows' own keys, in `classes` of the plan, if there are any."""
    if not any(c.own.gathers for c in classes):
        return view
    class_of = initialiser(class_of_member(c.heads for c in plan.classes))
    return replace(view, gathered=classes, gathering_class_of_head=class_of, packs=pack_views(plan))


def _view(
    plan: KernelPlan, of: tuple[HeadClass, ...], classes: tuple[ClassView, ...], symbol: str, *, transposed: bool
) -> CppView:
    if not _SYMBOL.match(symbol):
        raise ValueError(f"expected a symbol of lower-case letters, digits and _, got {symbol!r}")
    tiles = {(c.program.query_tile, c.program.key_tile) for c in of}
    if len(tiles) != 1:
        raise AssertionError(f"all head classes of a plan share one tile size, got {sorted(tiles)}")
    query_tile, key_tile = tiles.pop()
    return CppView(
        symbol=symbol,
        heads=plan.heads,
        kv_heads=plan.kv_heads,
        head_dim=plan.head_dim,
        value_dim=plan.value_dim,
        dtype=plan.dtype,
        kv_dtype=plan.dtype,
        query_tile=query_tile,
        key_tile=key_tile,
        lane_tile="KEY_TILE" if transposed else "QUERY_TILE",
        lists=sum(len(c.program.lists) for c in plan.classes),
        class_of_head=initialiser(class_of_member(c.heads for c in of)),
        classes=classes,
        transposed=transposed,
        lane="j" if transposed else "i",
        other="i" if transposed else "j",
        modifiers=modifiers_view(plan),
        documents=plan.documents.name.lower(),
        inputs=headers_of(plan.inputs),
        lookups=LOOKUPS_A_TEST * len(plan.inputs),
    )


def _tables(plan: KernelPlan) -> dict[tuple[int, int, int, tuple[int, int]], tuple[int, int]]:
    """(head, width, block, (seed, lane)) -> the table of the call and the row of it that holds these draws."""
    found, table = {}, 0
    for c in plan.classes:
        constants = dict(c.constants)
        for spec in c.program.lists:
            for head, row in zip(c.heads, constants[spec.lane_row], strict=True):
                found[head, spec.width, spec.block, spec.lanes[row]] = table, row
            table += 1
    return found


def _transposed_class(
    c: HeadClass, plan: KernelPlan, tables: dict[tuple[int, int, int, tuple[int, int]], tuple[int, int]]
) -> ClassView:
    """A class of key tiles: it groups heads in its own way, so tables and rows are looked up by the head's draws."""
    constants, lists = dict(c.constants), []
    program = c.program
    first_query = x.add(Var("base"), x.mul(Var("tile"), Int(program.query_tile)))
    for n, spec in enumerate(program.lists):
        of_heads = [
            tables[head, spec.width, spec.block, spec.lanes[row]]
            for head, row in zip(c.heads, constants[spec.lane_row], strict=True)
        ]
        constants[spec.lane_row] = tuple(row for _, row in of_heads)
        constants[f"table{n}"] = tuple(table for table, _ in of_heads)
        lists.append(
            ListView(
                ordinal=n,
                table=f"table{n}",
                row=name_of(spec.lane_row),
                width=spec.width,
                block=scalar(x.floor_div(first_query, Int(spec.block))),
                tile_block=scalar(x.floor_div(Var("j0"), Int(spec.block), nonneg=True)),
                size=spec.block,
            )
        )
    return _class(replace(c, constants=tuple(constants.items())), plan, tuple(lists), lane="j", transposed=True)


def _class(
    c: HeadClass, plan: KernelPlan, lists: tuple[ListView, ...], lane: str = "i", *, transposed: bool = False
) -> ClassView:
    """The view of a class whose lookups stand in the order of the plan's tests."""
    program = c.program
    tests = _conditions(program)
    tested = frozenset[int]().union(*(lists_in(test) for test in tests))
    read = names_read((*program.full, *program.masked), () if transposed else program.gathers)
    columns = tuple(gather for gather in program.gathers if gather.reach is not None)
    return ClassView(
        origins=tuple(comment(origin) for origin in c.origins),
        constants=tuple(of_members(name, c.heads, values, plan.heads) for name, values in c.constants),
        lets=_lets(program, read),
        lists=lists,
        tests=tuple(view for view in lists if view.ordinal in tested),
        picks=_picks(program, plan.inputs, _asked([*tests, *(each.live for each in columns if not transposed)])),
        live=vector_mask(program.live, lane) if program.masked else "",
        segments=(
            *(_segment(segment, program, "attend_full(w, tile)") for segment in program.full),
            *(_segment(segment, program, "attend_masked(w, tile, live)") for segment in program.masked),
        ),
        own=_own_keys(program, plan.inputs, lists),
        columns=tuple(_columns(gather, program, plan.inputs, lists, lane) for gather in columns),
    )


def _lets(program: TileProgram, names: Iterable[str]) -> tuple[LetView, ...]:
    return tuple(LetView(name_of(let.name), scalar(let.value)) for let in lets_for(program.lets, names))


def _columns(
    gather: Gather, program: TileProgram, order: tuple[InputTest, ...], lists: tuple[ListView, ...], lane: str
) -> ColumnsView:
    assert gather.reach is not None, "the list is one of columns"
    return ColumnsView(
        comment(gather.origin),
        LOOKUPS_A_TEST * order.index(program.inputs[gather.test]),
        scalar(gather.reach.start),
        scalar(gather.reach.stop),
        vector_mask(gather.live, lane, of_tile=lane == "i"),
        _lets(program, names_read((), (gather,))),
        _picks(program, order, _asked([gather.live])),
        tuple(view for view in lists if view.ordinal in lists_in(gather.live)),
    )


def _own_keys(program: TileProgram, order: tuple[InputTest, ...], lists: tuple[ListView, ...]) -> OwnKeysView:
    own = [gather for gather in program.gathers if gather.reach is None]
    tests = [gather.live for gather in own]
    tested = frozenset[int]().union(*(lists_in(test) for test in tests))
    return OwnKeysView(
        tuple(
            GatherView(comment(gather.origin), gather.test, vector_mask(gather.live, "j", of_tile=False), kept)
            for gather in own
            for kept in (program.inputs[gather.test].asks is Asks.KEPT,)
        ),
        _picks(program, order, _asked(tests) | {gather.test for gather in own}),
        tuple(view for view in lists if view.ordinal in tested),
    )


def _conditions(program: TileProgram) -> list[Bool]:
    """Those that the segments read."""
    segments = [segment.when for segment in (*program.full, *program.masked)]
    return [*segments, program.live] if program.masked else segments


def _asked(conditions: list[Bool]) -> frozenset[int]:
    """The tests of inputs that the conditions name."""
    return frozenset(pick.ordinal for test in conditions for pick in picks_in(test))


def with_own_keys(c: HeadClass, view: ClassView, order: tuple[InputTest, ...]) -> ClassView:
    """The view of a class whose tiles and whose rows' own keys are found by one function."""
    asked = frozenset(pick.ordinal for pick in (*view.picks, *view.own.picks))
    return replace(view, picks=_picks(c.program, order, asked))


def with_kept_tiles(c: HeadClass, view: ClassView, order: tuple[InputTest, ...]) -> ClassView:
    """The view of a class whose query tiles take the keys of the cache's list as they take tiles of keys, but where
    draws say which."""
    if view.own.draws:
        return view
    kept = [gather for gather in c.program.gathers if c.program.inputs[gather.test].asks is Asks.KEPT]
    asked = _asked([gather.live for gather in kept]) | {pick.ordinal for pick in view.picks}
    asked |= {gather.test for gather in kept}
    own = tuple(gather for gather in view.own.gathers if not gather.kept)
    return replace(
        view,
        picks=_picks(c.program, order, asked),
        own=replace(view.own, gathers=own),
        kept=tuple(GatherView(comment(each.origin), each.test, vector_mask(each.live), kept=True) for each in kept),
    )


def _picks(program: TileProgram, order: tuple[InputTest, ...], asked: frozenset[int]) -> tuple[PickView, ...]:
    return tuple(
        PickView(n, view_of(program.inputs[n]).type, LOOKUPS_A_TEST * order.index(program.inputs[n]))
        for n in sorted(asked)
    )


def pack_views(plan: KernelPlan) -> tuple[str, ...]:
    """Initialisers of the packs of a plan's heads, in the order of their first heads."""
    found = [pack for _, pack in _packs_of(plan)]
    return _pack_views(sorted(found), plan.share)


def packs_by_kind(plan: KernelPlan) -> tuple[tuple[str, ...], str]:
    """Initialisers of the packs, those that see the same keys side by side, and of their kinds, in the order of the
    kinds' first heads."""
    kinds: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for kind, pack in sorted(_packs_of(plan), key=lambda found: found[1]):
        kinds.setdefault(kind, []).append(pack)
    found = [pack for packs_of_kind in kinds.values() for pack in packs_of_kind]
    numbers = [n for n, packs_of_kind in enumerate(kinds.values()) for _ in packs_of_kind]
    return _pack_views(found, plan.share), initialiser(numbers)


def _packs_of(plan: KernelPlan) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Of each pack its kind, the number of its class and the constants, and its heads."""
    return [
        ((n, *pack.row[1:]), pack.heads)
        for n, head_class in enumerate(plan.classes)
        for pack in packs(head_table(head_class), plan.share)
    ]


def _pack_views(found: Sequence[tuple[int, ...]], share: int) -> tuple[str, ...]:
    return tuple(initialiser((heads[0] // share, len(heads), initialiser(heads))) for heads in found)


def of_members(name: str, members: tuple[int, ...], values: tuple[int, ...], count: int) -> ConstantView:
    """The members' values as one for each of `count` heads or groups, 0 where there is none."""
    return ConstantView(name_of(name), initialiser(by_member(members, values, count)))


def _list(program: TileProgram, ordinal: int, table: int) -> ListView:
    spec = program.lists[ordinal]
    return ListView(
        ordinal=ordinal,
        table=repr(table),
        row=name_of(spec.lane_row),
        width=spec.width,
        block=scalar(x.floor_div(Var("i0"), Int(spec.block))),
        tile_block=scalar(x.floor_div(Var("tile"), Int(spec.block // program.key_tile))),
        size=spec.block,
    )


def _segment(segment: Segment, program: TileProgram, attend: str) -> SegmentView:
    entry = ""
    if segment.listed is not None:
        slot = scalar(x.floor_div(Var("n"), Int(program.lists[segment.listed].block // program.key_tile), nonneg=True))
        entry = f"draws_{segment.listed}[{slot}]"
    return SegmentView(
        origin=comment(segment.origin),
        count=scalar(segment.count),
        entry=entry,
        tile=scalar(segment.tile),
        when="" if segment.when == TRUE else condition(segment.when),
        attend=attend,
        asks=bool(picks_in(segment.when)),
    )


def comment(text: str) -> str:
    """`text` as the inside of a // comment: one line, ASCII, no trailing backslash, cut where it is long."""
    return _UNSAFE.sub("_", text[:100]).rstrip()

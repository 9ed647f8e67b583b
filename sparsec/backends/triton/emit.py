"""Kernel plan -> the text of a Python module of Triton kernels, one a head class: the views that templates/triton read.

Invariant: every name in the text is one of this module's or has passed `checked_name`; every number is printed by
`repr(int)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from sparsec.backends.environment import render
from sparsec.backends.triton.emit_columns import column_loops, of_columns, program_of_list, tile_inputs, without_lists
from sparsec.backends.triton.emit_inputs import asked_view, gathers_view, is_asked, kept_view
from sparsec.backends.triton.emit_limits import live_lines
from sparsec.backends.triton.emit_pairs import KernelFrame, pair_lines
from sparsec.backends.triton.emit_splits import may_split, splits_view
from sparsec.backends.triton.expr import assignment
from sparsec.backends.triton.modifiers import rows_view, score_view, start_view
from sparsec.backends.triton.sources import with_functions
from sparsec.backends.triton.view import GroupsView, KernelView, ListView, LoopView, ModuleView, SegmentView
from sparsec.ir.expr.fold import lists_in, picks_in
from sparsec.ir.expr.nodes import TRUE, Add, Bool, Expr, Sub, Var
from sparsec.ir.expr.scalars import NK
from sparsec.ir.expr.simplify import at_most, both, less
from sparsec.ir.tiles.program import ListSpec, Segment, TileProgram
from sparsec.plan.heads import ColumnChunk, group_spans, share_a_group, source_chunks
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan
from sparsec.plan.list_shapes import column_stages
from sparsec.plan.target import CHAINED_SEGMENTS, exact_columns
from sparsec.sema.model import Documents

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OWN_NAME = re.compile(r"[a-z][a-z_]*(?<!_)[0-9]+")
"""Names that no template uses, but for these: theirs end in a letter or in `_<number>`."""
_TEMPLATE_NAMES = ("i0", "i1", "j0", "j1", "q0")
_ORIGIN = re.compile(r"[A-Za-z0-9_ ,.:=|&~()\[\]%*/+<>-]*")


def emit_triton(plan: KernelPlan, *, unsure: bool = False) -> str:
    """The source of the module whose kernels `forward_0`, `forward_1`, ... serve the classes of `plan`, in order.

    `unsure`: they compute only what other kernels with the same programs were not sure of.
    """
    view = replace(triton_view(plan), unsure=unsure)
    return with_functions(render("templates/triton/forward.py.jinja", view))


def emit_triton_backward(plan: BackwardPlan) -> str:
    """The source of the gradients' module.

    `row_sums` comes first, then `grad_queries_0`, ... for the classes of `plan.forward` and `grad_keys_0`, ... for
    those of `plan.transposed`.
    """
    view = module_view(plan.forward, "grad_queries", plan.transposed)
    return with_functions(render("templates/triton/backward.py.jinja", view))


def triton_view(plan: KernelPlan) -> ModuleView:
    return module_view(plan, "forward", ())


def module_view(plan: KernelPlan, name: str, transposed: tuple[HeadClass, ...], *, packed: bool = False) -> ModuleView:
    """The kernels are `<name>_0`, ... for the classes of `plan`, then `grad_keys_0`, ... for the transposed ones.

    `packed`: as of `KernelFrame.of`.
    """
    chunks, piece = source_chunks(plan.head_dim, plan.value_dim), exact_columns(decoding=name == "decode")
    summed = plan.head_dim if name == "grad_queries" else plan.value_dim
    most = max(plan.head_dim, plan.value_dim)
    return ModuleView(
        heads=plan.heads,
        kv_heads=plan.kv_heads,
        head_dim=plan.head_dim,
        value_dim=plan.value_dim,
        group_size=_share(plan),
        score=score_view(plan),
        start=start_view(plan),
        rows=rows_view(plan),
        documents=plan.documents.name.lower(),
        accumulate=share_a_group((head_class.heads for head_class in transposed), _share(plan)),
        chunks=chunks,
        key_columns=_columns(chunks["keys"], plan.head_dim),
        value_columns=_columns(chunks["values"], plan.value_dim),
        kernels=tuple(
            _kernel(plan, f"{name}_{n}", head_class, query_side(plan.documents), None, piece, summed, packed=packed)
            for n, head_class in enumerate(plan.classes)
        ),
        key_kernels=tuple(
            _kernel(
                plan,
                f"grad_keys_{n}",
                head_class,
                _key_side(plan, walks=may_split(plan, head_class)),
                _groups(plan, head_class),
                piece,
                most,
            )
            for n, head_class in enumerate(transposed)
        ),
    )


def _share(plan: KernelPlan) -> int:
    """Query heads of a KV group."""
    return plan.heads // plan.kv_heads


def _columns(chunks: tuple[ColumnChunk, ...], dim: int) -> str:
    """Of each chunk the first column, the width, and one past the last column that exists, if that is cut off."""
    parts = [f"({chunk.first}, {chunk.width}, {dim if chunk.cut else None})" for chunk in chunks]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _groups(plan: KernelPlan, head_class: HeadClass) -> GroupsView:
    spans = group_spans(head_class.heads, _share(plan))
    first = spans[0][0]
    whole = all(count == _share(plan) for _, _, count in spans)
    return GroupsView(
        len(spans), first if whole and [span[0] for span in spans] == list(range(first, first + len(spans))) else None
    )


@dataclass(frozen=True, slots=True)
class Side:
    """What a kernel calls its tile program's inputs.

    `inside` tells of a column, named `column`, that it exists; `first` is the first one of a tile.
    """

    names: dict[str, str]
    inside: Bool
    column: str
    first: str
    zeros: bool = False
    """What is outside adds nothing."""
    walks: bool = False
    """A program goes over some of the columns alone."""


def query_side(documents: Documents) -> Side:
    """Rows are queries, columns keys."""
    match documents:
        case Documents.NONE:
            return Side({"i0": "i0", "i1": "i1", "nk": "nk"}, less(Var("j"), NK), "j", "start")
        case Documents.SEPARATE:
            names = {name: name for name in ("i0", "i1", "nk", "begin", "end")}
            inside = both(at_most(Var("begin"), Var("j")), less(Var("j"), Var("end")))
            return Side(names, inside, "j", "start")
        case Documents.RESTART:
            return Side({"i0": "i0", "i1": "i1", "nk": "length"}, less(Var("j"), NK), "j", "start")
    assert_never(documents)


def _key_side(plan: KernelPlan, *, walks: bool = False) -> Side:
    """Rows are keys, columns queries.

    Those before or behind all queries need no test in the gradients: their rows are zeros, and so is what they add as
    long as it is finite.
    """
    documents = plan.documents
    of = "walk" if walks else "query"
    names = {"j0": "j0", "j1": "j1", "base": "base", "begin": f"{of}_begin", "end": f"{of}_end"}
    names |= {name: name for name in ("query_begin", "query_end")}
    names["nk"] = "length" if documents is Documents.RESTART else "nk"
    ends = [Add(Var("base"), Var(end)) for end in ("query_begin", "query_end")]
    inside = both(at_most(ends[0], Var("i")), less(Var("i"), ends[1]))
    zeros = documents is Documents.NONE and plan.score.bias is None
    return Side(names, inside, "i", "(base + start)", zeros, walks)


def _kernel(
    plan: KernelPlan,
    name: str,
    head_class: HeadClass,
    side: Side,
    groups: GroupsView | None,
    piece: int,
    summed: int,
    listed: str | None = None,
    *,
    packed: bool = False,
) -> KernelView:
    """`listed`: the list of columns whose keys are meant, by the number of its arguments."""
    whole = head_class.program
    program = whole if groups is None else without_lists(whole)
    frame = KernelFrame.of(plan, program, of_keys=groups is not None, listed=listed is not None, packed=packed)
    names = side.names | {name: checked_name(name) for name, _ in head_class.constants}
    let_lines: list[str] = []
    for let in program.lets:
        checked = checked_name(let.name)
        let_lines.extend(assignment(checked, let.value, names))
        names[let.name] = checked
    heads = head_class.heads
    contiguous = heads == tuple(range(heads[0], heads[0] + len(heads)))
    lists = tuple(_list(n, spec, program.key_tile, names) for n, spec in enumerate(program.lists))
    of_inputs, keeps = (plan.inputs, frame, plan.heads), plan.score.bias is not None
    tests = tuple(pair_lines(picks_in(program.live), program, plan.inputs, frame, of_tile=True))
    attempts = 3 * -(-summed // piece)
    of_lists = []
    for gather in of_columns(whole) if groups is not None else ():
        alone = replace(head_class, program=program_of_list(whole, gather))
        g = str(plan.inputs.index(whole.inputs[gather.test]))
        of_lists.append(_kernel(plan, f"gather_{name}_{g}", alone, _key_side(plan), groups, piece, summed, g))
    return KernelView(
        name=name,
        origins=tuple(_checked_origin(origin) for origin in head_class.origins if origin),
        heads=len(heads),
        first_head=heads[0] if contiguous else None,
        groups=groups,
        constants=tuple((name, column) for column, (name, _) in enumerate(head_class.constants, start=1)),
        columns=1 + len(head_class.constants),
        query_tile=program.query_tile,
        key_tile=program.key_tile,
        let_lines=tuple(let_lines),
        lists=lists,
        full=loop_view("full", program.full, program, names, lists, side, keeps=keeps),
        masked=loop_view("masked", program.masked, program, names, lists, side, tests, keeps=keeps),
        piece=piece,
        attempts=attempts,
        number=int(name.rpartition("_")[2]),
        inputs=tile_inputs(program, *of_inputs),
        asked=asked_view(program, names, lists, *of_inputs),
        gathers=gathers_view(whole, names, lists, *of_inputs, keeps=keeps),
        kept=kept_view(name, piece, attempts, whole, names, lists, *of_inputs, keeps=keeps),
        column_loops=column_loops(
            *(program, names, lists, plan.inputs, replace(frame, listed=True), plan.heads),
            keeps=keeps,
            stages=column_stages(max(plan.head_dim, plan.value_dim), plan.dtype),
        ),
        column_kernels=tuple(of_lists),
        listed=listed,
        splits=splits_view(program, names) if side.walks else None,
    )


def _list(ordinal: int, spec: ListSpec, key_tile: int, names: Mapping[str, str]) -> ListView:
    padded = 1 << (spec.width - 1).bit_length()
    shift = spec.block.bit_length() - 1
    return ListView(ordinal, spec.width, padded, shift, spec.block // key_tile, names[spec.lane_row])


def loop_view(
    kind: str,
    segments: tuple[Segment, ...],
    program: TileProgram,
    names: Mapping[str, str],
    lists: tuple[ListView, ...],
    side: Side,
    pairs: tuple[str, ...] = (),
    *,
    keeps: bool = False,
) -> LoopView:
    """`pairs`: lines that set `pair_<n>`. `keeps`: `kept` tells which keys are seen at all."""
    views: list[SegmentView] = []
    end = "0"
    asked = [segment for segment in segments if is_asked(segment)]
    segments = tuple(segment for segment in segments if segment not in asked)
    runs = tuple(p for p in segments if p.contiguous and p.when == TRUE)
    if len(runs) > CHAINED_SEGMENTS:
        view, end = _runs(kind, runs, names)
        views.append(view)
        segments = tuple(p for p in segments if p not in runs)
    for n, segment in enumerate(segments, start=len(views)):
        first, end = end, f"{kind}_end_{n}"
        if n == 0:
            count_lines = list(assignment(end, segment.count, names))
        else:
            count_lines = list(assignment(end, Add(Var(first), segment.count), {**names, first: first}))
        lines = tuple(_segment_lines(segment, n, program, names, lists))
        views.append(SegmentView(_checked_origin(segment.origin), tuple(count_lines), first, lines))
    for segment in asked:
        view, end = _found(kind, len(views), segment, end)
        views.append(view)
    skips = any(segment.when != TRUE for segment in segments)
    if kind == "full" and keeps:
        return LoopView(tuple(views), end, True, skips, (), (f"live = kept{' & (start < nk)' if skips else ''}",))
    if kind == "full":
        return LoopView(tuple(views), end, False, skips, (), ())
    lookups = tuple(
        line for n in sorted(lists_in(program.live)) for line in listed_lines(lists[n], "tile", program, names)
    )
    lookups += pairs
    width = program.key_tile if side.column == "j" else program.query_tile
    inside = TRUE if side.zeros and program.live != TRUE else side.inside
    test = live_lines(program.live, inside, side.column, width, names, side.first)
    also = ("live = live & kept",) if keeps else ()
    return LoopView(tuple(views), end, True, skips, lookups, (*test, *also))


def _found(kind: str, n: int, segment: Segment, first: str) -> tuple[SegmentView, str]:
    """The tiles that a kernel before has found: the full ones from the front of its list, the masked from its back."""
    end, at = f"{kind}_end_{n}", "n" if kind == "full" else "visits_row - 3 - n"
    count = f"tl.load(visits_at + {int(kind != 'full')})"
    load = f"tl.load(visits_at + 2 + {at}, mask=n >= 0, other=0)"
    lines = [f"tile = {load}"] if n == 0 else [f"candidate = {load}", "tile = tl.where(n >= 0, candidate, tile)"]
    counts = (f"{end} = {count}" if n == 0 else f"{end} = {first} + {count}",)
    return SegmentView(_checked_origin(segment.origin), counts, first, tuple(lines)), end


def _runs(kind: str, segments: tuple[Segment, ...], names: Mapping[str, str]) -> tuple[SegmentView, str]:
    """Many contiguous segments as one: vectors of their first iterations and of how far the tiles jump there.

    A chain of comparisons would hold two registers a segment through the loop.
    """
    padded = 1 << (len(segments) - 1).bit_length()
    slots, firsts, jumps, end = f"{kind}_slots", f"{kind}_firsts", f"{kind}_jumps", "0"
    lines = [f"{slots} = tl.arange(0, {padded})"]
    lines += [f"{name} = tl.zeros([{padded}], tl.int32)" for name in (firsts, jumps)]
    scope = {**names, "n": "0"}
    for n, segment in enumerate(segments):
        if segment.origin:
            lines.append(f"# {_checked_origin(segment.origin)}")
        before, past, at = end, f"{kind}_run_{n}", f"{kind}_at_{n}"
        scope |= {before: before}
        start = _first_tile(segment.tile)
        if n == 0:
            lines += assignment(at, start, scope)
            lines.append(f"{jumps} = tl.where({slots} == 0, {at}, {jumps})")
            lines += assignment(past, segment.count, names)
        else:
            lines += assignment(at, Sub(start, Var(before)), scope)
            lines.append(f"{jumps} = tl.where({slots} == {n}, {at} - {kind}_at_{n - 1}, {jumps})")
            lines.append(f"{firsts} = tl.where({slots} == {n}, {before}, {firsts})")
            lines += assignment(past, Add(Var(before), segment.count), scope)
        end = past
    return SegmentView("", tuple(lines), "0", (f"tile = n + tl.sum(tl.where(n >= {firsts}, {jumps}, 0), 0)",)), end


def _first_tile(tile: Expr) -> Expr:
    """A contiguous segment's tile for n = 0, which the names give where n is not simply added."""
    match tile:
        case Add(start, Var("n")) | Add(Var("n"), start):
            return start
    return tile


def _segment_lines(
    segment: Segment, ordinal: int, program: TileProgram, names: Mapping[str, str], lists: tuple[ListView, ...]
) -> list[str]:
    """Lines that set `tile` if `n`, the iteration's number within the segment, is at least 0."""
    lines: list[str] = []
    names = {**names, "n": "n"}
    if segment.listed is not None:
        view = lists[segment.listed]
        slot = "n" if view.tiles == 1 else f"n // {view.tiles}"
        lines.append(f"entry = tl.sum(tl.where(slots_{view.ordinal} == {slot}, draws_row_{view.ordinal}, 0), 0)")
        names["entry"] = "entry"
    target = "tile" if ordinal == 0 else "candidate"
    lines.extend(assignment(target, segment.tile, names))
    if segment.when != TRUE:
        for n in sorted(lists_in(segment.when)):
            lines.extend(listed_lines(lists[n], target, program, names))
        lines.extend(assignment("wanted", segment.when, {**names, "tile": target}))
        lines.append(f"{target} = tl.where(wanted, {target}, past_end)")
    if ordinal > 0:
        lines.append("tile = tl.where(n >= 0, candidate, tile)")
    return lines


def listed_lines(view: ListView, tile: str, program: TileProgram, names: Mapping[str, str]) -> list[str]:
    """Set `listed_<ordinal>`: whether the key block is among the query block's draws; `tile` gives one of the two."""
    n = view.ordinal
    if "j0" not in names:
        block = tile if view.tiles == 1 else f"{tile} // {view.tiles}"
        return [f"listed_{n} = tl.max((draws_row_{n} == {block}).to(tl.int32), 0) > 0"]
    return [
        f"row_{n} = ((base + {tile} * {program.query_tile}) >> {view.shift}) - block_from_{n}",
        f"row_{n} = tl.minimum(tl.maximum(row_{n}, 0), blocks_{n} - 1).to(tl.int64) * {view.width}",
        f"drawn_{n} = tl.load(draws_at_{n} + row_{n} + slots_{n}, mask=slots_{n} < {view.width}, other=-1)",
        f"listed_{n} = tl.max((drawn_{n} == j0 >> {view.shift}).to(tl.int32), 0) > 0",
    ]


def checked_name(name: str) -> str:
    """A planner's name; one that the templates may use themselves gets an underscore. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name that a kernel may hold")
    return name if _OWN_NAME.fullmatch(name) and name not in _TEMPLATE_NAMES else f"{name}_"


def _checked_origin(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{origin!r} is no comment that a kernel may hold")
    return origin[:100].rstrip()

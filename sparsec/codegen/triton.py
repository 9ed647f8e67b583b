"""Kernel plan -> the text of a Python module of Triton kernels, one a head class: the views that templates/triton read.

Invariant: every name in the text is one of this module's or has passed `_checked_name`; every number is printed by
`repr(int)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from sparsec.codegen.environment import render
from sparsec.codegen.triton_expr import assignment
from sparsec.ir.expr import TRUE, ZERO, Add, And, Bool, Less, Listed, Not, Or, Sub, Truth, Var
from sparsec.ir.tiles import ListSpec, Piece, TileProgram
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan
from sparsec.sema.model import Documents

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OWN_NAME = re.compile(r"[a-z][a-z_]*(?<!_)[0-9]+")
"""Names that no template uses, but for these: theirs end in a letter or in `_<number>`."""
_TEMPLATE_NAMES = ("i0", "i1", "j0", "j1", "q0")
_CHAINED = 4
"""Contiguous pieces of a loop that are told apart by a chain of comparisons; more go through a vector."""
_ORIGIN = re.compile(r"[A-Za-z0-9_ ,.:=|&~()\[\]%*/+<>-]*")


@dataclass(frozen=True, slots=True)
class PieceView:
    """One piece of a loop: `lines` set `tile` for the trips from `first` on."""

    origin: str
    count_lines: tuple[str, ...]
    first: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoopView:
    """All full or all masked tiles; `total` names the number of trips; `skips`: some trips go past the last tile."""

    pieces: tuple[PieceView, ...]
    total: str
    masked: bool
    skips: bool
    lookup_lines: tuple[str, ...]
    """Lines that set `listed_<n>` for the tile at hand."""
    test_lines: tuple[str, ...]
    """Lines that set `live`; none in the loop of full tiles."""


@dataclass(frozen=True, slots=True)
class ListView:
    """A list of draws: `width` of them padded to a power of two, blocks of 2**shift tokens, `tiles` key tiles each."""

    ordinal: int
    width: int
    padded: int
    shift: int
    tiles: int
    lane_row: str


@dataclass(frozen=True, slots=True)
class ChunkView:
    """Columns first .. first + width - 1 of the head dimension; `cut` if some lie beyond it."""

    index: int
    first: int
    width: int
    cut: bool


@dataclass(frozen=True, slots=True)
class GroupsView:
    """The KV groups of a class: first, first + 1, ..., each with all its heads; None: those of the table of spans."""

    count: int
    first: int | None


@dataclass(frozen=True, slots=True)
class KernelView:
    """One class's kernel, for query tiles or (then it has `groups`) for key tiles."""

    name: str
    origins: tuple[str, ...]
    heads: int
    first_head: int | None
    """The class's heads are first_head, first_head + 1, ...; None: they stand in the table's first column."""
    groups: GroupsView | None
    constants: tuple[tuple[str, int], ...]
    """(name, column of the head table)."""
    columns: int
    query_tile: int
    key_tile: int
    let_lines: tuple[str, ...]
    lists: tuple[ListView, ...]
    full: LoopView
    masked: LoopView


@dataclass(frozen=True, slots=True)
class ModuleView:
    """`kernels` go over query tiles; `key_kernels`, of the gradients alone, over key tiles."""

    heads: int
    kv_heads: int
    head_dim: int
    bits: str
    """Triton's integer type of the elements' width."""
    group_size: int
    softcap: bool
    series: bool
    """The softcap's tanh is accurate near 0, for float32."""
    alibi: bool
    sink: bool
    documents: str
    """`none`, `separate` or `restart`."""
    accumulate: bool
    """The heads of some KV group lie in several classes, whose gradients of keys and values are added up."""
    chunks: tuple[ChunkView, ...]
    kernels: tuple[KernelView, ...]
    key_kernels: tuple[KernelView, ...]


def emit_triton(plan: KernelPlan) -> str:
    """The source of the module whose kernels `forward_0`, `forward_1`, ... serve the classes of `plan`, in order."""
    return render("templates/triton/forward.py.jinja", triton_view(plan))


def emit_triton_backward(plan: BackwardPlan) -> str:
    """The source of the gradients' module.

    `row_sums` comes first, then `grad_queries_0`, ... for the classes of `plan.forward` and `grad_keys_0`, ... for
    those of `plan.transposed`.
    """
    return render("templates/triton/backward.py.jinja", _view(plan.forward, "grad_queries", plan.transposed))


def triton_view(plan: KernelPlan) -> ModuleView:
    return _view(plan, "forward", ())


def adds_up(plan: BackwardPlan) -> bool:
    """Whether the heads of some KV group lie in several transposed classes."""
    share = plan.forward.heads // plan.forward.kv_heads
    groups = [group for head_class in plan.transposed for group in {head // share for head in head_class.heads}]
    return len(groups) > len(set(groups))


def _view(plan: KernelPlan, name: str, transposed: tuple[HeadClass, ...]) -> ModuleView:
    return ModuleView(
        heads=plan.heads,
        kv_heads=plan.kv_heads,
        head_dim=plan.head_dim,
        bits="int32" if plan.dtype == "float32" else "int16",
        group_size=plan.heads // plan.kv_heads,
        softcap=plan.softcap is not None,
        series=plan.softcap is not None and plan.dtype == "float32",
        alibi=plan.alibi,
        sink=plan.learned_sink,
        documents=plan.documents.name.lower(),
        accumulate=adds_up(BackwardPlan(plan, transposed)),
        chunks=head_dim_chunks(plan.head_dim),
        kernels=tuple(
            _kernel(f"{name}_{n}", head_class, _query_side(plan.documents), None)
            for n, head_class in enumerate(plan.classes)
        ),
        key_kernels=tuple(
            _kernel(f"grad_keys_{n}", head_class, _key_side(plan.documents), _groups(plan, head_class))
            for n, head_class in enumerate(transposed)
        ),
    )


def head_dim_chunks(head_dim: int) -> tuple[ChunkView, ...]:
    """Powers of two that cover `head_dim` with little waste: 96 = 64 + 32; the narrowest, 16, may reach beyond it."""
    chunks: list[ChunkView] = []
    first = 0
    while first < head_dim:
        left = head_dim - first
        width = max(16, 1 << (left.bit_length() - 1))
        chunks.append(ChunkView(len(chunks), first, width, first + width > head_dim))
        first += width
    return tuple(chunks)


def head_table(head_class: HeadClass) -> tuple[tuple[int, ...], ...]:
    """The kernel's table, one row a head of the class: the head, then its constants in order."""
    return tuple((head, *(values[n] for _, values in head_class.constants)) for n, head in enumerate(head_class.heads))


def group_spans(plan: KernelPlan, head_class: HeadClass) -> tuple[tuple[int, int, int], ...]:
    """The KV groups of a class: (group, its first row in the head table, number of its heads in the class)."""
    share = plan.heads // plan.kv_heads
    groups = [head // share for head in head_class.heads]
    assert groups == sorted(groups), "the heads of a class ascend"
    return tuple((group, groups.index(group), groups.count(group)) for group in dict.fromkeys(groups))


def _groups(plan: KernelPlan, head_class: HeadClass) -> GroupsView:
    spans = group_spans(plan, head_class)
    first = spans[0][0]
    whole = all(count == plan.heads // plan.kv_heads for _, _, count in spans)
    return GroupsView(
        len(spans), first if whole and [span[0] for span in spans] == list(range(first, first + len(spans))) else None
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """What a kernel calls its tile program's inputs; `inside` tells of a column that it exists."""

    names: dict[str, str]
    inside: str


def _query_side(documents: Documents) -> _Side:
    """Rows are queries, columns keys."""
    match documents:
        case Documents.NONE:
            return _Side({"i0": "i0", "i1": "i1", "nk": "nk"}, "j < nk")
        case Documents.SEPARATE:
            names = {name: name for name in ("i0", "i1", "nk", "begin", "end")}
            return _Side(names, "(j >= begin) & (j < end)")
        case Documents.RESTART:
            return _Side({"i0": "i0", "i1": "i1", "nk": "length"}, "j < length")
    assert_never(documents)


def _key_side(documents: Documents) -> _Side:
    """Rows are keys, columns queries."""
    names = {"j0": "j0", "j1": "j1", "base": "base", "begin": "query_begin", "end": "query_end"}
    return _Side({**names, "nk": "length" if documents is Documents.RESTART else "nk"}, "present[None, :]")


def _kernel(name: str, head_class: HeadClass, side: _Side, groups: GroupsView | None) -> KernelView:
    program = head_class.program
    names = side.names | {name: _checked_name(name) for name, _ in head_class.constants}
    let_lines: list[str] = []
    for let in program.lets:
        checked = _checked_name(let.name)
        let_lines.extend(assignment(checked, let.value, names))
        names[let.name] = checked
    heads = head_class.heads
    contiguous = heads == tuple(range(heads[0], heads[0] + len(heads)))
    lists = tuple(_list(n, spec, program.key_tile, names) for n, spec in enumerate(program.lists))
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
        full=_loop("full", program.full, program, names, lists, side),
        masked=_loop("masked", program.masked, program, names, lists, side),
    )


def _list(ordinal: int, spec: ListSpec, key_tile: int, names: Mapping[str, str]) -> ListView:
    padded = 1 << (spec.width - 1).bit_length()
    shift = spec.block.bit_length() - 1
    return ListView(ordinal, spec.width, padded, shift, spec.block // key_tile, names[spec.lane_row])


def _loop(
    kind: str,
    pieces: tuple[Piece, ...],
    program: TileProgram,
    names: Mapping[str, str],
    lists: tuple[ListView, ...],
    side: _Side,
) -> LoopView:
    views: list[PieceView] = []
    end = "0"
    runs = tuple(p for p in pieces if p.contiguous and p.when == TRUE)
    if len(runs) > _CHAINED:
        view, end = _runs(kind, runs, names)
        views.append(view)
        pieces = tuple(p for p in pieces if p not in runs)
    for n, piece in enumerate(pieces, start=len(views)):
        first, end = end, f"{kind}_end_{n}"
        if n == 0:
            count_lines = list(assignment(end, piece.count, names))
        else:
            count_lines = list(assignment(end, Add(Var(first), piece.count), {**names, first: first}))
        lines = tuple(_piece_lines(piece, n, program, names, lists))
        views.append(PieceView(_checked_origin(piece.origin), tuple(count_lines), first, lines))
    skips = any(piece.when != TRUE for piece in pieces)
    if kind == "full":
        return LoopView(tuple(views), end, False, skips, (), ())
    lookups = tuple(
        line for n in sorted(_listed(program.live)) for line in listed_lines(lists[n], "tile", program, names)
    )
    if program.live == TRUE:
        return LoopView(tuple(views), end, True, skips, lookups, (f"live = {side.inside}",))
    test = assignment("allowed", program.live, {**names, "i": "i", "j": "j"})
    inside = f"({side.inside})" if side.inside.startswith("j") else side.inside
    return LoopView(tuple(views), end, True, skips, lookups, (*test, f"live = allowed & {inside}"))


def _runs(kind: str, pieces: tuple[Piece, ...], names: Mapping[str, str]) -> tuple[PieceView, str]:
    """Many contiguous pieces as one: vectors of their first trips and of how far the tiles jump there.

    A chain of comparisons would hold two registers a piece through the loop.
    """
    padded = 1 << (len(pieces) - 1).bit_length()
    slots, firsts, jumps, end = f"{kind}_slots", f"{kind}_firsts", f"{kind}_jumps", "0"
    lines = [f"{slots} = tl.arange(0, {padded})"]
    lines += [f"{name} = tl.zeros([{padded}], tl.int32)" for name in (firsts, jumps)]
    scope = dict(names)
    for n, piece in enumerate(pieces):
        if piece.origin:
            lines.append(f"# {_checked_origin(piece.origin)}")
        before, past, at = end, f"{kind}_run_{n}", f"{kind}_at_{n}"
        scope |= {before: before}
        start = piece.tile.left if isinstance(piece.tile, Add) else ZERO
        if n == 0:
            lines += assignment(at, start, scope)
            lines.append(f"{jumps} = tl.where({slots} == 0, {at}, {jumps})")
            lines += assignment(past, piece.count, names)
        else:
            lines += assignment(at, Sub(start, Var(before)), scope)
            lines.append(f"{jumps} = tl.where({slots} == {n}, {at} - {kind}_at_{n - 1}, {jumps})")
            lines.append(f"{firsts} = tl.where({slots} == {n}, {before}, {firsts})")
            lines += assignment(past, Add(Var(before), piece.count), scope)
        end = past
    return PieceView("", tuple(lines), "0", (f"tile = n + tl.sum(tl.where(n >= {firsts}, {jumps}, 0), 0)",)), end


def _piece_lines(
    piece: Piece, ordinal: int, program: TileProgram, names: Mapping[str, str], lists: tuple[ListView, ...]
) -> list[str]:
    """Lines that set `tile` if `n`, the trip's number within the piece, is at least 0."""
    lines: list[str] = []
    names = {**names, "n": "n"}
    if piece.listed is not None:
        view = lists[piece.listed]
        slot = "n" if view.tiles == 1 else f"n // {view.tiles}"
        lines.append(f"entry = tl.sum(tl.where(slots_{view.ordinal} == {slot}, draws_row_{view.ordinal}, 0), 0)")
        names["entry"] = "entry"
    target = "tile" if ordinal == 0 else "candidate"
    lines.extend(assignment(target, piece.tile, names))
    if piece.when != TRUE:
        for n in sorted(_listed(piece.when)):
            lines.extend(listed_lines(lists[n], target, program, names))
        lines.extend(assignment("wanted", piece.when, {**names, "tile": target}))
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


def _listed(condition: Bool) -> set[int]:
    match condition:
        case Listed(ordinal):
            return {ordinal}
        case And(a, b) | Or(a, b):
            return _listed(a) | _listed(b)
        case Not(a):
            return _listed(a)
        case Truth() | Less():
            return set()
    assert_never(condition)


def _checked_name(name: str) -> str:
    """A planner's name; one that the templates may use themselves gets an underscore. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name that a kernel may hold")
    return name if _OWN_NAME.fullmatch(name) and name not in _TEMPLATE_NAMES else f"{name}_"


def _checked_origin(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{origin!r} is no comment that a kernel may hold")
    return origin[:100].rstrip()

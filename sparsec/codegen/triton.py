"""Kernel plan -> the text of a Python module of Triton kernels, one a head class; expressions become Triton's.

Triton's `//` and `%` truncate; what is printed here rounds toward minus infinity, and no printed line is wider than
120 columns (longer expressions are cut into named parts). Invariant: every name in the text is one of this module's or
has passed `_checked_name`; every number is printed by `repr(int)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from sparsec.codegen.environment import render
from sparsec.ir.expr import (
    TRUE,
    Add,
    And,
    Bool,
    Expr,
    FloorDiv,
    Int,
    Less,
    Listed,
    Max,
    Min,
    Mod,
    Mul,
    Not,
    Or,
    Select,
    Sub,
    Truth,
    Var,
)
from sparsec.ir.tiles import ListSpec, Piece, TileProgram
from sparsec.plan.kernel import HeadClass, KernelPlan

_WIDTH = 80
"""An expression printed wider than this is cut: its widest operand gets a name of its own."""

_COMPARE, _OR, _AND, _SHIFT, _SUM, _PRODUCT, _ATOM = range(7)
"""How tightly a printed expression binds, in Python's order."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OWN_NAME = re.compile(r"[a-z][a-z_]*(?<!_)[0-9]+")
"""Names that no template uses, but for i0, i1 and q0: theirs end in a letter or in `_<number>`."""
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
    """All full or all masked tiles; `total` names the number of trips; `skips`: some trips go past the last key."""

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
class KernelView:
    name: str
    origins: tuple[str, ...]
    heads: int
    first_head: int | None
    """The class's heads are first_head, first_head + 1, ...; None: they stand in the table's first column."""
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
    heads: int
    head_dim: int
    bits: str
    """Triton's integer type of the elements' width."""
    group_size: int
    chunks: tuple[ChunkView, ...]
    kernels: tuple[KernelView, ...]


def emit_triton(plan: KernelPlan) -> str:
    """The source of the module whose kernels `forward_0`, `forward_1`, ... serve the classes of `plan`, in order."""
    return render("templates/triton/forward.py.jinja", triton_view(plan))


def triton_view(plan: KernelPlan) -> ModuleView:
    return ModuleView(
        heads=plan.heads,
        head_dim=plan.head_dim,
        bits="int32" if plan.dtype == "float32" else "int16",
        group_size=plan.heads // plan.kv_heads,
        chunks=head_dim_chunks(plan.head_dim),
        kernels=tuple(_kernel(ordinal, head_class) for ordinal, head_class in enumerate(plan.classes)),
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


def _kernel(ordinal: int, head_class: HeadClass) -> KernelView:
    program = head_class.program
    names = {name: name for name in ("i0", "i1", "nk")}
    names |= {name: _checked_name(name) for name, _ in head_class.constants}
    let_lines: list[str] = []
    for let in program.lets:
        name = _checked_name(let.name)
        let_lines.extend(assignment(name, let.value, names))
        names[let.name] = name
    heads = head_class.heads
    contiguous = heads == tuple(range(heads[0], heads[0] + len(heads)))
    lists = tuple(_list(n, spec, program.key_tile, names) for n, spec in enumerate(program.lists))
    return KernelView(
        name=f"forward_{ordinal}",
        origins=tuple(_checked_origin(origin) for origin in head_class.origins if origin),
        heads=len(heads),
        first_head=heads[0] if contiguous else None,
        constants=tuple((name, column) for column, (name, _) in enumerate(head_class.constants, start=1)),
        columns=1 + len(head_class.constants),
        query_tile=program.query_tile,
        key_tile=program.key_tile,
        let_lines=tuple(let_lines),
        lists=lists,
        full=_loop("full", program.full, program, names, lists),
        masked=_loop("masked", program.masked, program, names, lists),
    )


def _list(ordinal: int, spec: ListSpec, key_tile: int, names: Mapping[str, str]) -> ListView:
    padded = 1 << (spec.width - 1).bit_length()
    shift = spec.block.bit_length() - 1
    return ListView(ordinal, spec.width, padded, shift, spec.block // key_tile, names[spec.lane_row])


def _loop(
    kind: str, pieces: tuple[Piece, ...], program: TileProgram, names: Mapping[str, str], lists: tuple[ListView, ...]
) -> LoopView:
    views: list[PieceView] = []
    end = "0"
    for n, piece in enumerate(pieces):
        first, end = end, f"{kind}_end_{n}"
        if n == 0:
            count_lines = list(assignment(end, piece.count, names))
        else:
            count_lines = list(assignment(end, Add(Var(first), piece.count), {**names, first: first}))
        lines = tuple(_piece_lines(piece, n, names, lists))
        views.append(PieceView(_checked_origin(piece.origin), tuple(count_lines), first, lines))
    skips = any(piece.when != TRUE for piece in pieces)
    if kind == "full":
        return LoopView(tuple(views), end, False, skips, (), ())
    lookups = tuple(listed_line(lists[ordinal], "tile") for ordinal in sorted(_listed(program.live)))
    if program.live == TRUE:
        return LoopView(tuple(views), end, True, skips, lookups, ("live = j < nk",))
    test = assignment("allowed", program.live, {**names, "i": "i", "j": "j"})
    return LoopView(tuple(views), end, True, skips, lookups, (*test, "live = allowed & (j < nk)"))


def _piece_lines(piece: Piece, ordinal: int, names: Mapping[str, str], lists: tuple[ListView, ...]) -> list[str]:
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
        lines.extend(listed_line(lists[n], target) for n in sorted(_listed(piece.when)))
        lines.extend(assignment("wanted", piece.when, {**names, "tile": target}))
        lines.append(f"{target} = tl.where(wanted, {target}, past_end)")
    if ordinal > 0:
        lines.append("tile = tl.where(n >= 0, candidate, tile)")
    return lines


def listed_line(view: ListView, tile: str) -> str:
    """Sets `listed_<ordinal>` for the key tile `tile`."""
    block = tile if view.tiles == 1 else f"{tile} // {view.tiles}"
    n = view.ordinal
    return f"listed_{n} = tl.max((draws_row_{n} == {block}).to(tl.int32), 0) > 0"


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
    return name if _OWN_NAME.fullmatch(name) and name not in ("i0", "i1", "q0") else f"{name}_"


def _checked_origin(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{origin!r} is no comment that a kernel may hold")
    return origin[:100]


def assignment(name: str, value: Expr | Bool, names: Mapping[str, str]) -> tuple[str, ...]:
    """Lines of Python that set `name` to `value`; `names` gives the printed name of each variable."""
    lines: list[str] = []
    text, _ = _print(value, names, name, lines)
    return (*lines, f"{name} = {text}")


def _print(value: Expr | Bool, names: Mapping[str, str], name: str, lines: list[str]) -> tuple[str, int]:
    """The text of `value` and how tightly it binds; where it grows wide, operands go to `lines` as parts of `name`."""

    def build(form: str, binds: int, *operands: tuple[Expr | Bool, int]) -> tuple[str, int]:
        printed = [_print(operand, names, name, lines) for operand, _ in operands]
        texts = [
            text if tightness >= level else f"({text})"
            for (text, tightness), (_, level) in zip(printed, operands, strict=True)
        ]
        while len(form.format(*texts)) > _WIDTH:
            widest = max(range(len(texts)), key=lambda n: len(texts[n]))
            part = f"{name}_part_{len(lines)}"
            lines.append(f"{part} = {printed[widest][0]}")
            texts[widest] = part
        return form.format(*texts), binds

    match value:
        case Int(number):
            return repr(int(number)), _ATOM if number >= 0 else _SHIFT
        case Var(variable):
            return names[variable], _ATOM
        case Add(a, b):
            return build("{} + {}", _SUM, (a, _SUM), (b, _PRODUCT))
        case Sub(a, b):
            return build("{} - {}", _SUM, (a, _SUM), (b, _PRODUCT))
        case Mul(a, b):
            return build("{} * {}", _PRODUCT, (a, _PRODUCT), (b, _ATOM))
        case FloorDiv(a, Int(number)) if _is_power_of_two(number):
            return build(f"{{}} >> {number.bit_length() - 1}", _SHIFT, (a, _ATOM))
        case Mod(a, Int(number)) if _is_power_of_two(number):
            return build(f"{{}} & {number - 1}", _AND, (a, _ATOM))
        case FloorDiv(a, b, True):
            return build("{} // {}", _PRODUCT, (a, _PRODUCT), (b, _ATOM))
        case Mod(a, b, True):
            return build("{} % {}", _PRODUCT, (a, _PRODUCT), (b, _ATOM))
        case FloorDiv(a, b):
            return build("floor_div({}, {})", _ATOM, (a, _COMPARE), (b, _COMPARE))
        case Mod(a, b):
            return build("floor_mod({}, {})", _ATOM, (a, _COMPARE), (b, _COMPARE))
        case Min(a, b):
            return build("tl.minimum({}, {})", _ATOM, (a, _COMPARE), (b, _COMPARE))
        case Max(a, b):
            return build("tl.maximum({}, {})", _ATOM, (a, _COMPARE), (b, _COMPARE))
        case Select(condition, a, b):
            return build("tl.where({}, {}, {})", _ATOM, (condition, _COMPARE), (a, _COMPARE), (b, _COMPARE))
        case Truth(truth):
            return ("True" if truth else "False"), _ATOM
        case Less(a, b):
            return build("{} < {}", _COMPARE, (a, _OR), (b, _OR))
        case And(a, b):
            return build("{} & {}", _AND, (a, _AND), (b, _ATOM))
        case Or(a, b):
            return build("{} | {}", _OR, (a, _OR if isinstance(a, Or) else _ATOM), (b, _ATOM))
        case Listed(ordinal):
            return f"listed_{ordinal}", _ATOM
        case Not(operand):
            negated = _negated(operand)
            if negated is not None:
                return _print(negated, names, name, lines)
            if isinstance(operand, Less):
                return build("{} >= {}", _COMPARE, (operand.left, _OR), (operand.right, _OR))
            return build("{} == 0", _COMPARE, (operand, _OR))
    assert_never(value)


def _negated(condition: Bool) -> Bool | None:
    """`not condition` with the negation moved inward; None for a condition without an inside."""
    match condition:
        case Truth(truth):
            return Truth(not truth)
        case And(a, b):
            return Or(Not(a), Not(b))
        case Or(a, b):
            return And(Not(a), Not(b))
        case Not(a):
            return a
        case Less() | Listed():
            return None
    assert_never(condition)


def _is_power_of_two(number: int) -> bool:
    return number > 1 and number & (number - 1) == 0

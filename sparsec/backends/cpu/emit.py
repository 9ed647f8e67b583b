"""Kernel plan, forward or backward -> the frozen view that templates/cpu reads -> C++ text.

Invariant: the view holds integers, printed expressions, checked names, and origins reduced to harmless characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import accumulate
from math import log
from typing import assert_never

from sparsec.backends.cpu.expr import condition, mask, name_of, scalar
from sparsec.backends.environment import render
from sparsec.ir.expr import nodes as x
from sparsec.ir.expr.nodes import TRUE, And, Bool, Int, Less, Listed, Not, Or, Truth, Var
from sparsec.ir.tiles.program import ListSpec, Piece, TileProgram
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan

_SYMBOL = re.compile(r"[a-z][a-z0-9_]*\Z")
_UNSAFE = re.compile(r"[^A-Za-z0-9 .,:;|&~()\[\]<>=+*/%_-]")


@dataclass(frozen=True, slots=True)
class LetView:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class PieceView:
    """`entry` and `when` are empty where the piece has none."""

    origin: str
    count: str
    entry: str
    tile: str
    when: str


@dataclass(frozen=True, slots=True)
class ListView:
    """List `ordinal` of a class is table `table` of the call; `block` is the query's block, `tile_block` the key's."""

    ordinal: int
    table: str
    row: str
    width: int
    block: str
    tile_block: str


@dataclass(frozen=True, slots=True)
class ClassView:
    origins: tuple[str, ...]
    constants: tuple[tuple[str, tuple[int, ...]], ...]
    lets: tuple[LetView, ...]
    lists: tuple[ListView, ...]
    tests: tuple[ListView, ...]
    full: tuple[PieceView, ...]
    masked: tuple[PieceView, ...]
    live: str


@dataclass(frozen=True, slots=True)
class SlotClassView:
    """Heads, or KV groups, that share `slot`, an expression in j, stop, `constants` and the bases and capacities of
    `regions`; `constants` hold one integer a head or group."""

    constants: tuple[tuple[str, tuple[int, ...]], ...]
    regions: tuple[int, ...]
    slot: str


@dataclass(frozen=True, slots=True)
class SlotsView:
    """Where keys lie in a cache: `classes[class_of[n]]` for head or group n; a group has `regions` in the table."""

    regions: int
    class_of: tuple[int, ...]
    classes: tuple[SlotClassView, ...]


@dataclass(frozen=True, slots=True)
class CppView:
    """What the templates of templates/cpu print; `constants` hold one integer a head.

    `transposed`: the classes are those of key tiles. `lanes` says what lies in the lanes of a vector; `lane` and
    `other` are the variables of a mask that are a vector and a scalar. `softcap` is empty without one. Over a cache,
    `slots` says where the heads' keys lie and `stored` where a group's new keys go; `packs` are (group, heads).
    """

    symbol: str
    heads: int
    kv_heads: int
    head_dim: int
    dtype: str
    query_tile: int
    key_tile: int
    lists: int
    class_of_head: tuple[int, ...]
    classes: tuple[ClassView, ...]
    transposed: bool
    lanes: str
    lane: str
    other: str
    softcap: str
    alibi: bool
    slopes: tuple[str, ...]
    learned_sink: bool
    documents: str
    slots: SlotsView | None = None
    stored: SlotsView | None = None
    packs: tuple[tuple[int, tuple[int, ...]], ...] = ()


def emit_cpp(plan: KernelPlan, *, symbol: str = "sparsec") -> str:
    """C++17 source of the forward kernel, entry point `int <symbol>_forward(const sparsec_call*)`.

    Sources with different symbols may be joined into one translation unit.
    """
    return render("templates/cpu/forward.cpp.jinja", forward_view(plan, symbol))


def emit_cpp_backward(plan: BackwardPlan, *, symbol: str = "sparsec") -> str:
    """C++17 source of the gradients' kernel, entry point `int <symbol>_backward(const sparsec_backward_call*)`.

    Its tables of draws are those of the forward kernel, in the same order. It may be joined with other sources.
    """
    tables = _tables(plan.forward)
    classes = tuple(_transposed_class(c, plan.forward.heads, tables) for c in plan.transposed)
    return render(
        "templates/cpu/backward.cpp.jinja", _view(plan.forward, plan.transposed, classes, symbol, transposed=True)
    )


def forward_view(plan: KernelPlan, symbol: str, lane: str = "i") -> CppView:
    """The view of the plan's own classes; `lane` is the variable of a mask that is a vector."""
    first_table = accumulate((len(c.program.lists) for c in plan.classes), initial=0)
    classes = tuple(
        _class(c, plan.heads, tuple(_list(c.program, n, first + n) for n in range(len(c.program.lists))), lane)
        for c, first in zip(plan.classes, first_table, strict=False)
    )
    return _view(plan, plan.classes, classes, symbol, transposed=False)


def _view(
    plan: KernelPlan, of: tuple[HeadClass, ...], classes: tuple[ClassView, ...], symbol: str, *, transposed: bool
) -> CppView:
    if not _SYMBOL.match(symbol):
        raise ValueError(f"expected a symbol of lower-case letters, digits and _, got {symbol!r}")
    tiles = {(c.program.query_tile, c.program.key_tile) for c in of}
    if len(tiles) != 1:
        raise AssertionError(f"all head classes of a plan share one tile size, got {sorted(tiles)}")
    query_tile, key_tile = tiles.pop()
    class_of_head = {head: n for n, c in enumerate(of) for head in c.heads}
    return CppView(
        symbol=symbol,
        heads=plan.heads,
        kv_heads=plan.kv_heads,
        head_dim=plan.head_dim,
        dtype=plan.dtype,
        query_tile=query_tile,
        key_tile=key_tile,
        lists=sum(len(c.program.lists) for c in plan.classes),
        class_of_head=tuple(class_of_head[head] for head in range(plan.heads)),
        classes=classes,
        transposed=transposed,
        lanes="keys" if transposed else "queries",
        lane="j" if transposed else "i",
        other="i" if transposed else "j",
        softcap="" if plan.score.softcap is None else _real(plan.score.softcap),
        alibi=bool(plan.score.alibi),
        slopes=tuple(_real(slope / log(2)) for slope in plan.score.slopes(plan.heads)),
        learned_sink=plan.score.learned_sink,
        documents=plan.documents.value,
    )


def _real(value: float) -> str:
    return f"{float(value)!r}f"


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
    c: HeadClass, heads: int, tables: dict[tuple[int, int, int, tuple[int, int]], tuple[int, int]]
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
            )
        )
    return _class(replace(c, constants=tuple(constants.items())), heads, tuple(lists), lane="j")


def _class(c: HeadClass, heads: int, lists: tuple[ListView, ...], lane: str = "i") -> ClassView:
    program = c.program
    tests = [program.live, *(piece.when for piece in (*program.full, *program.masked))]
    tested = frozenset[int]().union(*(_tested(test) for test in tests))
    return ClassView(
        origins=tuple(comment(origin) for origin in c.origins),
        constants=tuple((name_of(name), by_member(c.heads, values, heads)) for name, values in c.constants),
        lets=tuple(LetView(name_of(let.name), scalar(let.value)) for let in program.lets),
        lists=lists,
        tests=tuple(view for view in lists if view.ordinal in tested),
        full=tuple(_piece(piece, program.lists, program.key_tile) for piece in program.full),
        masked=tuple(_piece(piece, program.lists, program.key_tile) for piece in program.masked),
        live=mask(program.live, lane),
    )


def by_member(members: tuple[int, ...], values: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The members' values as one for each of `count` heads or groups, 0 where there is none."""
    of_member = dict(zip(members, values, strict=True))
    return tuple(of_member.get(n, 0) for n in range(count))


def _list(program: TileProgram, ordinal: int, table: int) -> ListView:
    spec = program.lists[ordinal]
    return ListView(
        ordinal=ordinal,
        table=repr(table),
        row=name_of(spec.lane_row),
        width=spec.width,
        block=scalar(x.floor_div(Var("i0"), Int(spec.block))),
        tile_block=scalar(x.floor_div(Var("tile"), Int(spec.block // program.key_tile))),
    )


def _piece(piece: Piece, lists: tuple[ListSpec, ...], key_tile: int) -> PieceView:
    entry = ""
    if piece.listed is not None:
        slot = scalar(x.floor_div(Var("n"), Int(lists[piece.listed].block // key_tile), nonneg=True))
        entry = f"draws_{piece.listed}[{slot}]"
    return PieceView(
        origin=comment(piece.origin),
        count=scalar(piece.count),
        entry=entry,
        tile=scalar(piece.tile),
        when="" if piece.when == TRUE else condition(piece.when),
    )


def comment(text: str) -> str:
    """`text` as the inside of a // comment: one line, ASCII, no trailing backslash, cut where it is long."""
    return _UNSAFE.sub("_", text[:100]).rstrip()


def _tested(test: Bool) -> frozenset[int]:
    """The lists whose membership `test` asks for; they are conditions, never inside an integer."""
    match test:
        case Listed(ordinal):
            return frozenset((ordinal,))
        case And(a, b) | Or(a, b):
            return _tested(a) | _tested(b)
        case Not(a):
            return _tested(a)
        case Less() | Truth():
            return frozenset()
    assert_never(test)

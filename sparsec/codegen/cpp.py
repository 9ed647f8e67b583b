"""Kernel plan -> the frozen view that templates/cpu reads -> C++ text.

Invariant: the view holds integers, printed expressions, checked names, and origins reduced to harmless characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import assert_never

from sparsec.codegen.cpp_expr import condition, mask, name_of, scalar
from sparsec.codegen.environment import render
from sparsec.ir.expr import TRUE, And, Bool, Int, Less, Listed, Not, Or, Truth, Var, floor_div
from sparsec.ir.tiles import ListSpec, Piece
from sparsec.plan.kernel import HeadClass, KernelPlan

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
    """List `ordinal` of a class is table `table` of the call; `block` and `tile_block` the blocks of i0 and `tile`."""

    ordinal: int
    table: int
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
class CppView:
    """What templates/cpu/forward.cpp.jinja prints; `constants` hold one integer a head."""

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


def emit_cpp(plan: KernelPlan, *, symbol: str = "sparsec") -> str:
    """C++17 source of the forward kernel, entry point `int <symbol>_forward(const sparsec_call*)`.

    Sources with different symbols may be joined into one translation unit.
    """
    return render("templates/cpu/forward.cpp.jinja", cpp_view(plan, symbol))


def cpp_view(plan: KernelPlan, symbol: str) -> CppView:
    if not _SYMBOL.match(symbol):
        raise ValueError(f"expected a symbol of lower-case letters, digits and _, got {symbol!r}")
    tiles = {(c.program.query_tile, c.program.key_tile) for c in plan.classes}
    if len(tiles) != 1:
        raise AssertionError(f"all head classes of a plan share one tile size, got {sorted(tiles)}")
    query_tile, key_tile = tiles.pop()
    class_of_head = {head: n for n, c in enumerate(plan.classes) for head in c.heads}
    tables = [0]
    for c in plan.classes:
        tables.append(tables[-1] + len(c.program.lists))
    return CppView(
        symbol=symbol,
        heads=plan.heads,
        kv_heads=plan.kv_heads,
        head_dim=plan.head_dim,
        dtype=plan.dtype,
        query_tile=query_tile,
        key_tile=key_tile,
        lists=tables[-1],
        class_of_head=tuple(class_of_head[head] for head in range(plan.heads)),
        classes=tuple(_class(c, plan.heads, first) for c, first in zip(plan.classes, tables, strict=False)),
    )


def _class(c: HeadClass, heads: int, first_table: int) -> ClassView:
    program = c.program
    lists = tuple(_list(spec, n, first_table + n, program.key_tile) for n, spec in enumerate(program.lists))
    tests = [program.live, *(piece.when for piece in (*program.full, *program.masked))]
    tested = frozenset[int]().union(*(_tested(test) for test in tests))
    return ClassView(
        origins=tuple(comment(origin) for origin in c.origins),
        constants=tuple((name_of(name), _by_head(c.heads, values, heads)) for name, values in c.constants),
        lets=tuple(LetView(name_of(let.name), scalar(let.value)) for let in program.lets),
        lists=lists,
        tests=tuple(view for view in lists if view.ordinal in tested),
        full=tuple(_piece(piece, program.lists, program.key_tile) for piece in program.full),
        masked=tuple(_piece(piece, program.lists, program.key_tile) for piece in program.masked),
        live=mask(program.live),
    )


def _by_head(members: tuple[int, ...], values: tuple[int, ...], heads: int) -> tuple[int, ...]:
    of_head = dict(zip(members, values, strict=True))
    return tuple(of_head.get(head, 0) for head in range(heads))


def _list(spec: ListSpec, ordinal: int, table: int, key_tile: int) -> ListView:
    return ListView(
        ordinal=ordinal,
        table=table,
        row=name_of(spec.lane_row),
        width=spec.width,
        block=scalar(floor_div(Var("i0"), Int(spec.block))),
        tile_block=scalar(floor_div(Var("tile"), Int(spec.block // key_tile))),
    )


def _piece(piece: Piece, lists: tuple[ListSpec, ...], key_tile: int) -> PieceView:
    entry = ""
    if piece.listed is not None:
        slot = scalar(floor_div(Var("n"), Int(lists[piece.listed].block // key_tile), nonneg=True))
        entry = f"draws_{piece.listed}[{slot}]"
    return PieceView(
        origin=comment(piece.origin),
        count=scalar(piece.count),
        entry=entry,
        tile=scalar(piece.tile),
        when="" if piece.when == TRUE else condition(piece.when),
    )


def comment(text: str) -> str:
    """`text` as the inside of a // comment: one line, ASCII, no trailing backslash."""
    return _UNSAFE.sub("_", text)


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

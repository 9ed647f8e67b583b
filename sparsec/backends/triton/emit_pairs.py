"""What a tile program asks inputs of pairs -> lines of Triton that look it up, for a tile with few loads a row.

Invariant: an argument of input test g is named by g, its place among the tests of the plan, in every kernel of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.band import Asks, InputTest
from sparsec.ir.bands.kept import WORD, KeptMarks, token_ordinals
from sparsec.ir.expr.nodes import Extent, Picked
from sparsec.ir.tiles.program import TileProgram
from sparsec.plan.kernel import KernelPlan
from sparsec.sema.model import Documents

COUNTED = (Asks.MARKED, Asks.COLUMN, Asks.SLASH, Asks.SLASH_TILE)
"""Tiles ask them for `marks`, counts of the numbers that are picked, and pairs for `picked`, a bit for each number."""
SLASHES = (Asks.SLASH, Asks.SLASH_TILE)
OF_LISTS = (Asks.KEPT, Asks.KEPT_MARK)
"""What lists of kept keys answer, and no tensor of a call."""
ROW_CELLS = 8
"""Cells of queries, at most, that a tile looks up one after another: a look-up a pair would fill the registers."""


def stem_of(test: InputTest, scope: Extent, at: KernelFrame) -> str:
    """What the tensor of a test is called, before `_<g>`."""
    match test.asks:
        case Asks.MARKED | Asks.COLUMN | Asks.SLASH | Asks.SLASH_TILE:
            return "picked" if scope is Extent.PAIR else "marks"
        case Asks.ROW:
            return "ordered"
        case Asks.CELL:
            return "cells"
        case Asks.LABEL:
            return "labels"
        case Asks.ANCESTOR:
            return "descendants" if at.of_keys else "ancestors"
        case Asks.KEY_BELOW | Asks.QUERY_BELOW | Asks.NEAR:
            return "length"
        case Asks.KEPT | Asks.KEPT_MARK:
            raise InternalError("no tensor of a call says what lists of kept keys do")
        case _:
            assert_never(test.asks)


@dataclass(frozen=True, slots=True)
class KernelFrame:
    """Where pairs (i, j) and tiles lie in a kernel: `row` and `key` in the call's tensors, and names beside.

    `marks`: what entries of lists of kept keys say.
    """

    row: str
    key: str
    first_query: str
    n_keys: str
    query_tile: int
    key_tile: int
    of_keys: bool
    marks: KeptMarks
    ends: tuple[str, str]
    """The first key and one past the last of a query tile's keys."""
    listed: bool = False
    """The keys are those of a list, which lie anywhere."""

    @property
    def across(self) -> int:
        """Columns of a tile: keys, or queries where it is `of_keys`."""
        return self.query_tile if self.of_keys else self.key_tile

    @classmethod
    def of(
        cls, plan: KernelPlan, program: TileProgram, *, of_keys: bool, listed: bool = False, packed: bool = False
    ) -> KernelFrame:
        """`packed`: the queries of a sequence have rows from `begin` on."""
        marks = KeptMarks(token_ordinals(plan.declared), plan.share, (), ())
        sizes = program.query_tile, program.key_tile, of_keys, marks
        match plan.documents:
            case Documents.NONE:
                return cls("begin + {} - q0" if packed else "{} - q0", "{}", "q0", "nk", *sizes, ("0", "nk"), listed)
            case Documents.SEPARATE:
                return cls("{}", "{}", "0", "nk", *sizes, ("begin", "end"), listed)
            case Documents.RESTART:
                return cls("begin + {}", "begin + {}", "0", "length", *sizes, ("0", "length"), listed)
        assert_never(plan.documents)

    def tile_lines(self) -> tuple[str, ...]:
        """The first and last query and key of the tiles `tile`."""
        if self.of_keys:
            size = self.query_tile
            return (
                f"i_from = base + tl.maximum(tile * {size}, query_begin)",
                f"i_to = base + tl.minimum(tile * {size} + {size}, query_end) - 1",
                "j_from, j_to = j0 + tile * 0, j1 + tile * 0",
            )
        size, (begin, end) = self.key_tile, self.ends
        return (
            "i_from, i_to = i0 + tile * 0, i1 + tile * 0",
            f"j_from = tl.maximum(tile * {size}, {begin})",
            f"j_to = tl.minimum(tile * {size} + {size}, {end}) - 1",
        )


def over(name: str, size: int) -> str:
    """name // size, toward minus infinity."""
    if size == 1:
        return name
    return f"({name} >> {size.bit_length() - 1})" if size & (size - 1) == 0 else f"floor_div({name}, {size})"


def times(text: str, size: int) -> str:
    return text if size == 1 else f"{text} * {size}"


def pair_lines(
    asked: Iterable[Picked],
    program: TileProgram,
    tests: tuple[InputTest, ...],
    at: KernelFrame,
    *,
    of_tile: bool = False,
) -> list[str]:
    """Set `pair_<n>` for those that ask of pairs: whether the pairs (i, j) pass.

    `of_tile`: they are those of one tile, which begins at `start`.
    """
    found = []
    for n in sorted(each.ordinal for each in asked if each.scope is Extent.PAIR):
        test, g = program.inputs[n], tests.index(program.inputs[n])
        found += _of_tile(f"pair_{n}", test, g, at) if of_tile else [f"pair_{n} = {_pair(test, g, at)}"]
    return found


def _of_tile(pair: str, test: InputTest, g: int, at: KernelFrame) -> list[str]:
    """As `_pair`, of a tile's pairs: one look-up where rows or columns share a cell, and bits for runs of columns."""
    data, columns = f"{stem_of(test, Extent.PAIR, at)}_{g}_at", f"input_{g}_columns"
    width = 1 if test.asks is Asks.SLASH_TILE else test.width
    i = ("(base + start)" if at.of_keys else "i0") if test.height % at.query_tile == 0 else "i"
    few = 1 < touched(at.query_tile, test.height) <= ROW_CELLS
    if at.listed and not at.of_keys:
        by_cells = few and test.asks in (*SLASHES, Asks.CELL)
        return _by_cells(pair, test, g, at, "i0", "j") if by_cells else [f"{pair} = {_pair(test, g, at, i)}"]
    j = ("j0" if at.of_keys else "start") if width % at.key_tile == 0 and not at.listed else "j"
    cell = test.height if at.of_keys else width
    match test.asks:
        case Asks.SLASH | Asks.SLASH_TILE if cell == 1:
            first = _number(test, g, "(base + start)" if at.of_keys else i, j if at.of_keys else "start")
            return [f"{pair} = picked_run({data}, {first}, {columns}, {_across(at)}, {not at.of_keys})"]
        case Asks.SLASH | Asks.SLASH_TILE if cell < at.across:
            # A few cells of columns, one after the other.
            lines = []
            for n in range(at.across // cell):
                of_i, of_j = (f"(base + start + {n * cell})", j) if at.of_keys else (i, f"(start + {n * cell})")
                found = f"is_picked({data}, {_number(test, g, of_i, of_j)}, {columns})"
                of_cell = f"tl.arange(0, {at.across})[None, :] // {cell} == {n}"
                lines.append(f"{pair} = {found}" if n == 0 else f"{pair} = tl.where({of_cell}, {found}, {pair})")
            return lines
        case Asks.CELL if few:
            return _by_cells(pair, test, g, at, "(base + start)" if at.of_keys else "i0", j)
        case Asks.ROW:
            row = at.row.format("i")
            low, high = ("j0", "j1") if at.of_keys else ("start", f"start + {at.key_tile - 1}")
            ends = f"{over(low, test.width)}, {over(f'({high})', test.width)}"
            number = over(j, test.width)
            return [f"{pair} = row_lists({data}, {row}, {number}, {ends}, input_{g}_rows, {columns})"]
        case Asks.ANCESTOR:
            first = f"({at.n_keys} - input_{g}_rows)"
            row, column = ("j", "(base + start)") if at.of_keys else ("i", "start")
            run = f"cell_run({data}, {row} - {first}, {column} - {first}, {columns}, {_across(at)})"
            return [f"{pair} = (j < {first}) | {run}"]
        case _:
            return [f"{pair} = {_pair(test, g, at, i, j)}"]


def _across(at: KernelFrame) -> str:
    """The columns of a tile, from 0 on, and how many they are."""
    return f"tl.arange(0, {at.across})[None, :], {at.across}"


def touched(tile: int, cell: int) -> int:
    """The most cells of an absolute grid that a tile of another touches."""
    if cell % tile == 0:
        return 1
    return tile // cell if tile % cell == 0 else (tile - 2) // cell + 2


def _by_cells(pair: str, test: InputTest, g: int, at: KernelFrame, first: str, j: str) -> list[str]:
    """As `_of_tile`, one cell of queries after another, of a tile whose first query is `first`."""
    lines, cell = [], over(first, test.height)
    for n in range(touched(at.query_tile, test.height)):
        found = _pair(test, g, at, f"(({cell} + {n}) * {test.height})", j)
        of_cell = f"{over('i', test.height)} == {cell} + {n}"
        lines.append(f"{pair} = {found}" if n == 0 else f"{pair} = tl.where({of_cell}, {found}, {pair})")
    return lines


def _number(test: InputTest, g: int, i: str, j: str) -> str:
    """The number of a pair's slash."""
    of_i, of_j = over(i, test.height), over(j, test.width)
    if test.asks is Asks.SLASH_TILE:
        of_i, of_j = times(of_i, test.height), j
    return f"{of_i} - {of_j} - input_{g}_first"


def _pair(test: InputTest, g: int, at: KernelFrame, some_i: str = "i", some_j: str = "j") -> str:
    """`some_i`, `some_j`: a query and a key of the pair's cell."""
    row, key, rows, columns = at.row.format("i"), at.key.format("j"), f"input_{g}_rows", f"input_{g}_columns"
    if test.asks is Asks.KEPT_MARK:
        return _entry_marked(test, at.marks)
    i, j = over(some_i, test.height), over(some_j, test.width)
    data = f"{stem_of(test, Extent.PAIR, at)}_{g}_at"
    match test.asks:
        case Asks.MARKED:
            return f"is_picked({data}, {key}, {columns})"
        case Asks.COLUMN:
            return f"is_picked({data}, {j}, {columns})"
        case Asks.SLASH | Asks.SLASH_TILE:
            return f"is_picked({data}, {_number(test, g, some_i, some_j)}, {columns})"
        case Asks.ROW:
            return f"is_listed({data}, {row}, {j}, {rows}, {columns})"
        case Asks.CELL:
            return f"cell({data}, {i} - {over(at.first_query, test.height)}, {j}, {rows}, {columns})"
        case Asks.LABEL:
            return f"same_label({data}, key_labels_{g}_at, {row}, {key}, {columns}, keys_{g}_columns)"
        case Asks.ANCESTOR:
            first = f"({at.n_keys} - {rows})"
            of_row, of_column = ("j", "i") if at.of_keys else ("i", "j")
            return f"(j < {first}) | cell_bit({data}, {of_row} - {first}, {of_column} - {first}, {columns})"
        case Asks.KEY_BELOW:
            return f"j < tl.load({data})"
        case Asks.QUERY_BELOW:
            return f"i < tl.load({data})"
        case Asks.NEAR:
            return f"(i - j < tl.load({data})) & (i - i < tl.load({data}))"
        case Asks.KEPT | Asks.KEPT_MARK:
            raise InternalError("of a list of kept keys its entries are asked, and these for their marks")
        case _:
            assert_never(test.asks)


def _entry_marked(test: InputTest, marks: KeptMarks) -> str:
    """Whether entries of a list of kept keys are marked for the heads of the rows."""
    first = marks.bit(marks.ordinals.index(test.ordinal), 0)
    bit = f"head[:, None] % {marks.share}" + (f" + {first}" if first else "")
    words = f"{first // WORD}, {(first + marks.share - 1) // WORD}"
    return f"entry_marked(marks_of_kept, entry[None, :], known, columns, {bit}, {words})"

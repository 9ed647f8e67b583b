"""What a tile program asks inputs -> lines of Triton that look it up, and the views of kernels made for inputs alone.

Invariant: an argument of input test g is named by g, its place among the tests of the plan, in every kernel of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from sparsec.backends.triton.emit_pairs import OF_LISTS, SLASHES, KernelFrame, over, pair_lines, stem_of, times, touched
from sparsec.backends.triton.expr import assignment
from sparsec.backends.triton.view import AskedView, GathersView, GatherView, InputsView, KeptView, ListView
from sparsec.ir.bands.band import Asks, InputTest
from sparsec.ir.expr.fold import lists_in, picks_in
from sparsec.ir.expr.nodes import TRUE, Bool, Extent, Picked
from sparsec.ir.tiles.program import Gather, Segment, TileProgram

BITS = ("picked", "ancestors", "descendants")
"""Tensors of 32 bits a number."""
NUMBERS = ("batches", "heads", "rows", "columns")
"""The numbers of a tensor, after `input_<g>_`; those of the keys' labels come after `keys_<g>_`."""


def _tile_lines(
    asked: Iterable[Picked], program: TileProgram, tests: tuple[InputTest, ...], at: KernelFrame
) -> list[str]:
    """Set `some_<n>` and `every_<n>` of the tiles `tile`."""
    found = []
    for n, scope in sorted({(each.ordinal, each.scope) for each in asked}, key=lambda each: (each[0], each[1].value)):
        test = program.inputs[n]
        if test.asks is Asks.CELL:
            found += _cell_lines(test, tests.index(test), at)
        found.append(f"{scope.value}_{n} = {_tile(test, scope, tests.index(test), at)}")
    return list(dict.fromkeys(found))


def _cell_lines(test: InputTest, g: int, at: KernelFrame) -> list[str]:
    """Set `set_<g>` and `area_<g>`: how many cells of a tile are set, and how many it touches."""
    first = over(at.first_query, test.height)
    high, wide = touched(at.query_tile, test.height), touched(at.key_tile, test.width)
    ends = f"row_{g}, last_row_{g}, column_{g}, last_column_{g}"
    return [
        f"row_{g}, last_row_{g} = {over('i_from', test.height)} - {first}, {over('i_to', test.height)} - {first}",
        f"column_{g}, last_column_{g} = {over('j_from', test.width)}, {over('j_to', test.width)}",
        f"area_{g} = (last_row_{g} - row_{g} + 1) * (last_column_{g} - column_{g} + 1)",
        f"set_{g} = cells_set(cells_{g}_at, {ends}, input_{g}_rows, input_{g}_columns, {high}, {wide})",
    ]


def _tile(test: InputTest, scope: Extent, g: int, at: KernelFrame) -> str:
    some = scope is Extent.SOME
    data, columns = f"{stem_of(test, scope, at)}_{g}_at", f"input_{g}_columns"
    height, width = test.height, test.width

    def among(low: str, high: str) -> str:
        found = f"picked_among({data}, {low}, {high}, {columns})"
        return f"{found} > 0" if some else f"{found} == ({high}) - ({low}) + 1"

    def slashes(i: str, j: str) -> str:
        if test.asks is Asks.SLASH_TILE:
            return f"{times(over(i, height), height)} - {j} - input_{g}_first"
        return f"{over(i, height)} - {over(j, width)} - input_{g}_first"

    match test.asks:
        case Asks.MARKED:
            return among(at.key.format("j_from"), at.key.format("j_to"))
        case Asks.COLUMN:
            return among(over("j_from", width), over("j_to", width))
        case Asks.SLASH | Asks.SLASH_TILE:
            return among(slashes("i_from", "j_to"), slashes("i_to", "j_from"))
        case Asks.CELL:
            return f"set_{g} > 0" if some else f"set_{g} == area_{g}"
        case Asks.ANCESTOR if not some:
            return f"j_to < {at.n_keys} - input_{g}_rows"
        case Asks.KEY_BELOW:
            return f"{'j_from' if some else 'j_to'} < tl.load({data})"
        case Asks.QUERY_BELOW:
            return f"{'i_from' if some else 'i_to'} < tl.load({data})"
        case Asks.NEAR:
            nearest = "i_from - j_to" if some else "i_to - j_from"
            return f"({nearest} < tl.load({data})) & (tile - tile < tl.load({data}))"
        case Asks.ROW | Asks.LABEL | Asks.ANCESTOR | Asks.KEPT | Asks.KEPT_MARK:
            return "tile >= 0" if some else "tile < 0"  # of each tile
        case _:
            assert_never(test.asks)


def inputs_view(
    asked: Iterable[Picked],
    program: TileProgram,
    tests: tuple[InputTest, ...],
    at: KernelFrame,
    heads: int,
) -> InputsView:
    """What a kernel that asks so is given."""
    asked = tuple(asked)
    tensors: list[str] = []
    sizes: list[str] = []
    lines: list[str] = []
    for test in dict.fromkeys(program.inputs[n] for n in sorted({each.ordinal for each in asked})):
        if test.asks in OF_LISTS:
            continue
        g, scopes = tests.index(test), [each.scope for each in asked if program.inputs[each.ordinal] == test]
        pairs = [(stem, f"input_{g}") for stem in sorted({stem_of(test, scope, at) for scope in scopes})]
        pairs += [("key_labels", f"keys_{g}")] if test.asks is Asks.LABEL else []
        for stem, numbers in pairs:
            tensors.append(f"{stem}_{g}")
            *names, columns = [f"{numbers}_{name}" for name in NUMBERS]
            each = f"({columns} + 31) >> 5" if stem in BITS else columns
            lines.append(f"{stem}_{g}_at = own({stem}_{g}, {', '.join(names)}, {each}, batch, head, {heads})")
            sizes += [name for name in (*names, columns) if name not in sizes]
        sizes += [f"input_{g}_first"] if test.asks in SLASHES else []
    return InputsView(tuple(tensors), tuple(sizes), tuple(lines))


def is_asked(segment: Segment) -> bool:
    """Whether the segment's tiles are those that a kernel of their own finds."""
    return bool(picks_in(segment.when))


def asked_view(
    program: TileProgram,
    names: Mapping[str, str],
    lists: tuple[ListView, ...],
    tests: tuple[InputTest, ...],
    at: KernelFrame,
    heads: int,
) -> AskedView | None:
    """The kernel that finds the tiles of the segments that ask inputs; None where there are none."""
    full = [segment for segment in program.full if is_asked(segment)]
    masked = [segment for segment in program.masked if is_asked(segment)]
    if not masked:
        assert not full, "what may be full may be masked"
        return None
    (segment,) = masked
    assert all(each.count == segment.count and each.tile == segment.tile for each in full), "one loop has both"
    conditions = [each.when for each in (*full, *masked)]
    picks = frozenset[Picked]().union(*map(picks_in, conditions))
    lookups = [line for n in _lists(conditions) for line in _listed_lines(lists[n], at)]
    names = {**names, "n": "n", "tile": "tile"}
    return AskedView(
        segment.origin,
        assignment("count", segment.count, names),
        assignment("tile", segment.tile, names),
        (*lookups, *at.tile_lines(), *_tile_lines(picks, program, tests, at)),
        tuple(line for each in full for line in assignment("wanted", each.when, names)),
        assignment("wanted", segment.when, names),
        inputs_view(picks, program, tests, at, heads),
    )


def _lists(conditions: Iterable[Bool]) -> list[int]:
    return sorted({n for condition in conditions for n in lists_in(condition)})


def _listed_lines(view: ListView, at: KernelFrame) -> list[str]:
    """Set `listed_<n>` of the tiles `tile`."""
    n = view.ordinal
    if not at.of_keys:
        block = "tile" if view.tiles == 1 else f"(tile // {view.tiles})"
        return [f"listed_{n} = tl.max((draws_row_{n}[None, :] == {block}[:, None]).to(tl.int32), 1) > 0"]
    return [
        f"row_{n} = ((base + tile * {at.query_tile}) >> {view.shift}) - block_from_{n}",
        f"row_{n} = tl.minimum(tl.maximum(row_{n}, 0), blocks_{n} - 1).to(tl.int64) * {view.width}",
        f"listed_{n} = drawn(draws_at_{n} + row_{n}, j0 >> {view.shift}, {view.width})",
    ]


def gathers_view(
    program: TileProgram,
    names: Mapping[str, str],
    lists: tuple[ListView, ...],
    tests: tuple[InputTest, ...],
    at: KernelFrame,
    heads: int,
    *,
    keeps: bool,
) -> GathersView | None:
    """The kernels that take the lists of rows; None where there are none. `keeps`: as of `emit.loop_view`."""
    gathers = [
        each for each in program.gathers if each.reach is None and program.inputs[each.test].asks is not Asks.KEPT
    ]
    if not gathers:
        return None
    views = []
    for gather in gathers:
        g, test = tests.index(program.inputs[gather.test]), program.inputs[gather.test]
        lines = _test_lines(gather, program, names, lists, tests, at, keeps=keeps)
        views.append(GatherView(gather.origin, f"entries_{g}", f"input_{g}", test.width, lines))
    picks = frozenset[Picked]().union(*(picks_in(gather.live) for gather in gathers))
    inputs = inputs_view(picks, program, tests, at, heads)
    sizes = [f"{view.number}_{name}" for view in views for name in NUMBERS]
    return GathersView(
        tuple(views), InputsView(inputs.tensors, tuple(dict.fromkeys((*inputs.sizes, *sizes))), inputs.lines)
    )


def kept_view(
    name: str,
    piece: int,
    attempts: int,
    program: TileProgram,
    names: Mapping[str, str],
    lists: tuple[ListView, ...],
    tests: tuple[InputTest, ...],
    at: KernelFrame,
    heads: int,
    *,
    keeps: bool,
) -> KeptView | None:
    """The kernel that takes the lists of kept keys; None where the class asks for none."""
    for gather in program.gathers:
        if program.inputs[gather.test].asks is Asks.KEPT:
            lines = _test_lines(gather, program, names, lists, tests, at, keeps=keeps)
            inputs = inputs_view(picks_in(gather.live), program, tests, at, heads)
            return KeptView(f"kept_{name}", piece, attempts, gather.origin, lines, inputs)
    return None


def _test_lines(
    gather: Gather,
    program: TileProgram,
    names: Mapping[str, str],
    lists: tuple[ListView, ...],
    tests: tuple[InputTest, ...],
    at: KernelFrame,
    *,
    keeps: bool,
) -> tuple[str, ...]:
    """Set `live` of the keys that are `known`."""
    lines = [
        line
        for n in _lists((gather.live,))
        for line in (
            f"row_{n} = ((i >> {lists[n].shift}) - block_from_{n}).to(tl.int64) * {lists[n].width}",
            f"listed_{n} = drawn(draws_at_{n} + row_{n}, j >> {lists[n].shift}, {lists[n].width})",
        )
    ]
    lines += pair_lines(picks_in(gather.live), program, tests, at)
    lines += assignment("allowed", gather.live, {**names, "i": "i", "j": "j"}) if gather.live != TRUE else ()
    lines.append(f"live = {'allowed & ' if gather.live != TRUE else ''}known{' & kept' if keeps else ''}")
    return tuple(lines)

"""Gathers of columns -> the loops of a query tile over listed keys, and the tile program of a list's keys.

Invariant: a loop goes over the listed keys within a gather's reach, each once, in ascending order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sparsec.backends.triton.emit_inputs import inputs_view
from sparsec.backends.triton.emit_pairs import KernelFrame, pair_lines
from sparsec.backends.triton.expr import assignment
from sparsec.backends.triton.view import InputsView, ListView, LoopView, SegmentView
from sparsec.ir.bands.band import InputTest
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.fold import lists_in, picks_in
from sparsec.ir.expr.nodes import TRUE, ZERO, Extent, Picked, Var
from sparsec.ir.tiles.program import Gather, Segment, TileProgram, lets_for, names_read
from sparsec.plan.target import LISTED_KEYS


def of_columns(program: TileProgram) -> tuple[Gather, ...]:
    """The gathers of columns."""
    return tuple(gather for gather in program.gathers if gather.reach is not None)


def without_lists(program: TileProgram) -> TileProgram:
    """The program of key tiles alone."""
    read = names_read((*program.full, *program.masked))
    return replace(program, lets=lets_for(program.lets, read), gathers=())


def program_of_list(program: TileProgram, gather: Gather) -> TileProgram:
    """Of a transposed program, what some keys of the list go over: query tiles, one after another, all masked."""
    assert gather.reach is not None
    start, stop = gather.reach.start, gather.reach.stop
    count, tile = x.maximum(x.sub(stop, start), ZERO), x.add(start, Var("n"))
    return replace(
        program,
        key_tile=min(program.key_tile, LISTED_KEYS),
        lets=lets_for(program.lets, names_read((), (gather,))),
        full=(),
        masked=(Segment(count, tile, TRUE, True, None, gather.origin),),
        live=x.both(Picked(gather.test, Extent.PAIR), gather.live),
        gathers=(),
    )


def column_loops(
    program: TileProgram,
    names: Mapping[str, str],
    lists: tuple[ListView, ...],
    tests: tuple[InputTest, ...],
    at: KernelFrame,
    heads: int,
    *,
    keeps: bool,
    stages: int | None,
) -> tuple[LoopView, ...]:
    """The loops of a query tile. `keeps`: as of `emit.loop_view`; `stages`: as of a LoopView."""
    known = "known[None, :] & kept" if keeps else "known[None, :]"
    gathers = enumerate(of_columns(program))
    loops = (_loop(n, gather, program, names, lists, tests, at, heads, known) for n, gather in gathers)
    return tuple(replace(loop, stages=stages) for loop in loops)


def _loop(
    n: int,
    gather: Gather,
    program: TileProgram,
    names: Mapping[str, str],
    lists: tuple[ListView, ...],
    tests: tuple[InputTest, ...],
    at: KernelFrame,
    heads: int,
    known: str,
) -> LoopView:
    assert gather.reach is not None
    g, first, past = tests.index(program.inputs[gather.test]), f"spots_from_{n}", f"spots_to_{n}"
    # Found here and not before all loops, through which they would fill registers.
    counts = [
        f"{stem}_{g}_at = own({stem}_{g}, input_{g}_batches, input_{g}_heads, 1, {size}, batch, head, {heads})"
        for stem, size in (("marks", f"input_{g}_columns"), ("columns", f"input_{g}_listed"))
    ]
    for spots, name, end in ((first, f"near_from_{n}", gather.reach.start), (past, f"near_to_{n}", gather.reach.stop)):
        counts += assignment(name, end, names)
        counts.append(f"{spots} = picked_before(marks_{g}_at, {name}, input_{g}_columns, input_{g}_listed)")
    fetched = (
        f"spot = n + tl.arange(0, {program.key_tile})",
        f"j = tl.load(columns_{g}_at + spot, mask=spot < {past}, other=-1)",
    )
    tile = f"known = (j >= 0) & (j < {at.n_keys})", "j = tl.where(known, j, 0)"
    lookups = [
        f"listed_{each} = drawn(draws_at_{each}, j >> {lists[each].shift}, {lists[each].width})"
        for each in sorted(lists_in(gather.live))
    ]
    lookups += pair_lines(picks_in(gather.live), program, tests, at, of_tile=True)
    test: tuple[str, ...] = (f"live = {known}",)
    if gather.live != TRUE:
        test = (*assignment("allowed", gather.live, {**names, "i": "i", "j": "j"}), f"live = allowed & {known}")
    segment = SegmentView(gather.origin, tuple(counts), "0", tile, fetched)
    return LoopView((segment,), past, True, False, tuple(lookups), test, first, program.key_tile, g)


def tile_inputs(program: TileProgram, tests: tuple[InputTest, ...], at: KernelFrame, heads: int) -> InputsView:
    """What a kernel of tiles is given: of what its pairs are asked, and the columns that it gathers."""
    gathers = of_columns(program)
    asked = picks_in(program.live).union(*(picks_in(gather.live) for gather in gathers))
    view = inputs_view(asked, program, tests, at, heads)
    numbers = [tests.index(program.inputs[gather.test]) for gather in gathers]
    sizes = [f"input_{g}_{name}" for g in numbers for name in ("batches", "heads", "columns", "listed")]
    return InputsView(
        (*view.tensors, *(f"{stem}_{g}" for g in numbers for stem in ("marks", "columns"))),
        tuple(dict.fromkeys((*view.sizes, *sizes))),
        view.lines,
    )

"""Tile programs -> text that a person reads: lets, the segments of the two loops, the predicate, the lists.

Invariant: equal programs print equal text, and every number and name of a program appears in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparsec.ir.bands.printer import print_input_test
from sparsec.ir.expr import nodes as x
from sparsec.ir.expr.printer import PRODUCT, print_expr, print_test
from sparsec.ir.expr.scalars import Interval
from sparsec.ir.tiles.program import Segment, TileProgram


def print_program(program: TileProgram) -> str:
    """A tile program: its lets, the segments of its two loops, its predicate and its lists."""
    lines = [f"tiles {program.query_tile} x {program.key_tile}"]
    lines += [f"let {let.name} = {print_expr(let.value)}" for let in program.lets]
    for name, tiles in (("visited", program.ranges.visited), ("full", program.ranges.full)):
        for each in tiles:
            lines.append(f"{name} range {_interval(each)}{f'  # {each.origin}' if each.origin else ''}")
    for name, segments in (("full", program.full), ("masked", program.masked)):
        for segment in segments:
            lines += _segment(name, segment)
    lines.append(f"live(i, j) = {print_test(program.live)}")
    for gather in program.gathers:
        lines.append(f"gather {gather.test}{f'  # {gather.origin}' if gather.origin else ''}")
        if gather.reach is not None:
            lines.append(f"    reach {_interval(gather.reach)}")
        lines.append(f"    live(i, j) = {print_test(gather.live)}")
    for ordinal, test in enumerate(program.inputs):
        lines.append(f"picked {ordinal}: {print_input_test(test)}")
    for ordinal, spec in enumerate(program.lists):
        lanes = ", ".join(f"(seed {seed}, lane {lane})" for seed, lane in spec.lanes)
        lines.append(f"list {ordinal}: {spec.width} draws, block {spec.block}, row {spec.lane_row} of [{lanes}]")
    return "\n".join(lines) + "\n"


def _segment(loop: str, segment: Segment) -> Iterator[str]:
    notes = [
        word for word, holds in (("contiguous", segment.contiguous), ("listed", segment.listed is not None)) if holds
    ]
    origin = f"  # {segment.origin}" if segment.origin else ""
    yield f"{' '.join([loop, *notes])}{'' if segment.listed is None else f' {segment.listed}'}{origin}"
    yield f"    for n in 0..{print_expr(segment.count, PRODUCT)}"
    yield f"    tile = {print_expr(segment.tile)}"
    if segment.span is not None:
        yield f"    span {_interval(segment.span)}"
    if segment.when != x.TRUE:
        yield f"    when {print_test(segment.when)}"


def _interval(tiles: Interval) -> str:
    return f"{print_expr(tiles.start)} .. {print_expr(tiles.stop)}"

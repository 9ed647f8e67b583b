"""The ranges and spans that a tile program names are those of its loops, at sample lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

import sparsec
from sparsec.ir.expr.nodes import TRUE, evaluate
from sparsec.ir.expr.scalars import Interval
from sparsec.ir.tiles.program import Piece, TileProgram
from sparsec.ir.tiles.project import project, project_transposed
from sparsec.pipeline import Lowered
from sparsec.plan.build import head_class_of

TILE = 16
DENSE = (
    "causal",
    "full",
    "window(20)",
    "sink(21) | window(30)",
    "chunk(24)",
    "rows(5..90) | columns(100..)",
    "global(19)",
)
STRIDED = ("window(3b) | stride(4b)", "dilated(5b, phase = 1)", "sink(40) | stride(5b, phase = 2)")


def programs(attend: str, *, transposed: bool) -> Iterator[tuple[TileProgram, dict[str, int]]]:
    """The programs of the pattern's heads, with values of their inputs and lets."""
    pattern = sparsec.parse(f"pattern p {{ heads 1  block 16  causal  attend {attend} }}").pattern().resolve()
    lowered = Lowered(pattern)
    for bands in (lowered.transposed if transposed else lowered.mask).classes:
        head_class = head_class_of(bands, (project_transposed if transposed else project)(bands, TILE, TILE))
        constants = {name: values[0] for name, values in head_class.constants}
        for tile in range(20):
            values = {**constants, "nk": 300}
            if transposed:
                values |= {"j0": tile * TILE, "j1": min(tile * TILE + 15, 299), "base": 16, "begin": 3, "end": 284}
                if tile * TILE >= 300:
                    continue
            else:
                values |= {"i0": tile * TILE, "i1": tile * TILE + 15}
            for let in head_class.program.lets:
                values[let.name] = evaluate(let.value, values)
            yield head_class.program, values


def within(ranges: tuple[Interval, ...], values: Mapping[str, int]) -> list[int]:
    return [tile for r in ranges for tile in range(evaluate(r.start, values), evaluate(r.stop, values))]


def candidates(piece: Piece, values: Mapping[str, int]) -> list[int]:
    return [evaluate(piece.tile, {**values, "n": n}) for n in range(evaluate(piece.count, values))]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("attend", DENSE)
def test_loops_that_test_nothing_visit_the_tiles_of_ranges(attend: str, transposed: bool) -> None:
    seen = 0
    for program, values in programs(attend, transposed=transposed):
        loops = [p for p in (*program.full, *program.masked) if p.contiguous and p.when == TRUE]
        visited = [tile for piece in loops for tile in candidates(piece, values)]
        full = within(program.ranges.full, values)
        assert sorted(visited) == sorted({*within(program.ranges.visited, values), *full})
        assert full == sorted(set(full))
        seen += len(visited)
    assert seen > 20


@pytest.mark.parametrize("attend", STRIDED)
def test_a_span_holds_the_candidates_and_no_other_tile_of_the_residue(attend: str) -> None:
    seen = 0
    for program, values in programs(attend, transposed=False):
        for piece in (p for p in (*program.full, *program.masked) if p.span is not None):
            span = set(within((piece.span,), values))
            further = {evaluate(piece.tile, {**values, "n": n}) for n in range(-30, 60)}
            found = candidates(piece, values)
            assert set(found) == span & further and len(set(found)) == len(found)
            seen += len(found)
    assert seen > 20

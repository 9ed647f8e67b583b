"""What a predicate asks in a tile, against the predicate on each pair of it."""

from __future__ import annotations

import numpy as np
import pytest
from test_project import SHAPES, TERMS, TILE, pattern

from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.nodes import TRUE, Add, Bool, FloorDiv, Int, Less, Listed, Mod, Not, Or, Var
from sparsec.ir.tiles.limits import FIRST, RowLimits, limits_of
from sparsec.ir.tiles.program import TileProgram
from sparsec.pipeline import Lowered

ROW, J, NK = Var("i"), Var("j"), Var("nk")
"""Row and column of a forward program, and its number of keys."""
CAUSAL = x.less(J, x.add(ROW, Int(1)))
EXISTS = x.less(J, NK)


def programs(name: str) -> dict[str, TileProgram]:
    lowered = Lowered(pattern(TERMS[name][0]))
    tiles = {"query_tile": TILE, "key_tile": TILE}
    plan = lowered.plan_backward(head_dim=16, dtype="float32", **tiles)
    return {"j": plan.forward.classes[0].program, "i": plan.transposed[0].program}


def passes(part: RowLimits, column: str, values: dict[str, object], listed: dict[object, bool]) -> np.ndarray:
    columns = np.asarray(values[column])
    found = holds(part.pair, values, listed) & (columns == columns)
    if part.lower is not None:
        found = found & (evaluate(part.lower, values, listed) <= columns)
    if part.upper is not None:
        found = found & (columns < evaluate(part.upper, values, listed))
    return np.broadcast_to(found, (TILE, TILE))


@pytest.mark.parametrize("column", ["i", "j"])
@pytest.mark.parametrize("name", TERMS)
def test_a_pair_passes_if_the_predicate_holds(name: str, column: str) -> None:
    program = programs(name)[column]
    inside = EXISTS if column == "j" else TRUE
    limits = limits_of(program.live, inside, Var(column), TILE)
    for _, n_k, offset in SHAPES:
        for of_row in (-TILE, offset // TILE * TILE, 64):
            for first in (-TILE if column == "i" else 0, TILE, 4 * TILE):
                lanes = np.arange(TILE)
                values = {"nk": n_k, "first": first, column: first + lanes[None, :]}
                values["i" if column == "j" else "j"] = of_row + lanes[:, None]
                for says in (False, True):
                    listed = dict.fromkeys(range(len(program.lists)), says)
                    want = holds(x.both(program.live, inside), values, listed)
                    got = passes(limits.common, column, values, listed)
                    if limits.parts:
                        got = got & np.any([passes(part, column, values, listed) for part in limits.parts], axis=0)
                    assert (got == np.broadcast_to(want, (TILE, TILE))).all()


@pytest.mark.parametrize("name", ["causal", "window of blocks", "sink of blocks", "stride of blocks", "s2", "random"])
@pytest.mark.parametrize("column", ["i", "j"])
def test_blocks_of_whole_tiles_are_limits_of_rows(name: str, column: str) -> None:
    """One interval a row, and no test of pairs."""
    limits = limits_of(programs(name)[column].live, EXISTS if column == "j" else TRUE, Var(column), TILE)
    assert limits.parts == () and limits.common.pair == TRUE
    assert limits.common.lower is None or limits.common.upper is None


def test_several_intervals_of_a_row() -> None:
    """A sink that ends within a tile, beside a window: two intervals, and a limit of both."""
    limits = limits_of(programs("sink and window")["j"].live, EXISTS, J, TILE)
    assert limits.intervals
    assert [(part.lower is None, part.upper is None) for part in limits.parts] == [(True, False), (False, True)]
    assert limits.common == RowLimits(None, x.minimum(Add(ROW, Int(1)), NK), TRUE)


def test_residues_within_tiles_are_asked_of_pairs() -> None:
    limits = limits_of(programs("strided transformer")["j"].live, EXISTS, J, TILE)
    assert limits.common.upper == x.minimum(Add(ROW, Int(1)), NK)
    pairs = [part.pair for part in limits.parts if part.pair != TRUE]
    assert [names_in(pair) for pair in pairs] == [{"i", "j"}] and not limits.intervals


def moved(*conditions: Bool) -> RowLimits:
    limits = limits_of(x.both(conditions[0], conditions[1]) if len(conditions) > 1 else conditions[0], TRUE, J, TILE)
    assert limits.parts == ()
    return limits.common


def test_what_is_moved_out_of_a_tile() -> None:
    assert moved(CAUSAL) == RowLimits(None, Add(ROW, Int(1)), TRUE)
    assert moved(Not(CAUSAL)) == RowLimits(Add(ROW, Int(1)), None, TRUE)
    assert moved(Less(ROW, x.add(J, Int(3)))) == RowLimits(x.sub(ROW, Int(2)), None, TRUE)
    of_tile = Listed(0)
    assert moved(of_tile, CAUSAL).upper == x.select(of_tile, Add(ROW, Int(1)), Int(-(1 << 30)))
    assert moved(Not(of_tile), Not(CAUSAL)).lower == x.select(Not(of_tile), Add(ROW, Int(1)), Int(1 << 30))
    assert FIRST.name in names_in(moved(x.less(J, Int(2 * TILE))).upper or Int(0))
    odd = x.less(Mod(J, Int(3), True), Int(1))
    assert moved(odd) == RowLimits(None, None, odd)
    assert moved(Or(odd, TRUE)) == RowLimits(None, None, TRUE)
    half = x.less(FloorDiv(J, Int(TILE * 3 // 2), True), Int(2))
    assert moved(half) == RowLimits(None, None, half)
    neither = moved(Not(Or(CAUSAL, x.less(J, Int(5)))))
    assert neither == RowLimits(x.maximum(Add(ROW, Int(1)), Int(5)), None, TRUE)

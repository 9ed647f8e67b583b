"""Tile programs: exact counts against the set itself, closed forms that do not grow, shared constants."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparsec.ir.bands.band import Band
from sparsec.ir.bands.bounds import query
from sparsec.ir.bands.classes import BandClass
from sparsec.ir.bands.draws import split_mix
from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.ir.tiles.interpreter import draws, transposed_visits, visits
from sparsec.ir.tiles.listed import lane_rows
from sparsec.ir.tiles.program import TileProgram
from sparsec.ir.tiles.project import project, project_transposed
from sparsec.pipeline import Lowered
from sparsec.sema import model as m

TILE = 16
Pair = Callable[[int, int, int], bool]

TERMS: dict[str, tuple[m.Term, Pair]] = {
    "causal": (m.Causal(), lambda i, j, nk: j <= i),
    "full": (m.Full(), lambda i, j, nk: True),
    "none": (m.Nothing(), lambda i, j, nk: False),
    "window": (m.Window(20, 3, False), lambda i, j, nk: -3 <= i - j < 20),
    "window of one key": (m.Window(1, 0, False), lambda i, j, nk: i == j),
    "window of blocks": (m.Window(2, 1, True), lambda i, j, nk: -1 <= i // TILE - j // TILE < 2),
    "sink": (m.Sink(21, False), lambda i, j, nk: j < 21),
    "sink of blocks": (m.Sink(2, True), lambda i, j, nk: j // TILE < 2),
    "stride": (m.Stride(50, 3, False), lambda i, j, nk: j % 50 == 3),
    "dense stride": (m.Stride(7, 3, False), lambda i, j, nk: j % 7 == 3),
    "stride of blocks": (m.Stride(3, 2, True), lambda i, j, nk: j // TILE % 3 == 2),
    "dilated": (m.Dilated(50, 3, False), lambda i, j, nk: (i - j) % 50 == 3),
    "densely dilated": (m.Dilated(5, 2, False), lambda i, j, nk: (i - j) % 5 == 2),
    "dilated by one tile": (m.Dilated(32, 0, False), lambda i, j, nk: (i - j) % 32 == 0),
    "dilated blocks": (m.Dilated(3, 1, True), lambda i, j, nk: (i // TILE - j // TILE) % 3 == 1),
    "chunk": (m.Chunk(24, 1), lambda i, j, nk: 0 <= i // 24 - j // 24 <= 1),
    "chunk ahead": (m.Chunk(24, 1, 2), lambda i, j, nk: -2 <= i // 24 - j // 24 <= 1),
    "near in a grid": (
        m.Near2d(40, 2, 3),
        lambda i, j, nk: abs(i // 40 - j // 40) <= 2 and abs(i % 40 - j % 40) <= 3,
    ),
    "near in a wide grid": (
        m.Near2d(120, 1, 30),
        lambda i, j, nk: abs(i // 120 - j // 120) <= 1 and abs(i % 120 - j % 120) <= 30,
    ),
    "near in a column": (m.Near2d(40, 2, 0), lambda i, j, nk: abs(i // 40 - j // 40) <= 2 and i % 40 == j % 40),
    "columns": (m.Columns(m.Edge(5, False), m.Edge(40, False), False), lambda i, j, nk: 5 <= j < 40),
    "last columns": (m.Columns(m.Edge(-9, True), None, False), lambda i, j, nk: j >= nk - 9),
    "last blocks": (
        m.Columns(m.Edge(-2, True), m.Edge(-1, True), True),
        lambda i, j, nk: j // TILE == -(-nk // TILE) - 2,
    ),
    "rows": (m.Rows(m.Edge(5, False), m.Edge(40, False), False), lambda i, j, nk: 5 <= i < 40),
    "last rows": (m.Rows(m.Edge(-9, True), None, False), lambda i, j, nk: i >= nk - 9),
    "global": (m.Global(19, False), lambda i, j, nk: i < 19 or j < 19),
    "random": (
        m.Random(2, 3, 1),
        lambda i, j, nk: i >= 0 and any(j // TILE == split_mix(3, 1, i // TILE, t) % (i // TILE + 1) for t in range(2)),
    ),
    "wide runs of blocks and draws": (
        m.Union((m.Complement(m.Stride(4, 1, True)), m.Random(2, 3, 1))),
        lambda i, j, nk: j // TILE % 4 != 1 or TERMS["random"][1](i, j, nk),
    ),
    "sink and window": (
        m.Intersection((m.Causal(), m.Union((m.Sink(24, False), m.Window(30, 0, False))))),
        lambda i, j, nk: j <= i and (j < 24 or i - j < 30),
    ),
    "a sink and a window of few keys": (
        m.Union((m.Sink(10, False), m.Window(12, 0, False))),
        lambda i, j, nk: j < 10 or 0 <= i - j < 12,
    ),
    "s2": (
        m.Intersection((m.Causal(), m.Union((m.Window(3, 0, True), m.Stride(4, 1, True))))),
        lambda i, j, nk: j <= i and (i // TILE - j // TILE < 3 or j // TILE % 4 == 1),
    ),
    "strided transformer": (
        m.Intersection((m.Causal(), m.Union((m.Window(33, 0, False), m.Dilated(32, 0, False))))),
        lambda i, j, nk: j <= i and (i - j < 33 or (i - j) % 32 == 0),
    ),
}
FULL_RUN_MASKED = ("random", "wide runs of blocks and draws", "sink and window")
"""Transposed, these run some full tiles masked: a table of draws lists the keys of a query and not the other way round,
and a key tile that straddles the sink's end is full by the sink for some keys and by the window for the others."""
SHAPES = [
    (1, 1, 0),
    (100, 100, 0),
    (37, 129, 92),
    (129, 129, 0),
    (64, 200, 11),
    (33, 0, -33),
    (50, 20, -30),
    (1, 40, 15),
]


def pattern(*terms: m.Term, block: int = TILE) -> m.ResolvedPattern:
    return m.ResolvedPattern(len(terms), 1, terms, block, (), m.Documents.NONE, m.Score())


@pytest.mark.parametrize("name", TERMS)
def test_visited_and_full_tiles_are_exactly_the_live_and_the_full_ones(name: str) -> None:
    term, visible = TERMS[name]
    (head_class,) = Lowered(pattern(term)).mask.classes
    program = project(head_class, TILE, TILE)
    constants = {name: values[0] for name, values in (*head_class.constants, *lane_rows(head_class))}
    for n_q, n_k, offset in SHAPES:
        for tile in range(offset // TILE, -(-(offset + n_q) // TILE)):
            first, stop = max(tile * TILE, offset), min((tile + 1) * TILE, offset + n_q)
            expected = {}
            for key_tile in range(-(-n_k // TILE)):
                keys = range(key_tile * TILE, min((key_tile + 1) * TILE, n_k))
                live = [visible(i, j, n_k) for i in range(first, stop) for j in keys]
                if any(live):
                    expected[key_tile] = all(live) and len(keys) == TILE
            found = visits(program, constants, (first, stop), n_k)
            assert len({visit.tile for visit in found}) == len(found), (n_q, n_k, offset, tile)
            assert {visit.tile: visit.full for visit in found} == expected, (n_q, n_k, offset, tile)


@pytest.mark.parametrize("name", TERMS)
def test_the_query_tiles_of_a_key_tile_are_exactly_the_live_and_the_full_ones(name: str) -> None:
    term, visible = TERMS[name]
    (head_class,) = Lowered(pattern(term)).transposed.classes
    program = project_transposed(head_class, TILE, TILE)
    constants = {name: values[0] for name, values in (*head_class.constants, *lane_rows(head_class))}
    for n_q, n_k, offset in SHAPES:
        base = offset // TILE * TILE
        frame = {"nk": n_k, "base": base, "begin": offset - base, "end": offset + n_q - base}
        for key_tile in range(-(-n_k // TILE)):
            keys = range(key_tile * TILE, min((key_tile + 1) * TILE, n_k))
            expected = {}
            for tile in range(-(-frame["end"] // TILE)):
                queries = range(max(base + tile * TILE, offset), min(base + (tile + 1) * TILE, offset + n_q))
                live = [visible(i, j, n_k) for i in queries for j in keys]
                if any(live):
                    expected[tile] = all(live) and len(queries) == TILE
            values = {**constants, **frame, "j0": keys[0], "j1": keys[-1]}
            found = query_tiles(program, values)
            assert len(dict(found)) == len(found), (n_q, n_k, offset, key_tile)
            if name in FULL_RUN_MASKED:
                assert dict(found).keys() == expected.keys(), (n_q, n_k, offset, key_tile)
                assert all(expected[tile] for tile, full in found if full), (n_q, n_k, offset, key_tile)
            else:
                assert dict(found) == expected, (n_q, n_k, offset, key_tile)


def test_queries_before_position_0_come_to_every_key_that_they_see() -> None:
    """Of bands ordered by where they start, one that starts at position 0 comes after one that has no start."""
    rows = [m.Rows(m.Edge(start, False), m.Edge(-3, True), False) for start in (0, 12)]
    term = m.Union((*rows, m.Columns(m.Edge(69, False), m.Edge(-82, True), False)))
    (head_class,) = Lowered(pattern(term)).transposed.classes
    found = transposed_visits(project_transposed(head_class, 64, 64), {}, (69, 70), 152, (-193, -64))
    assert sorted(visit.tile for visit in found) == [0, 1, 2]


def query_tiles(program: TileProgram, values: dict[str, int]) -> list[tuple[int, bool]]:
    """The visited tiles of a transposed program, and whether each is full."""
    for let in program.lets:
        values[let.name] = evaluate(let.value, values)
    found = []
    for full, segments in ((True, program.full), (False, program.masked)):
        for segment in segments:
            for n in range(evaluate(segment.count, values)):
                scope = {**values, "n": n}
                tile = scope["tile"] = evaluate(segment.tile, scope)
                block = (values["base"] + tile * TILE) // TILE
                drawn = [draws(spec, values[spec.lane_row], block) for spec in program.lists]
                if holds(segment.when, scope, {n: values["j0"] // TILE in drawn[n] for n in range(len(drawn))}):
                    found.append((tile, full))
    return found


def s2(phase: int, blocks: int = 16) -> m.Term:
    return m.Intersection((m.Causal(), m.Union((m.Window(blocks, 0, True), m.Stride(blocks, phase, True)))))


def test_heads_that_differ_in_a_phase_share_a_class() -> None:
    (head_class,) = Lowered(pattern(s2(0), s2(15), s2(14))).mask.classes
    assert head_class.heads == (0, 1, 2)
    assert head_class.constants == (("c0", (0, 15, 14)),)


def test_heads_of_another_shape_have_a_class_of_their_own() -> None:
    classes = Lowered(pattern(m.Causal(), s2(3), m.Causal(), s2(4))).mask.classes
    assert [c.heads for c in classes] == [(0, 2), (1, 3)]


def test_s2_takes_two_full_and_two_masked_segments() -> None:
    (head_class,) = Lowered(pattern(s2(0), s2(1), block=64)).mask.classes
    program = project(head_class, 64, 64)
    assert (len(program.full), len(program.masked)) == (2, 2)


@pytest.mark.parametrize(("reach", "full", "masked"), [(3, 0, 5), (30, 5, 10)])
def test_bands_that_lie_apart_take_segments_of_their_own_alone(reach: int, full: int, masked: int) -> None:
    """Those of fewer keys than a tile has no full ones."""
    (head_class,) = Lowered(pattern(m.Near2d(200, 2, reach))).mask.classes
    assert len(head_class.bands) == 5
    program = project(head_class, TILE, TILE)
    assert (len(program.full), len(program.masked)) == (full, masked)


def test_bands_that_touch_have_full_tiles_together() -> None:
    near = Band(lower=(query(-9),), upper=(query(1),), origin="near")
    far = Band(lower=(query(-19),), upper=(query(-9),), origin="far")
    program = project(BandClass((0,), (near, far), ()), TILE, TILE)
    found = visits(program, {}, (35, 36), 40)
    assert sorted((visit.tile, visit.full) for visit in found) == [(1, True), (2, False)]


def test_the_program_of_a_pattern_is_the_same_whatever_its_lengths() -> None:
    def size(window: int, stride: int) -> int:
        term = m.Union((m.Window(window, 0, True), m.Stride(stride, 1, True)))
        (head_class,) = Lowered(pattern(m.Intersection((m.Causal(), term)))).mask.classes
        program = project(head_class, TILE, TILE)
        return len(program.lets) + len(program.full) + len(program.masked)

    assert size(2, 4) == size(20_000, 40_000)


def test_tiles_fit_the_blocks_of_strides_and_draws() -> None:
    def tiles(term: m.Term, block: int) -> tuple[int, int]:
        plan = Lowered(pattern(term, block=block)).plan_forward(
            head_dim=64, dtype="float32", query_tile=128, key_tile=64
        )
        program = plan.classes[0].program
        return program.query_tile, program.key_tile

    assert tiles(m.Causal(), 16) == (128, 64)
    assert tiles(m.Stride(4, 0, True), 32) == (128, 32)
    assert tiles(m.Dilated(4, 0, True), 32) == (32, 32)
    assert tiles(m.Random(2, 0, 0), 32) == (32, 32)
    assert tiles(m.Stride(100, 0, False), 32) == (128, 64)


def test_bands_of_a_key_tile_that_begin_at_their_own_first_keys() -> None:
    columns = [m.Columns(m.Edge(first, False), m.Edge(first + 5, False), False) for first in (40, 10)]
    term = m.Intersection((m.Causal(), m.Union(tuple(columns))))
    (head_class,) = Lowered(pattern(term)).transposed.classes
    program = project_transposed(head_class, TILE, 64)
    constants = {name: values[0] for name, values in head_class.constants}
    visited = sorted(visit.tile for visit in transposed_visits(program, constants, (0, 64), 100, (0, 100)))
    assert visited == list(range(-(-100 // TILE)))  # query 10 is in the first tile, and query 99 sees the keys of both


def test_an_order_that_is_proved_takes_no_exchanges() -> None:
    sorted_columns = [m.Columns(m.Edge(10 * n, False), m.Edge(10 * n + 5, False), False) for n in range(20)]
    term = m.Intersection((m.Causal(), m.Union(tuple(sorted_columns))))
    (head_class,) = Lowered(pattern(term)).transposed.classes
    names = [let.name for let in project_transposed(head_class, TILE, 64).lets]
    assert not any(name.startswith(("low", "high")) for name in names)

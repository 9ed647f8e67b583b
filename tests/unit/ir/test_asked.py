"""Tile programs of patterns with inputs: what they visit and gather, whatever the inputs say."""

from __future__ import annotations

import pytest

from sparsec.ir.bands.classes import equal_heads
from sparsec.ir.bands.interpreter import pairs
from sparsec.ir.expr.fold import picks_in
from sparsec.ir.expr.nodes import TRUE
from sparsec.ir.expr.scalars import DOCUMENT, FORWARD, TRANSPOSED
from sparsec.ir.tiles.interpreter import visits
from sparsec.ir.tiles.listed import lane_rows
from sparsec.ir.tiles.project import project, project_transposed
from sparsec.ir.tiles.verify import sampled, verify_program
from sparsec.pipeline import Lowered
from sparsec.prove.decide import PROVED
from sparsec.prove.proving import prove
from sparsec.sema import model as m

BLOCK = 64
KINDS = {
    "length": m.InputDecl("length", m.InputKind.LENGTH, 1, 1),
    "tokens": m.InputDecl("tokens", m.InputKind.TOKENS, 1, 1),
    "columns": m.InputDecl("columns", m.InputKind.COLUMNS, 1, 1),
    "slashes": m.InputDecl("slashes", m.InputKind.SLASHES, 1, 1, m.InputUnit.TILES),
    "rows": m.InputDecl("rows", m.InputKind.ROWS, 1, 1),
    "pages": m.InputDecl("pages", m.InputKind.ROWS, 1, 1, m.InputUnit.BLOCKS),
    "blocks": m.InputDecl("blocks", m.InputKind.BLOCKS, 1, 1),
    "labels": m.InputDecl("labels", m.InputKind.LABELS, 1, 1),
    "tree": m.InputDecl("tree", m.InputKind.TREE, 1, 1),
}
INPUTS = tuple(KINDS.values())
ORDINALS = {name: n for n, name in enumerate(KINDS)}


def named(kind: str) -> m.Input:
    return m.Input(ORDINALS[kind])


def length() -> m.RunTimeLength:
    return m.RunTimeLength(ORDINALS["length"])


def causal(*terms: m.Term) -> m.Term:
    return m.Intersection((m.Causal(), *terms))


SINK_AND_WINDOW = m.Union((m.Sink(40, False), m.Window(100, 0, False)))
TERMS: dict[str, m.Term] = {
    **{kind: named(kind) for kind in KINDS if kind != "length"},
    "causal blocks": causal(named("blocks")),
    "blocks beside a window": causal(m.Union((SINK_AND_WINDOW, named("blocks")))),
    "causal but for marked keys": causal(m.Complement(named("tokens"))),
    "rows beside a window": causal(m.Union((SINK_AND_WINDOW, named("rows")))),
    "rows of a window": causal(named("rows"), m.Window(100, 0, False)),
    "rows or pages": causal(m.Union((named("rows"), named("pages"), m.Sink(3, False)))),
    "rows but for others": m.Difference(m.Causal(), named("rows")),
    "all that a list leaves": m.Difference(named("blocks"), named("rows")),
    "vertical and slash": causal(m.Union((named("columns"), named("slashes")))),
    "columns from row 70 on": m.Difference(
        m.Union((named("columns"), m.Sink(3, False))), m.Rows(None, m.Edge(70, False), False)
    ),
    "columns and rows": causal(m.Union((named("columns"), named("rows"), m.Window(100, 0, False)))),
    "columns of a window": causal(m.Difference(named("columns"), m.Window(70, 0, False)), m.Window(2, 0, True)),
    "both at once": m.Intersection((named("columns"), named("slashes"), m.Stride(3, 1, True))),
    "beside strides": causal(m.Union((m.Stride(5, 2, True), m.Window(2, 0, True), named("blocks")))),
    "beside draws": causal(m.Union((m.Random(2, 3, 1), named("blocks")))),
    "of draws": causal(m.Random(2, 3, 1), named("blocks")),
    "draws but for blocks": causal(m.Difference(m.Random(2, 3, 1), named("blocks"))),
    "a run-time sink": causal(m.Union((m.Sink(length(), False), m.Window(33, 0, False)))),
    "a run-time window": m.Window(length(), 5, False),
    "run-time columns": m.Union((m.Columns(length(), None, False), m.Rows(None, length(), False))),
    "not a run-time window": m.Complement(m.Window(length(), 5, False)),
    "tree beside a context": causal(named("tree"), m.Union((m.Window(90, 0, False), m.Sink(4, False)))),
    "labels but for a window": m.Difference(named("labels"), m.Window(64, 0, False)),
    "many bands": m.Union(
        (*(m.Intersection((m.Stride(9 + n, n, True), m.Causal())) for n in range(9)), named("blocks"))
    ),
}


OF_COLUMNS = tuple((name, True) for name in TERMS if name.startswith(("columns", "vertical", "both")))
"""Those that list columns, which are gathered."""


def pattern(term: m.Term) -> m.ResolvedPattern:
    return m.ResolvedPattern(1, 1, (term,), BLOCK, INPUTS, m.Documents.NONE, m.Score())


@pytest.mark.parametrize(("name", "gathers_columns"), [*((name, False) for name in TERMS), *OF_COLUMNS])
@pytest.mark.parametrize("tiles", [(64, 64), (32, 64), (64, 16)], ids=str)
def test_a_program_visits_and_gathers_each_pair_once(name: str, tiles: tuple[int, int], gathers_columns: bool) -> None:
    lowered, form = Lowered(pattern(TERMS[name])), {"gathers_columns": gathers_columns}
    (whole,), (transposed,) = lowered.mask.classes, lowered.transposed.classes
    constants = (*whole.constants, *lane_rows(whole))
    verify_program(project(whole, *tiles, **form), whole.bands, constants, FORWARD)
    verify_program(project(whole, *tiles, in_document=True, **form), whole.bands, constants, DOCUMENT)
    program = project_transposed(transposed, *tiles, **form)
    verify_program(program, transposed.bands, (*transposed.constants, *lane_rows(transposed)), TRANSPOSED)


@pytest.mark.parametrize(
    ("name", "gathers_columns"), [*((name, False) for name in sorted(TERMS.keys() - {"many bands"})), *OF_COLUMNS]
)
def test_the_claims_hold_whatever_the_inputs_say(name: str, gathers_columns: bool) -> None:
    claims = prove(pattern(TERMS[name]), target="cpu" if gathers_columns else "torch", timeout_s=20)
    assert {claim.status for claim in claims} == {PROVED}, [str(claim) for claim in claims if claim.status != PROVED]


def test_a_full_tile_of_an_input_is_visited_in_full() -> None:
    (whole,) = Lowered(pattern(TERMS["causal blocks"])).mask.classes
    program = project(whole, 64, 64)
    assert picks_in(program.full[0].when) and all(segment.when != TRUE for segment in program.full)
    every = visits(program, {}, (640, 704), 1000, asked=lambda test, scope, queries, keys: keys[0] % 192 == 0)
    assert [(visit.tile, visit.full) for visit in every] == [(0, True), (3, True), (6, True), (9, True)]


def test_lists_of_rows_are_gathered_and_not_visited() -> None:
    (whole,) = Lowered(pattern(TERMS["rows of a window"])).mask.classes
    program = project(whole, 64, 64)
    assert not program.full and not program.masked
    assert [program.inputs[gather.test].ordinal for gather in program.gathers] == [ORDINALS["rows"]]


def test_columns_are_gathered_beside_the_tiles_of_slashes() -> None:
    (whole,) = Lowered(pattern(TERMS["vertical and slash"])).mask.classes
    program = project(whole, 64, 64, gathers_columns=True)
    (gather,), (masked,) = program.gathers, program.masked
    assert program.inputs[gather.test].ordinal == ORDINALS["columns"] and gather.reach is not None
    asked = {program.inputs[each.ordinal].ordinal for each in picks_in(masked.when)}
    assert asked == {ORDINALS["slashes"]} == {program.inputs[each.ordinal].ordinal for each in picks_in(gather.live)}


def test_a_list_that_is_only_left_out_is_asked_pair_by_pair() -> None:
    (whole,) = Lowered(pattern(TERMS["rows but for others"])).mask.classes
    program = project(whole, 64, 64)
    assert not program.gathers and not program.full and picks_in(program.live)


def test_bands_hold_what_inputs_say() -> None:
    import numpy as np

    (whole,) = Lowered(pattern(TERMS["blocks beside a window"])).mask.classes
    (_, constants), *_ = equal_heads(whole.heads, whole.constants)
    i, j = np.arange(300, 400), np.arange(400)
    found = pairs(whole.bands, constants, i, j, 400, inputs=sampled)
    row, column = i[:, None], j[None, :]
    (test,) = {test for band in whole.bands for test in band.inputs}
    expected = (column <= row) & ((column < 40) | (row - column < 100) | sampled(test, row, column))
    assert (found == expected).all() and found.any() and not found.all()

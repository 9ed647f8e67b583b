"""Of drawn patterns: bands hold the pairs of the reference mask; they and tile programs are what they promise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given, note, reject
from hypothesis import strategies as st
from vacuity import Coverage, examples, wanted

from sparsec.ir.bands.classes import BandClass, equal_heads
from sparsec.ir.bands.interpreter import pairs
from sparsec.ir.bands.normalise import TooManyBands
from sparsec.ir.bands.verify import verify_mask, verify_transposed
from sparsec.ir.expr.scalars import DOCUMENT, FORWARD, TRANSPOSED, Frame
from sparsec.ir.tiles.listed import lane_rows
from sparsec.ir.tiles.program import TileProgram
from sparsec.ir.tiles.project import project, project_transposed
from sparsec.ir.tiles.verify import verify_program
from sparsec.pipeline import Lowered
from sparsec.plan.build import fitting_tiles
from sparsec.reference.mask import mask
from sparsec.sema.model import ResolvedPattern
from sparsec.testing import patterns, shapes, sparse_text
from sparsec.testing.strategies import Shape

BANDS, PROGRAMS = wanted(200, at_night=20_000), wanted(20, at_night=1_000)
TILES = st.sampled_from([(64, 64), (16, 16), (32, 64), (64, 16)])


def test_bands_are_normal_and_hold_the_pairs_of_the_reference() -> None:
    coverage = Coverage()

    @examples(BANDS)
    @given(patterns(), shapes())
    def check(pattern: ResolvedPattern, shape: Shape) -> None:
        note(f"{sparse_text(pattern)}{shape}")
        lowered = Lowered(pattern)
        try:
            found = lowered.mask
        except TooManyBands:
            reject()
        verify_mask(found)
        verify_transposed(found, lowered.transposed)
        visible = mask(pattern, shape.n_q, shape.n_k, shape.q_offset)
        queries, keys = np.arange(shape.q_offset, shape.q_offset + shape.n_q), np.arange(shape.n_k)
        for of in found.classes:
            for heads, constants in equal_heads(of.heads, of.constants):
                held = pairs(of.bands, constants, queries, keys, shape.n_k)
                for head in heads:
                    assert np.array_equal(held, visible[head].numpy()), f"head {head}"
        coverage.note(sparse_text(pattern), visible)

    check()
    coverage.check(BANDS)


def programs(pattern: ResolvedPattern, tiles: tuple[int, int]) -> Iterator[tuple[TileProgram, BandClass, Frame]]:
    """Those of every class: forward, in a document, and transposed."""
    lowered = Lowered(pattern)
    fitting = fitting_tiles(lowered.mask, *tiles)
    for of in lowered.mask.classes:
        yield project(of, *fitting), of, FORWARD
        yield project(of, *fitting, in_document=True), of, DOCUMENT
    for of in lowered.transposed.classes:
        yield project_transposed(of, *fitting), of, TRANSPOSED


def test_tile_programs_are_what_they_promise() -> None:
    seen: set[str] = set()

    @examples(PROGRAMS)
    @given(patterns(), TILES)
    def check(pattern: ResolvedPattern, tiles: tuple[int, int]) -> None:
        note(f"{sparse_text(pattern)}tiles {tiles}")
        try:
            for program, of, frame in programs(pattern, tiles):
                verify_program(program, of.bands, (*of.constants, *lane_rows(of)), frame)
        except TooManyBands:
            reject()
        seen.add(sparse_text(pattern))

    check()
    assert len(seen) >= PROGRAMS

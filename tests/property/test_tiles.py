"""The tiles that lowering visits are those of the reference mask, for drawn patterns, shapes and tile sizes."""

from __future__ import annotations

import pytest
from hypothesis import given, note, reject
from hypothesis import strategies as st
from vacuity import Coverage, examples, wanted

from sparsec.ir.bands.normalise import TooManyBands
from sparsec.pipeline import Lowered
from sparsec.reference.mask import mask
from sparsec.sema.model import ResolvedPattern
from sparsec.testing import patterns, shapes, sparse_text
from sparsec.testing.strategies import Shape
from sparsec.testing.tiles import check_tiles

PATTERNS, SINGLE_TERMS = wanted(500, at_night=45_000), wanted(100, at_night=3_000)
TILES = st.sampled_from([(64, 64), (16, 16), (32, 64), (64, 32), (16, 64), (128, 64)])


def test_tiles_equal_the_reference_mask() -> None:
    coverage = Coverage()

    @examples(PATTERNS)
    @given(patterns(), shapes(), TILES)
    def check(pattern: ResolvedPattern, shape: Shape, tiles: tuple[int, int]) -> None:
        note(f"{sparse_text(pattern)}{shape}, tiles {tiles}")
        try:
            plan = Lowered(pattern).plan_forward(head_dim=64, dtype="float32", query_tile=tiles[0], key_tile=tiles[1])
        except TooManyBands:
            reject()
        visible = mask(pattern, shape.n_q, shape.n_k, shape.q_offset)
        check_tiles(plan, visible, shape.q_offset)
        coverage.note(sparse_text(pattern), visible)

    check()
    coverage.check(PATTERNS)


@pytest.mark.parametrize("tiles", [(16, 16), (64, 64)], ids=str)
def test_single_terms_visit_no_tile_in_vain(tiles: tuple[int, int]) -> None:
    """Of a single term no visited tile is without a live pair, and none that is full is run with a mask.

    But for `dilated`: its distances may reach before key 0 from each of the few rows that a first tile has.
    """

    @examples(SINGLE_TERMS)
    @given(patterns(max_operators=0), shapes())
    def check(pattern: ResolvedPattern, shape: Shape) -> None:
        note(f"{sparse_text(pattern)}{shape}")
        plan = Lowered(pattern).plan_forward(head_dim=64, dtype="float32", query_tile=tiles[0], key_tile=tiles[1])
        count = check_tiles(plan, mask(pattern, shape.n_q, shape.n_k, shape.q_offset), shape.q_offset)
        assert count.needless == 0, count
        assert count.empty == 0 or "dilated" in sparse_text(pattern), count

    check()

"""Terms to bands: the shapes that the algebra must reach, and the limits it must keep."""

from __future__ import annotations

import numpy as np
import pytest

from sparsec.ir.bands.band import ALL, Band, Congruence
from sparsec.ir.bands.bounds import LIMIT, POSITION_LIMIT, Base, Bound
from sparsec.ir.bands.interpreter import pairs
from sparsec.ir.bands.lower import lower
from sparsec.ir.bands.normalise import BAND_LIMIT, Effort, TooManyBands
from sparsec.sema import model as m

CAUSAL, FULL, NONE = m.Causal(), m.Full(), m.Nothing()


def bands(term: m.Term, block: int = 64) -> tuple[Band, ...]:
    return lower(term, block, Effort())


def test_operators_on_full_and_none() -> None:
    window = m.Window(8, 0, blocks=False)
    assert bands(m.Union((window, FULL))) == (ALL,)
    assert bands(m.Intersection((window, NONE))) == ()
    assert bands(m.Complement(NONE)) == (ALL,)
    assert bands(m.Complement(FULL)) == ()
    assert bands(m.Difference(window, window)) == ()


def test_a_window_is_one_interval() -> None:
    assert bands(m.Window(8, 2, blocks=False)) == (
        Band(lower=(Bound(Base.ROW, 1, -7),), upper=(Bound(Base.ROW, 1, 3),)),
    )
    assert bands(m.Window(2, 0, blocks=True)) == (
        Band(lower=(Bound(Base.ROW, 64, -64),), upper=(Bound(Base.ROW, 64, 64),)),
    )


def test_what_lies_outside_a_causal_window_is_one_interval() -> None:
    term = m.Difference(CAUSAL, m.Window(8, 0, blocks=False))
    assert bands(term) == (Band(upper=(Bound(Base.ROW, 1, -7),)),)


def test_a_complement_of_a_stride_is_the_other_residues() -> None:
    (band,) = bands(m.Complement(m.Stride(5, 2, blocks=False)))
    assert band.congruences == (Congruence(1, 5, 3, 4, moving=False),)
    assert bands(m.Union((m.Stride(5, 2, blocks=False), m.Complement(m.Stride(5, 2, blocks=False))))) == (ALL,)


def test_two_strides_meet_by_the_chinese_remainder() -> None:
    term = m.Intersection((m.Stride(4, 1, blocks=True), m.Stride(6, 3, blocks=True)))
    (band,) = bands(term)
    assert band.congruences == (Congruence(64, 12, 9, 1, moving=False),)
    assert bands(m.Intersection((m.Stride(4, 1, blocks=True), m.Stride(6, 2, blocks=True)))) == ()


def test_neighbouring_strides_join() -> None:
    term = m.Union(tuple(m.Stride(128, phase, blocks=False) for phase in range(120, 128)))
    (band,) = bands(term)
    assert band.congruences == (Congruence(1, 128, 120, 8, moving=False),)


def test_touching_columns_join() -> None:
    def columns(a: int, b: int) -> m.Columns:
        return m.Columns(m.Edge(a, False), m.Edge(b, False), blocks=False)

    assert len(bands(m.Union((columns(0, 16), columns(16, 32))))) == 1
    assert len(bands(m.Union((columns(0, 16), columns(17, 32))))) == 2


def test_a_contained_band_is_dropped() -> None:
    small, large = m.Window(8, 0, blocks=False), m.Window(80, 0, blocks=False)
    assert bands(m.Union((small, large))) == bands(large)
    assert bands(m.Intersection((small, large))) == bands(small)


def test_lengths_beyond_any_sequence_cost_nothing() -> None:
    huge = 2**31 - 1
    assert bands(m.Sink(huge, blocks=True)) == (ALL,)
    assert bands(m.Stride(huge, 5, blocks=True)) == (
        Band(lower=(Bound(Base.START, 1, 320),), upper=(Bound(Base.START, 1, 384),)),
    )
    assert bands(m.Stride(huge, huge - 1, blocks=True)) == ()
    for term in (m.Window(huge, huge, True), m.Chunk(huge, huge, huge), m.Dilated(huge, 7, True), m.Global(huge, True)):
        for band in bands(term):
            for bound in (*band.lower, *band.upper, *band.first_row, *band.last_row):
                assert isinstance(bound.offset, int) and abs(bound.offset) <= LIMIT and bound.unit <= LIMIT


def test_a_neighbourhood_in_a_grid_is_a_band_for_each_row() -> None:
    near = m.Near2d(40, 2, 3)
    assert [(band.lower, band.upper) for band in bands(near)] == [
        (
            (Bound(Base.ROW, 1, 40 * row - 3), Bound(Base.ROW, 40, 40 * row)),
            (Bound(Base.ROW, 1, 40 * row + 4), Bound(Base.ROW, 40, 40 * (row + 1))),
        )
        for row in range(-2, 3)
    ]
    assert len(bands(m.Intersection((near, CAUSAL)))) == 3
    for whole_rows in (m.Near2d(40, 50, 39), m.Near2d(40, 50, 2**31 - 1)):
        assert bands(whole_rows) == bands(m.Chunk(40, 50, 50))
    assert len(bands(m.Near2d(40, 31, 0))) == 63
    (column,) = bands(m.Near2d(40, 32, 0))
    assert column.congruences == (Congruence(1, 40, 0, 1, moving=True),)


HUGE = (POSITION_LIMIT - 1, POSITION_LIMIT, LIMIT - 1, LIMIT, 2**31 - 1)


@pytest.mark.parametrize("width", HUGE)
@pytest.mark.parametrize("near", [0, 1, 3, 10**6, 2**31 - 1])
@pytest.mark.parametrize("rows", [0, 1, 2, 2**31 - 1])
def test_grids_wider_than_any_sequence(width: int, rows: int, near: int) -> None:
    """At positions before 0 too, where i // width is -1."""
    queries, keys = np.arange(-30, 40), np.arange(25)
    down = queries[:, None] // width - keys // width
    across = queries[:, None] % width - keys % width
    for term, held in (
        (m.Near2d(width, rows, near), (abs(down) <= rows) & (abs(across) <= near)),
        (m.Chunk(width, rows, near), (-near <= down) & (down <= rows)),
    ):
        assert (pairs(bands(term), {}, queries, keys, 25) == held).all()


def test_a_neighbourhood_of_too_many_rows_is_refused_at_once() -> None:
    with pytest.raises(TooManyBands, match=f"at most {BAND_LIMIT} bands"):
        bands(m.Near2d(1000, 2**31 - 1, 3))
    assert len(bands(m.Near2d(1000, 31, 3))) == 63


def test_too_many_bands_are_refused() -> None:
    term = m.Union(
        tuple(m.Columns(m.Edge(3 * n, False), m.Edge(3 * n + 1, False), False) for n in range(BAND_LIMIT + 1))
    )
    with pytest.raises(TooManyBands, match=f"expected at most {BAND_LIMIT} bands"):
        bands(term)


def test_a_pattern_that_takes_too_many_steps_is_refused() -> None:
    columns = tuple(m.Columns(m.Edge(3 * n, False), m.Edge(3 * n + 1, False), False) for n in range(60))
    term = m.Intersection((m.Union(columns), m.Complement(m.Union(columns))))
    with pytest.raises(TooManyBands, match="too many steps"):
        lower(term, 64, Effort(left=1000))
    assert bands(term) == ()

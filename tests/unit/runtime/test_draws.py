"""Tables of draws against the meaning of `random` in `reference.mask`, number by number."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.tiles.program import ListSpec
from sparsec.reference.mask import mix
from sparsec.runtime.draws import DrawTables, draw_tables

CPU = torch.device("cpu")
SEEDS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
LANES = st.lists(st.tuples(SEEDS, st.integers(0, 2**31)), min_size=1, max_size=3)


def expected(seed: int, lane: int, block: int, width: int) -> list[int]:
    """The draws of a query block; of equal ones the first stays."""
    drawn = [mix(seed, lane, block, t) % (block + 1) for t in range(width)] if block >= 0 else [-1] * width
    return [-1 if one in drawn[:t] else one for t, one in enumerate(drawn)]


@given(
    lanes=LANES,
    width=st.integers(1, 9),
    block=st.sampled_from([1, 16, 128]),
    n_queries=st.integers(0, 70),
    q_offset=st.integers(-200, 400) | st.integers(0, POSITION_LIMIT - 100),
)
def test_every_number(lanes: list[tuple[int, int]], width: int, block: int, n_queries: int, q_offset: int) -> None:
    (table,) = draw_tables((ListSpec(width, block, tuple(lanes), "row0"),), n_queries, q_offset, CPU)
    blocks = range(q_offset // block, (q_offset + n_queries - 1) // block + 1)
    assert table.dtype == torch.int32 and table.is_contiguous() and table.shape == (len(lanes), len(blocks), width)
    assert table.tolist() == [[expected(*lane, qb, width) for qb in blocks] for lane in lanes]


def test_a_call_of_other_queries_has_other_tables() -> None:
    draws = DrawTables((ListSpec(2, 16, ((5, 0),), "row0"),))
    for n_queries, q_offset in ((100, 0), (100, 0), (50, 0), (50, 64)):
        (found,) = draws.tables(n_queries, q_offset, CPU)
        assert torch.equal(found, *draw_tables(draws.lists, n_queries, q_offset, CPU))

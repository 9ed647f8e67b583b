"""The keys that ranges of queries need, against the pairs of the bands; and positions dealt out to ranks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsec
from sparsec.distributed import shards as dealing
from sparsec.distributed.holders import held_part, run_length
from sparsec.distributed.needs import Piece, count_below, keys_within, needed
from sparsec.distributed.traffic import Traffic
from sparsec.distributed.work import work_before
from sparsec.ir.bands.interpreter import pairs
from sparsec.pipeline import Lowered
from sparsec.sema.model import ResolvedPattern
from sparsec.testing.strategies import patterns

EXAMPLES = Path(__file__).parents[3] / "examples"
LENGTH = 170


@settings(max_examples=150, deadline=None)
@given(patterns(), st.lists(st.integers(0, LENGTH), min_size=2, max_size=6), st.integers(0, 60))
def test_what_is_needed_is_there(pattern: ResolvedPattern, ends: list[int], origin: int) -> None:
    """For queries of each second range, of a document that begins with key `origin` and counts from there."""
    ends = sorted(max(end, origin) for end in ends)
    pieces = [Piece((a, b), (origin, LENGTH), origin) for a, b in zip(ends[::2], ends[1::2], strict=False)]
    rows = np.concatenate([np.arange(*each.queries) for each in pieces]) - origin
    n_keys = LENGTH - origin
    for bands in Lowered(pattern).bands:
        needs = needed(bands, pieces)
        assert all(a.stop <= b.start for a, b in pairwise(needs))
        found = keys_within(needs, (0, LENGTH))
        if len(rows) and n_keys:
            seen = pairs(bands, {}, rows, np.arange(n_keys), n_keys).any(axis=0)
            assert set(np.nonzero(seen)[0] + origin) <= set(found.tolist())
        at = np.arange(LENGTH + 1)
        assert count_below(needs, at).tolist() == np.searchsorted(found, at).tolist()


@pytest.mark.parametrize(
    ("terms", "first", "last", "keys"),
    [
        ("window(10)", 40, 50, range(31, 50)),
        ("sink(4) | window(10)", 40, 50, [*range(4), *range(31, 50)]),
        ("stride(4b)", 100, 101, [*range(16), *range(64, 80)]),
        ("stride(4b, phase = 1) | stride(2b)", 90, 91, [*range(48), *range(64, 91)]),
        ("dilated(5)", 40, 41, range(0, 41, 5)),
        ("dilated(5)", 40, 42, [key for key in range(42) if key % 5 < 2]),
        ("chunk(32)", 70, 80, range(64, 80)),
        ("sink(8) & ~window(4b)", 10, 20, []),
    ],
)
def test_it_is_no_more_than_that(terms: str, first: int, last: int, keys: list[int]) -> None:
    pattern = sparsec.parse(f"pattern p {{ block 16  heads 1  causal  attend {terms} }}").pattern("p")
    needs = needed(pattern.lowered(None, None).bands[0], [Piece((first, last), (0, 200))])
    assert keys_within(needs, (0, 200)).tolist() == list(keys)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(0, 500), st.sampled_from([1, 16, 64]), st.integers(0, 3))
def test_every_position_has_one_rank(ranks: int, more: int, block: int, power: int) -> None:
    length = ranks + more
    for deal in (dealing.by_work, dealing.zigzag, dealing.contiguous):
        shards = deal(length, ranks, block, lambda at: at**power)
        chunks = [chunk for of_rank in shards.chunks for chunk in of_rank]
        assert sorted(np.concatenate([np.arange(*chunk) for chunk in chunks]).tolist()) == list(range(length))
        assert all(a[1] < b[0] for of_rank in shards.chunks for a, b in pairwise(of_rank))


@pytest.mark.parametrize("ranks", [2, 8, 64])
@pytest.mark.parametrize("name", ["dense", "s2", "lm_infinite", "longgen", "duo_attention", "mistral", "phi3_small"])
def test_work_is_even(name: str, ranks: int) -> None:
    program = sparsec.load(EXAMPLES / f"{name}.sparse")
    for pattern in program.patterns:
        lowered = program.pattern(pattern).lowered(32, 8)
        shards = dealing.by_work(131_072, ranks, 64, work_before(lowered, 131_072))
        assert shards.imbalance <= 1.05
        assert max(map(shards.tokens, range(ranks))) <= 1.05 * 131_072 / ranks


def test_rows_that_travel() -> None:
    pattern = sparsec.parse("pattern p { heads 2 kv 1  causal  attend sink(4) | window(10) }").pattern("p")
    lowered = pattern.lowered(None, None)
    traffic = Traffic.of(lowered, dealing.contiguous(400, 4, 1, work_before(lowered, 400)))
    assert traffic.rows[:, :, 0].tolist() == [[100, 9 + 4, 4, 4], [0, 100, 9, 0], [0, 0, 100, 9], [0, 0, 0, 100]]
    assert sorted(traffic.graph.edges) == [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)]
    assert traffic.graph.edges[0, 1]["rows"] == (13,)


def test_a_sink_and_a_window_send_little() -> None:
    pattern = sparsec.parse("pattern p { causal attend sink(64) | window(1024) }").pattern("p")
    lowered = pattern.lowered(32, 8)
    traffic = Traffic.of(lowered, dealing.by_work(131_072, 8, 64, work_before(lowered, 131_072)))
    sent = traffic.rows.sum() - np.trace(traffic.rows[:, :, 0])
    assert sent == 7 * (1023 + 64)
    assert sent <= 131_072 * 7 / 8


@pytest.mark.parametrize("ranks", [3, 4, 8])
@pytest.mark.parametrize(
    ("name", "pattern"),
    [("dense", "dense"), ("s2", "s2_one_phase"), ("longgen", "longgen_blocks"), ("sparse_transformer", None)],
)
def test_ranks_share_a_cache_evenly(name: str, pattern: str | None, ranks: int) -> None:
    program = sparsec.load(EXAMPLES / f"{name}.sparse")
    for each in [pattern] if pattern else program.patterns:
        resolved = program.pattern(each).lowered(32, 8).pattern
        run = run_length(resolved, ranks)
        parts = [Lowered(held_part(resolved, run, rank, ranks)).layout for rank in range(ranks)]
        whole = Lowered(resolved).layout
        assert max(part.slots(131_072) for part in parts) <= 1.05 * whole.slots(131_072) / ranks

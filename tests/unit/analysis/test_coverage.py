"""Counts of pairs agree with the reference mask."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import sparsec
from sparsec.analysis import coverage as module
from sparsec.analysis.coverage import HeadCoverage, View, pattern_coverage
from sparsec.analysis.rows import Bools, Ints, RowPlaces, keys_seen, sampled_rows
from sparsec.ir.bands.band import Band
from sparsec.pipeline import Lowered
from sparsec.reference import mask
from sparsec.sema import model as m
from sparsec.sema.model import Documents, ResolvedPattern

PATTERNS = [
    "causal attend full",
    "attend full",
    "attend none",
    "causal attend sink(5) | window(40)",
    "block 32 causal attend window(2b) | stride(4b, phase = -h)",
    "attend dilated(3) & window(90, ahead = 20)",
    "block 32 causal attend random(2, seed = 3) | window(1b)",
    "where h == 2 attend full otherwise attend causal & window(9 + h)",
    "attend columns(100 .. ) - rows(-40 ..)",
    "causal attend stride(7) | dilated(5, phase = 2) | stride(3, phase = 1) & dilated(4)",
    "attend ~(stride(5) | window(9)) & ~random(3)",
]


def resolved(body: str, heads: int = 4) -> ResolvedPattern:
    return sparsec.parse(f"pattern p {{ {body} }}").pattern().resolve(heads, heads)


def covered(pattern: ResolvedPattern, length: int, cells: tuple[int, int] = (1000, 1000)) -> tuple[HeadCoverage, ...]:
    return pattern_coverage(Lowered(pattern), length, cells)


def shares(live: np.ndarray, head: HeadCoverage) -> np.ndarray:
    """Of a mask, [rows, columns], the share of live pairs in each cell."""
    summed = np.add.reduceat(np.add.reduceat(live.astype(float), head.rows[:-1], 0), head.columns[:-1], 1)
    return summed / (np.diff(head.rows)[:, None] * np.diff(head.columns))


@pytest.mark.parametrize("body", PATTERNS)
@pytest.mark.parametrize("length", [1, 50, 250])
@pytest.mark.parametrize("cells", [(1000, 1000), (7, 5), (1, 1)])
def test_counts_are_those_of_the_mask(body: str, length: int, cells: tuple[int, int]) -> None:
    pattern = resolved(body)
    expected = mask(pattern, length, length).numpy()
    found = covered(pattern, length, cells)
    assert sorted(head for each in found for head in each.heads) == list(range(pattern.heads))
    for each in found:
        for head in each.heads:
            assert each.exact
            assert each.live_pairs == expected[head].sum()
            assert each.causal == (not np.triu(expected[head], 1).any())
            assert np.allclose(each.live, shares(expected[head], each))


@pytest.mark.parametrize("body", PATTERNS)
@pytest.mark.parametrize("restart", [False, True])
def test_parts_and_documents_are_those_of_the_mask(body: str, restart: bool) -> None:
    pattern = resolved(body)
    bounds = (0, 37, 38, 150, 200)
    cut_at = Documents.RESTART if restart else Documents.SEPARATE
    whole = mask(replace(pattern, documents=cut_at), 200, 200, cu_seqlens=bounds)
    view = View((30, 160), (5, 170), 200, bounds, restart)
    for each in pattern_coverage(Lowered(pattern), 200, (9, 13), view=view):
        own = whole[each.heads[0]].numpy()[30:160, 5:170]
        cut = replace(each, rows=each.rows - 30, columns=each.columns - 5)
        assert each.exact and np.allclose(each.live, shares(own, cut))


def test_queries_before_and_behind_the_keys() -> None:
    pattern = resolved("causal attend window(30) | stride(7)")
    for first in (-20, 40):
        view = View((first, first + 50), (0, 60), 60)
        expected = mask(pattern, 50, 60, first)[0].numpy()
        (found, *_) = pattern_coverage(Lowered(pattern), 60, (1, 1), view=view)
        assert found.exact and found.live_pairs == expected.sum()


@pytest.mark.parametrize(("rows", "columns"), [((0, 9), (0, 9)), ((3, 7), (1, 5)), ((0, 4), (6, 9)), ((7, 9), (2, 4))])
def test_causal_pairs_of_a_view(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    expected = sum(j <= i for i in range(*rows) for j in range(*columns))
    assert View(rows, columns, 9).causal_pairs == expected


def test_a_long_sequence_is_sampled_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = resolved("block 32 causal attend window(70) | stride(8b, phase = -h) | rows(4000 .. 4003)", heads=1)
    (exact,) = covered(pattern, 8000, (10, 10))
    monkeypatch.setattr(module, "TOTAL_WORK", 1)
    monkeypatch.setattr(module, "GRID_WORK", 1)
    (sampled,) = covered(pattern, 8000, (10, 10))
    assert exact.exact and not sampled.exact
    assert sampled.live_pairs == pytest.approx(exact.live_pairs, rel=0.02)
    assert np.allclose(sampled.live, exact.live, atol=0.03)


def test_several_residues_beyond_every_table_are_estimated() -> None:
    pattern = resolved("attend stride(97) & dilated(101) | stride(89)", heads=1)
    (found,) = covered(pattern, 2000, (1, 1))
    expected = int(mask(pattern, 2000, 2000).sum())
    assert not found.exact and found.live_pairs == pytest.approx(expected, rel=0.2)


def test_long_lengths_hold_nothing_of_their_size() -> None:
    pattern = resolved("block 64 causal attend window(16b) | stride(16b, phase = -h)")
    tracemalloc.start()
    found = covered(pattern, 1 << 26, (64, 64))
    assert tracemalloc.get_traced_memory()[1] < 1 << 27
    tracemalloc.stop()
    assert not found[0].exact
    assert found[0].live_pairs / ((1 << 26) ** 2 / 2) == pytest.approx(1 / 16, rel=0.01)
    assert 0 < found[0].live[40, 3] < 0.07


def test_only_one_head() -> None:
    pattern = resolved("causal attend window(9 + h)")
    (found,) = pattern_coverage(Lowered(pattern), 100, (10, 10), only=2)
    assert found.heads == (2,)
    assert found.live_pairs == int(mask(pattern, 100, 100)[2].sum())


def test_inputs_count_as_if_they_named_all_that_they_may() -> None:
    rows = m.InputDecl("picks", m.InputKind.ROWS, 1, 1)
    term = m.Intersection((m.Causal(), m.Union((m.Window(20, 0, False), m.Input(0)))))
    lowered = Lowered(m.ResolvedPattern(1, 1, (term,), 64, (rows,), m.Documents.NONE, m.Score()))
    (found,) = pattern_coverage(lowered, 200)
    assert found.live_pairs == 200 * 201 / 2 and found.causal and found.exact


def test_many_documents_share_what_a_picture_may_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 1,024 documents has rows of four forms, and two rows of each stand for the others."""
    pattern = resolved("causal attend rows(10 .. 200) & window(90) | rows(100 .. 400) & window(30)", 1)
    length, size = 1 << 20, 1 << 10
    looked = []

    def counted(bands: tuple[Band, ...], rows: RowPlaces, edges: Ints) -> tuple[Ints, Bools, bool]:
        looked.append(len(rows.at))
        return keys_seen(bands, rows, edges)

    monkeypatch.setattr(module, "keys_seen", counted)
    monkeypatch.setattr(module, "GRID_WORK", 1)
    monkeypatch.setattr(module, "TOTAL_WORK", 1)
    view = View((0, length), (0, length), length, tuple(range(0, length + 1, size)), True)
    (found,) = pattern_coverage(Lowered(pattern), length, (128, 128), view=view)
    parts = len(view.row_edges(Lowered(pattern).bands[0])) - 1
    assert not found.exact and parts > 4 * 1024 and sum(looked) <= 2 * (2 * parts + 128 * 16)
    exact = mask(pattern, size, size).sum().item() * (length // size)
    assert found.live_pairs == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize(("most", "least"), [(1, 1), (7, 2), (90, 2), (200, 2)])
def test_sampled_rows_stand_for_all(most: int, least: int) -> None:
    edges = (-3, 10, 11, 30, 64, 99, 100, 250)
    at, weights = sampled_rows(10, 110, edges, most, least)
    assert (np.diff(at) >= 0).all() and weights.sum() == pytest.approx(100)
    parts = list(pairwise((10, 11, 30, 64, 99, 100, 110)))
    for begin, end in parts:
        own = weights[(begin <= at) & (at < end)]
        assert own.sum() == pytest.approx(end - begin) and len(own) >= min(least, end - begin)
    assert len(at) == 100 if most >= 100 else len(at) <= max(most, least * len(parts))

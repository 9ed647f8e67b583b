"""Keys packed for a piece of queries, against the pairs of the pattern."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsec
from sparsec.distributed import shards as dealing
from sparsec.distributed.needs import Bools, Range
from sparsec.distributed.packing import packed_keys
from sparsec.distributed.traffic import Traffic
from sparsec.distributed.work import work_before
from sparsec.ir.bands.interpreter import pairs
from sparsec.pipeline import Lowered
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.sema.shifted import from_a_key_on
from sparsec.testing.strategies import patterns

EXAMPLES = Path(__file__).parents[3] / "examples"
LENGTH = 400


def pairs_of(lowered: Lowered, head: int, rows: Range, columns: Range, first: int = 0) -> Bools:
    """Of positions that count from `first`."""
    i, j = (np.arange(*each) - first for each in (rows, columns))
    return np.asarray(pairs(lowered.bands[head], {}, i, j, LENGTH), np.bool_)


def check(pattern: ResolvedPattern, ranks: int) -> bool:
    """Whether keys are packed."""
    lowered = Lowered(pattern)
    traffic = Traffic.of(lowered, dealing.zigzag(LENGTH, ranks, 1, np.copy))
    tail, share = from_a_key_on(pattern), pattern.heads // pattern.kv_heads
    far = 0
    for rank in range(ranks):
        packed = packed_keys(lowered, traffic, rank)
        if packed is None:
            return False
        assert tail is not None
        after = Lowered(tail.pattern)
        for piece in packed.pieces:
            rows, (first, last) = piece.piece.queries, piece.near
            for head in range(pattern.heads):
                of_head = after if first else lowered
                found = np.zeros((rows[1] - rows[0], LENGTH), np.bool_)
                found[:, first:last] = pairs_of(of_head, head, rows, (first, min(last, LENGTH)), first)
                for each in piece.far:
                    if each.heads[0] <= head < each.heads[1]:
                        keys = each.keys[head // share - each.groups[0]]
                        marks = each.marks[head - each.heads[0]].numpy()
                        assert not marks[len(keys) :].any()
                        found[:, keys[marks[: len(keys)]]] |= True
                        assert max(keys) < first
                        far += 1
                assert (found == pairs_of(lowered, head, rows, (0, LENGTH))).all()
    return far > 0


@settings(max_examples=30, deadline=None)
@given(patterns(), st.integers(1, 5))
def test_packed_keys_make_the_pairs_of_the_pattern(pattern: ResolvedPattern, ranks: int) -> None:
    check(pattern, ranks)


@pytest.mark.parametrize(
    "body",
    [
        "attend sink(4) | window(20)",
        "attend window(2b) | stride(4b, phase = -h)",
        "where g < 1 attend full  where g >= 1 attend sink(3) | window(20)",
        "attend window(30) | stride(4b) & ~columns(2b .. 5b)",
        "attend chunk(32) | rows(.. 20) | columns(3 .. 40)",
        "attend chunk(4b, back = 1) & dilated(3) | sink(2b) & stride(3)",
        "attend near2d(width = 16, rows = 2, columns = 3) | global(5)",
    ],
)
def test_keys_that_all_queries_see_are_packed(body: str) -> None:
    program = sparsec.parse(f"pattern p {{ heads 4 kv 2  block 16  causal  {body} }}")
    assert check(program.pattern("p").lowered(None, None).pattern, 4) == ("near2d" not in body or "global" in body)


@pytest.mark.parametrize(
    ("name", "pattern", "share"),
    [
        ("lm_infinite", "lm_infinite", 0.16),
        ("s2", "s2", 0.20),
        ("longgen", "longgen_blocks", 0.20),
        ("longgen", "longgen_sink", 0.14),
        ("duo_attention", "duo_attention", 0.49),
        ("llama4_chunked", "llama4_chunk", 0.13),
    ],
)
def test_a_rank_has_no_more_keys_than_it_needs(name: str, pattern: str, share: float) -> None:
    """Of 131,072 tokens on 8 ranks; an even share is 0.125."""
    length, ranks = 131_072, 8
    lowered = sparsec.load(EXAMPLES / f"{name}.sparse").pattern(pattern).lowered(32, 8)
    traffic = Traffic.of(lowered, dealing.by_work(length, ranks, 64, work_before(lowered, length)))
    for rank in range(ranks):
        packed = packed_keys(lowered, traffic, rank)
        assert packed is not None
        needed = sum(int(traffic.rows[:, rank, kind].sum()) for kind in traffic.kinds)
        assert packed.rows <= share * length * packed.groups
        assert packed.rows <= 1.05 * len(packed.pieces) * needed  # pieces may have the same keys


def test_patterns_that_are_not_packed() -> None:
    for body in (
        "attend random(2, seed = 1)",
        "alibi  attend full",
        "input t : tokens  attend t",
        "attend columns(-5 ..)",
    ):
        program = sparsec.parse(f"pattern p {{ heads 2 kv 1  causal  {body} }}")
        assert not check(program.pattern("p").lowered(None, None).pattern, 2)


def test_documents_begin_where_they_do() -> None:
    for word in ("documents", "documents restart"):
        program = sparsec.parse(f"pattern p {{ heads 2 kv 1  {word}  causal  attend sink(3) | window(9) }}")
        lowered = program.pattern("p").lowered(None, None)
        ends = (0, 150, LENGTH)
        traffic = Traffic.of(lowered, dealing.contiguous(LENGTH, 4, 1, np.copy))
        traffic = Traffic(traffic.shards, traffic.kinds, traffic.bands, lowered.pattern.documents, ends)
        for rank in range(4):
            packed = packed_keys(lowered, traffic, rank)
            assert packed is not None
            for piece in packed.pieces:
                begin = piece.piece.keys[0]
                sunk = range(begin, begin + 3) if lowered.pattern.documents is Documents.RESTART else range(begin, 3)
                at = piece.piece.queries[0]
                assert [list(keys) for far in piece.far for keys in far.keys] == (
                    [[*sunk]] if at > begin and sunk else []
                )

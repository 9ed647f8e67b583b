"""Tables, packs and spans of heads, from which emitters print and launches pass."""

from __future__ import annotations

import pytest

from sparsec.ir.expr import nodes as x
from sparsec.ir.tiles.program import TileProgram
from sparsec.pipeline import Lowered
from sparsec.plan.heads import (
    by_member,
    class_of_member,
    column_chunks,
    group_spans,
    group_table,
    head_table,
    pack_table,
    packs,
    share_a_group,
)
from sparsec.plan.kernel import HeadClass
from sparsec.plan.kv.cached import store_classes
from sparsec.sema import model as m

EMPTY = TileProgram(16, 16, (), (), (), x.TRUE, ())
CLASS = HeadClass((1, 3, 4, 6), (("c0", (7, 9, 7, 7)), ("c1", (-1, 0, -1, -1))), EMPTY, ())
TABLE = ((1, 7, -1), (3, 9, 0), (4, 7, -1), (6, 7, -1))


def test_a_head_s_row_has_its_constants() -> None:
    assert head_table(CLASS) == TABLE


def test_members_of_classes() -> None:
    assert class_of_member(((1, 3), (0, 2))) == (1, 0, 1, 0)
    assert by_member((1, 3), (7, 9), 5) == (0, 7, 0, 9, 0)


def test_packs_hold_heads_of_one_group_with_equal_constants() -> None:
    found = packs(TABLE, 4)
    assert [pack.heads for pack in found] == [(1,), (3,), (4, 6)]
    assert [pack.row for pack in found] == [(0, 7, -1), (0, 9, 0), (1, 7, -1)]
    assert pack_table(TABLE, 4, 64).table == ((0, 7, -1), (0, 9, 0), (1, 7, -1))
    assert pack_table(TABLE, 4, 64).members == ((1, -1), (3, -1), (4, 6))


def test_packs_are_no_larger_than_asked() -> None:
    found = pack_table(tuple((head,) for head in range(5)), 5, 2)
    assert found.members == ((0, 1), (2, 3), (4, -1)) and found.table == ((0,),) * 3


def test_spans_of_groups() -> None:
    assert group_spans((1, 2, 3, 6), 2) == ((0, 0, 1), (1, 1, 2), (3, 3, 1))
    assert share_a_group(((0,), (1, 2, 3)), 2) and not share_a_group(((0, 1), (2, 3)), 2)


def test_the_table_of_groups_has_each_groups_kind_and_constants() -> None:
    local = m.Window(4, 0, True)
    strided = (m.Sink(64, False), *(m.Stride(period, 0, True) for period in (5, 7)))

    def term(head: int) -> m.Term:
        own = (*strided, m.Stride(11, head // 2, True)) if head < 4 else (m.Sink(9, False),)
        return m.Intersection((m.Causal(), m.Union((local, *own))))

    terms = tuple(map(term, range(6)))
    pattern = m.ResolvedPattern(6, 3, terms, 64, (), m.Documents.NONE, m.Score())
    table = group_table(store_classes(Lowered(pattern).layout))
    assert [row[0] for row in table] == [0, 0, 1] and len({len(row) for row in table}) == 1
    assert table[0] != table[1], "they differ in a stride's phase"


@pytest.mark.parametrize(
    ("head_dim", "widths"),
    [
        (8, [16]),
        (16, [16]),
        (64, [64]),
        (72, [64, 16]),
        (96, [64, 32]),
        (128, [128]),
        (200, [128, 64, 16]),
        (256, [256]),
    ],
)
def test_head_dim_in_chunks(head_dim: int, widths: list[int]) -> None:
    chunks = column_chunks(head_dim)
    assert [chunk.width for chunk in chunks] == widths
    assert [chunk.first for chunk in chunks] == [sum(widths[:n]) for n in range(len(widths))]
    assert [chunk.cut for chunk in chunks] == [chunk.first + chunk.width > head_dim for chunk in chunks]

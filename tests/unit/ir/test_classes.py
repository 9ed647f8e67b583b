"""Heads that share a class although their bands come in another order: one program, right for each of them."""

from __future__ import annotations

import pytest

from sparsec.pipeline import Lowered
from sparsec.reference.mask import mask
from sparsec.sema import model as m
from sparsec.testing.tiles import check_tiles


def columns(start: int, stop: int) -> m.Term:
    return m.Columns(m.Edge(start, False), m.Edge(stop, False), blocks=False)


def before(start: int, stop: int) -> m.Term:
    """The keys from `start` to `stop` positions before the query."""
    return m.Difference(m.Window(stop, 0, blocks=False), m.Window(start, 0, blocks=False))


@pytest.mark.parametrize(
    "terms",
    [
        (m.Union((columns(10, 20), columns(60, 75))), m.Union((columns(100, 110), columns(60, 75)))),
        (m.Union((before(50, 70), before(10, 20))), m.Union((before(50, 70), before(90, 100)))),
    ],
    ids=["columns", "windows"],
)
def test_bands_in_another_order_for_each_head(terms: tuple[m.Term, ...]) -> None:
    pattern = m.ResolvedPattern(2, 1, terms, 16, (), m.Documents.NONE, m.Score())
    plan = Lowered(pattern).plan_forward(head_dim=16, dtype="float32", query_tile=16, key_tile=16)
    assert len(plan.classes) == 1
    for n_q, n_k, offset in ((130, 130, 0), (40, 150, 110)):
        check_tiles(plan, mask(pattern, n_q, n_k, offset), offset)

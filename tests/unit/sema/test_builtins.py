"""The table of built-in terms against the classes of `sema.model`: none is missing, and its fields are the slots."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest

import sparsec
from sparsec.sema import model
from sparsec.sema.builtins import MAX_DRAWS, TERMS, SlotKind, printed, usage
from sparsec.testing.strategies import LEAVES, SETS


def test_every_leaf_is_a_term_of_the_table_and_is_drawn() -> None:
    assert [term.kind for term in TERMS.values()] == [kind for kind in get_args(model.Leaf) if kind is not model.Input]
    assert {*SETS, *LEAVES} == set(TERMS)


@pytest.mark.parametrize("name", TERMS)
def test_the_fields_of_a_term_are_its_slots(name: str) -> None:
    term = TERMS[name]
    values = [2 if slot.takes is SlotKind.RANGE else 1 for slot in term.slots]
    assert sum(values) + ("blocks" in term.names) == len(fields(term.kind))


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("window(4b, ahead = 2b)", "window(4b, ahead=2b)"),
        ("window(4, ahead = 0)", "window(4)"),
        ("stride(3b, phase = -1)", "stride(3b, phase=2)"),
        ("dilated(4, phase = 8)", "dilated(4)"),
        ("chunk(2b, back = 1)", "chunk(32, back=1)"),
        ("chunk(9, ahead = 2)", "chunk(9, ahead=2)"),
        ("near2d(rows = 0, columns = 2, width = 9)", "near2d(width=9, rows=0, columns=2)"),
        ("columns(-4b ..)", "columns(-4b..)"),
        ("rows(.. 5)", "rows(..5)"),
        ("random(3)", "random(3, seed=0, lane=0)"),
        ("sink(0)", "sink(0)"),
    ],
)
def test_printed(written: str, text: str) -> None:
    (term,) = sparsec.parse(f"pattern p {{ heads 1  block 16  attend {written} }}").pattern().resolve().terms
    assert isinstance(term, model.At)
    assert term.origin.text == printed(term.term) == text  # type: ignore[arg-type]  # a leaf


def test_usage() -> None:
    assert [usage(name) for name in ("window", "columns", "full", "min", "tokens")] == [
        *("window(n, ahead = ...)", "columns(a..b)", "full", "min(a, b)", "tokens(x)")
    ]


def test_draws_have_a_limit() -> None:
    text = "pattern p(k = 1) { heads 1  causal  attend random(k) }"
    sparsec.parse(text).pattern(k=MAX_DRAWS).resolve()
    with pytest.raises(sparsec.DiagnosticError, match="E402"):
        sparsec.parse(text).pattern(k=MAX_DRAWS + 1).resolve()

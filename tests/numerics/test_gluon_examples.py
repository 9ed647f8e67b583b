"""Gluon's kernels of every example on the model of Gluon; Triton's kernels that go first run in its interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest
from gluon_calls import beside_triton, call_agrees
from triton_harness import in_interpreter, interpreted, passes_in_the_interpreter

import sparsec
from sparsec.backends.gluon.emit import NotPrinted, check_printed
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.target import GLUON
from sparsec.sema.model import Documents, InputKind, ResolvedPattern
from sparsec.testing.cases import Case

EXAMPLES = Path(__file__).parents[2] / "examples"
PATTERNS = {name: path for path in sorted(EXAMPLES.rglob("*.sparse")) for name in sparsec.load(path).patterns}
ROWS_ALONE = {"deepseek_dsa", "minimax_msa", "nsa_selected"}
"""Each query has a list of its own and sees nothing else: no tile is left for a kernel in Gluon."""


def resolved(name: str) -> ResolvedPattern:
    pattern = sparsec.load(PATTERNS[name]).pattern(name)
    return pattern.resolve(pattern.heads or 4, pattern.kv_heads or 2)


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


@in_interpreter
def test_every_example_is_printed() -> None:
    refused = dict[str, str]()
    for name in PATTERNS:
        for dim in (64, 128):
            try:
                check_printed(Compilation(Lowered(resolved(name)), dim, dim, "bfloat16", GLUON).forward)
            except NotPrinted as error:
                refused[name] = error.lack
    assert set(refused) == ROWS_ALONE and len(set(refused.values())) == 1


@in_interpreter
@pytest.mark.parametrize("name", sorted(PATTERNS.keys() - ROWS_ALONE))
def test_an_example_on_a_drawn_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, seed = resolved(name), sum(map(ord, name))
    of_rows = any(each.kind is InputKind.ROWS for each in pattern.inputs)  # their kernel is Triton's, a program a row
    n_q, n_k = 1 + seed % (2 if of_rows else 20), 60 + seed % 67
    if pattern.documents is not Documents.NONE:
        case = Case("forward", n_k, n_k, 0, seed=seed, bounds=(0, seed % 60, seed % 60, n_k))
    else:
        case = Case("forward", n_q, n_k, n_k - n_q, seed=seed)
    call_agrees(beside_triton(pattern, monkeypatch, seed=seed), pattern, case, case.given(pattern))

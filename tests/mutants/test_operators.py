"""Every mutation operator still applies to the tree, and TABLE.md holds what a run found."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
from mutant import PARTS, Operator
from run import OPERATORS, ROOT, TABLE
from table import Outcome, markdown, recorded, write


def test_every_operator_applies_once() -> None:
    assert len({operator.name for operator in OPERATORS}) == len(OPERATORS)
    for operator in OPERATORS:
        mutated = operator.applied(ROOT)
        if operator.file.endswith(".py"):
            ast.parse(mutated)
    assert set(PARTS) == {operator.part for operator in OPERATORS}


def test_the_tests_of_a_part_exist() -> None:
    for selected in {path.partition("::")[0] for paths in PARTS.values() for path in paths}:
        assert (ROOT / selected).exists() and "golden" not in selected


def test_an_operator_that_does_not_apply_fails(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    for before, after in (("x = 1", "x = 2"), ("y", "z"), ("x = 1\nx", "x = 1\nx")):
        with pytest.raises(ValueError, match="expected"):
            Operator("n", "cache", "a.py", before, after).applied(tmp_path)


def test_the_table_is_of_these_operators_and_nearly_all_are_killed() -> None:
    found = recorded(TABLE)
    assert [outcome.name for outcome in found] == [operator.name for operator in OPERATORS]
    assert [outcome.file for outcome in found] == [operator.file for operator in OPERATORS]
    assert all(outcome.by or outcome.reason for outcome in found)
    assert len(found) >= 40 and Counter(bool(outcome.by) for outcome in found)[True] >= 0.95 * len(found)


def test_a_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    found = [Outcome("one", "a.py", "unit/t.py::f[1-2]", "", 3.0), Outcome("two", "b.py", "", "the same bits", 4.0)]
    write(path, found)
    assert recorded(path) == found
    assert "2 mutants, 1 killed (50.0%)" in markdown(found)
    write(path, recorded(TABLE))
    assert path.read_text() == TABLE.read_text()

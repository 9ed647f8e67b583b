"""Warnings about an instantiated pattern."""

from __future__ import annotations

from sparsec.sema.checked import CheckedPattern
from sparsec.sema.instantiate import Findings
from sparsec.sema.model import Heads
from sparsec.sema.values import Budget, Evaluator


def warnings_of(pattern: CheckedPattern, heads: Heads, run: Evaluator, findings: Findings, budget: Budget) -> None:
    """Adds the warnings of a pattern to `findings`."""

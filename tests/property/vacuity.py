"""How many examples a property draws, and whether what it drew could have failed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import settings
from torch import Tensor

FACTORS = {"nightly": Fraction(50), "mutants": Fraction(1, 5)}
"""How many times the examples of CI a profile draws."""


def wanted(in_ci: int) -> int:
    """How many different patterns this run's profile asks for."""
    return max(1, int(in_ci * FACTORS.get(os.environ.get("SPARSEC_PROFILE", "ci"), 1)))


def examples(in_ci: int) -> settings:
    """Enough examples for the patterns wanted: hypothesis repeats small ones."""
    return settings(max_examples=wanted(in_ci) * 2)


@dataclass(slots=True)
class Coverage:
    """The rows of all masks drawn: those that see nothing, everything, or a part."""

    patterns: set[str] = field(default_factory=set)
    empty: int = 0
    full: int = 0
    part: int = 0

    def note(self, pattern: str, mask: Tensor) -> None:
        self.patterns.add(pattern)
        seen = mask.sum(dim=-1)
        self.empty += int((seen == 0).sum())
        self.full += int((seen == mask.shape[-1]).sum())
        self.part += int(((seen > 0) & (seen < mask.shape[-1])).sum())

    def check(self, in_ci: int) -> None:
        """As many different patterns were drawn as wanted, and at least a fifth of the rows see a part."""
        assert len(self.patterns) >= wanted(in_ci), f"{len(self.patterns)} patterns drawn, expected {wanted(in_ci)}"
        rows = self.empty + self.full + self.part
        assert self.part >= rows / 5, f"of {rows} rows only {self.part} see a part of the keys"
        assert self.empty, "no row drawn sees nothing"

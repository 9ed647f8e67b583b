"""How many examples a property draws, and whether what it drew could have failed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from hypothesis import settings
from torch import Tensor

PROFILE = os.environ.get("SPARSEC_PROFILE", "ci")
NIGHTLY = PROFILE == "nightly"


def wanted(in_ci: int, *, at_night: int) -> int:
    """How many different patterns, texts or runs this run's profile asks for; a mutant meets a fifth of those of CI."""
    if NIGHTLY:
        return at_night
    return max(1, in_ci // 5) if PROFILE == "mutants" else in_ci


def examples(patterns: int) -> settings:
    """Enough examples for so many different patterns: hypothesis repeats small ones."""
    return settings(max_examples=2 * patterns)


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

    def check(self, patterns: int) -> None:
        """So many different patterns were drawn, and at least a fifth of the rows see a part."""
        assert len(self.patterns) >= patterns, f"{len(self.patterns)} patterns drawn, expected {patterns}"
        rows = self.empty + self.full + self.part
        assert self.part >= rows / 5, f"of {rows} rows only {self.part} see a part of the keys"
        assert self.empty, "no row drawn sees nothing"

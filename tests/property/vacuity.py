"""How many examples a property draws, and whether what it drew could have failed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from hypothesis import settings
from torch import Tensor

NIGHTLY_FACTOR = 50


def examples(in_ci: int) -> settings:
    """Enough examples for `in_ci` different patterns: hypothesis repeats small ones."""
    factor = NIGHTLY_FACTOR if os.environ.get("SPARSEC_PROFILE") == "nightly" else 1
    return settings(max_examples=in_ci * factor * 4 // 3)


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
        """At least `in_ci` different patterns were drawn, and at least a fifth of the rows see a part."""
        assert len(self.patterns) >= in_ci, f"{len(self.patterns)} different patterns drawn, expected {in_ci}"
        rows = self.empty + self.full + self.part
        assert self.part >= rows / 5, f"of {rows} rows only {self.part} see a part of the keys"
        assert self.empty, "no row drawn sees nothing"

"""Patterns that proofs are tried on, and what was found of the claims about them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import sparsec
from sparsec.pipeline import Compilation, Lowered
from sparsec.sema.model import ResolvedPattern

if TYPE_CHECKING:
    from sparsec.prove import Claim  # which imports z3

MODEST = "pattern p { heads 4 kv 2  block 16  causal  attend sink(4) | window(100) | stride(3b, phase = g) }"
STRIDED = "pattern p { heads 2  block 64  causal  attend window(200) | dilated(5b, phase = h) }"
PLAIN = "pattern p { heads 2  causal  attend sink(4) | window(200) }"


@cache
def heads_of(text: str) -> ResolvedPattern:
    return sparsec.parse(text).pattern().resolve()


def compilation(pattern: ResolvedPattern) -> Compilation:
    return Compilation(Lowered(pattern), 64, 64, "float32", "cpu")


def statuses(claims: tuple[Claim, ...]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for claim in claims:
        found.setdefault(claim.status, set()).add(f"{claim.name} ({claim.about})")
    return found

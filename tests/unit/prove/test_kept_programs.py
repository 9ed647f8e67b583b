"""Tile programs over a cache's lists of kept keys are proved as all others are."""

from __future__ import annotations

import pytest

pytest.importorskip("z3")

import sparsec
from sparsec.prove import prove  # what imports z3 comes after the check


@pytest.mark.parametrize("target", ["cpu", "cuda:90"])
def test_programs_over_lists_of_kept_keys_are_proved(target: str) -> None:
    text = "pattern p { heads 2 kv 1 input a : tokens input b : tokens causal attend window(64) | a & ~b | stride(5) }"
    claims = prove(sparsec.parse(text).pattern().resolve(), gradients=False, target=target)
    of_lists = [claim for claim in claims if "kept" in claim.about]
    assert {"gathers", "coverage", "meaning"} <= {claim.name for claim in of_lists}
    assert all(claim.status == "proved" for claim in of_lists)

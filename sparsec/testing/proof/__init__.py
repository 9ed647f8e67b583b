"""Facts about a compiled pattern, proved for all positions and lengths; needs z3 (`pip install sparsec[prove]`)."""

from __future__ import annotations

from sparsec.testing.proof.proving import Claim, prove

__all__ = ["Claim", "prove"]

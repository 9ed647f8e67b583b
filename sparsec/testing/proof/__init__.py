"""Facts about a compiled pattern, proved for all positions and lengths; needs z3 (`pip install sparsec[prove]`)."""

from __future__ import annotations

from sparsec.testing.proof.deciding import Claim
from sparsec.testing.proof.proving import prove
from sparsec.testing.proof.solve import solver_version

__all__ = ["Claim", "prove", "solver_version"]

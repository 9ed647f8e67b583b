"""Facts about a compiled pattern, proved for all positions and lengths; needs z3 (`pip install sparsec[prove]`)."""

from __future__ import annotations

from sparsec.prove.decide import Claim
from sparsec.prove.proving import prove, prove_compilation
from sparsec.prove.solve import solver_version

__all__ = ["Claim", "prove", "prove_compilation", "solver_version"]

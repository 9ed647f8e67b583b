"""The `reference` backend: the checked meaning of a pattern, dense and in float64, which all others are held to."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.backends.base import Oracle
from sparsec.backends.reference.kernel import ReferenceKernel
from sparsec.sema.model import ResolvedPattern


@dataclass(frozen=True, slots=True)
class ReferenceBackend:
    """See `backends.base.Oracle`."""

    def kernel(self, pattern: ResolvedPattern) -> ReferenceKernel:
        return ReferenceKernel(pattern)


BACKEND: Oracle = ReferenceBackend()

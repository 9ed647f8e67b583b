"""The `gluon` backend: forward kernels in Gluon for GPUs of compute capability 9.0; all others are Triton's.

No device gets it unless it is asked for, since no card has shown yet that it is right and how fast it is. Invariant:
printing sources imports neither torch nor Triton; what does is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sparsec.backends.base import Kernels, Printer
from sparsec.backends.gluon.emit import emit_gluon
from sparsec.backends.triton.backend import BACKEND as TRITON
from sparsec.pipeline import Compilation

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class GluonBackend:
    """See `backends.base.Printer`."""

    def target_of(self, device: torch.device) -> str:
        from sparsec.backends.gluon.kernel import target_of

        return target_of(device)

    def check_runs(self, device: torch.device) -> None:
        self.target_of(device)

    def check_builds(self) -> None:
        """Triton brings its compiler along."""

    def kernels(self, compilation: Compilation) -> Kernels:
        """Raises NotPrinted for a plan that Gluon's kernels do not serve."""
        from sparsec.backends.gluon.kernel import GluonKernel

        return replace(TRITON.kernels(compilation), forward=GluonKernel.of(compilation.forward))

    def sources(self, compilation: Compilation, parts: Sequence[str]) -> dict[str, str]:
        others = TRITON.sources(compilation, [part for part in parts if part != "forward"])
        return {part: emit_gluon(compilation.forward) if part == "forward" else others[part] for part in parts}


BACKEND: Printer = GluonBackend()

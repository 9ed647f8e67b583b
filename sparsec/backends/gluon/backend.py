"""The `gluon` backend: forward kernels in Gluon for GPUs of compute capability 9.0; all others are Triton's.

No device gets it unless it is asked for. Invariant: printing sources imports neither torch nor Triton; what does is
imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sparsec.backends.base import Builder, FolderKernels, Kernels
from sparsec.backends.built import Built, KernelRecord
from sparsec.backends.gluon.emit import emit_gluon
from sparsec.backends.triton.backend import BACKEND as TRITON
from sparsec.backends.triton.backend import add_built, built_parts
from sparsec.backends.triton.emit import emit_triton
from sparsec.backends.triton.header import HEADER, header
from sparsec.pipeline import Compilation
from sparsec.plan.launch import Launches

if TYPE_CHECKING:
    import torch

_OTHERS = "cuda:90"
"""What Triton's kernels are built for."""
_FORWARD, _AGAIN = "forward.py", "again.py"


@dataclass(frozen=True, slots=True)
class GluonBackend:
    """See `backends.base.Builder`."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "triton")

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

    def build(self, compilation: Compilation, parts: Sequence[str], progress: Callable[[str], None]) -> Built:
        """Raises NotPrinted for a plan that Gluon's kernels do not serve."""
        from sparsec.backends.gluon import aot
        from sparsec.backends.triton.aot import compile_ahead

        plan, sources = compilation.forward, self.sources(compilation, parts)
        files: dict[str, bytes] = {}
        records: list[KernelRecord] = []
        if (text := sources.pop("forward", None)) is not None:
            progress("forward")
            again = emit_triton(plan, unsure=True)
            add_built(files, records, _FORWARD, text, aot.compile_ahead(text, plan))
            add_built(files, records, _AGAIN, again, compile_ahead(again, plan, _OTHERS), "again.")
        others, known = built_parts(compilation, sources, _OTHERS, progress)
        files, records = files | others, records + known
        files[HEADER] = header(compilation, records).encode()
        return Built(tuple(records), files)

    def check_needs(self, needs: Any) -> None:
        """As of Triton's."""
        TRITON.check_needs(needs)

    def load(self, launches: Launches, folder: Path, files: Mapping[str, bytes]) -> FolderKernels:
        from sparsec.backends.gluon.kernel import GluonKernel

        forward = GluonKernel(launches.forward, files[_FORWARD].decode(), files[_AGAIN].decode())
        return replace(TRITON.load(launches, folder, {**files, _FORWARD: files[_AGAIN]}), forward=forward)


BACKEND: Builder = GluonBackend()

"""The `triton` backend: Triton source for GPUs, built at the first launch or, for a folder, ahead of time.

Invariant: printing sources imports neither torch nor Triton; what does is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sparsec.backends.base import KEPT, PAGED, Builder, FolderKernels, Kernels
from sparsec.backends.built import Built, KernelRecord
from sparsec.backends.triton.emit import emit_triton, emit_triton_backward
from sparsec.backends.triton.emit_cached import emit_triton_cached
from sparsec.backends.triton.emit_paged import emit_triton_paged
from sparsec.backends.triton.header import HEADER, header
from sparsec.pipeline import Compilation
from sparsec.plan.launch import Launches

if TYPE_CHECKING:
    import torch

    from sparsec.backends.triton.aot import KernelArtefact


@dataclass(frozen=True, slots=True)
class TritonBackend:
    """See `backends.base.Builder`."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "triton")

    def target_of(self, device: torch.device) -> str:
        from sparsec.backends.triton.kernel import target_of

        return target_of(device)

    def check_runs(self, device: torch.device) -> None:
        from sparsec.backends.triton.kernel import check_runs_triton

        check_runs_triton(device)

    def check_builds(self) -> None:
        """Triton brings its compiler along."""

    def kernels(self, compilation: Compilation) -> Kernels:
        from sparsec.backends.triton.cached import TritonCached
        from sparsec.backends.triton.kernel import TritonKernel
        from sparsec.backends.triton.paged import TritonPaged

        built = TritonKernel.of(compilation.forward, plan_backward=lambda: compilation.backward)
        return Kernels(
            built,
            lambda: built,
            lambda: TritonCached.of(*compilation.cached),
            lambda: built,
            lambda: TritonCached.of(*compilation.kept),
            lambda: TritonPaged.of(*compilation.cached),
        )

    def sources(self, compilation: Compilation, parts: Sequence[str]) -> dict[str, str]:
        emitters = {
            "forward": lambda: emit_triton(compilation.forward),
            "cached": lambda: emit_triton_cached(*compilation.cached),
            KEPT: lambda: emit_triton_cached(*compilation.kept),
            "backward": lambda: emit_triton_backward(compilation.backward),
            PAGED: lambda: emit_triton_paged(*compilation.paged),
        }
        return {part: emitters[part]() for part in parts}

    def build(self, compilation: Compilation, parts: Sequence[str], progress: Callable[[str], None]) -> Built:
        files, records = built_parts(compilation, self.sources(compilation, parts), compilation.target, progress)
        files[HEADER] = header(compilation, records).encode()
        return Built(tuple(records), files)

    def check_needs(self, needs: Any) -> None:
        """Where the machine code does not fit, the source is built for the GPU that is there."""

    def load(self, launches: Launches, folder: Path, files: Mapping[str, bytes]) -> FolderKernels:
        from sparsec.backends.triton.cached import TritonCached
        from sparsec.backends.triton.kernel import TritonKernel
        from sparsec.backends.triton.paged import TritonPaged
        from sparsec.backends.triton.stored import store_code

        store_code(files)
        backward, cached, kept, paged = launches.backward, launches.cached, launches.kept, launches.paged
        gradients = None if backward is None else (backward, files["backward.py"].decode())
        kernel = TritonKernel.load(launches.forward, files["forward.py"].decode(), gradients)
        trained = None if backward is None else kernel
        over_cache = None if cached is None else TritonCached.load(cached, files["cached.py"].decode())
        over_lists = None if kept is None else TritonCached.load(kept, files[f"{KEPT}.py"].decode())
        over_pages = None if paged is None else TritonPaged.load(paged, files[f"{PAGED}.py"].decode())
        return FolderKernels(kernel, trained, over_cache, trained, over_lists, over_pages)


def built_parts(
    of: Compilation, sources: Mapping[str, str], target: str, progress: Callable[[str], None]
) -> tuple[dict[str, bytes], list[KernelRecord]]:
    """The files of kernels built from the sources of some parts, and what is known of each."""
    from sparsec.backends.triton import aot

    builders: dict[str, Callable[[str], tuple[KernelArtefact, ...]]] = {
        "forward": lambda text: aot.compile_ahead(text, of.forward, target),
        "cached": lambda text: aot.compile_ahead_cached(text, *of.cached, target),
        KEPT: lambda text: aot.compile_ahead_cached(text, *of.kept, target),
        "backward": lambda text: aot.compile_ahead_backward(text, of.backward, target),
    }
    files: dict[str, bytes] = {}
    records: list[KernelRecord] = []
    for part, source in sources.items():
        progress(part)
        built = builders[part](source) if part in builders else ()
        before = f"{KEPT}." if part == KEPT else ""  # the module's kernels are called as those without lists
        add_built(files, records, f"{part}.py", source, built, before)
    return files, records


def add_built(
    files: dict[str, bytes],
    records: list[KernelRecord],
    name: str,
    source: str,
    built: Sequence[KernelArtefact],
    before: str = "",
) -> None:
    """Adds a source, called `name`, and what was built of it; `before`: what its files' names begin with."""
    files[name] = source.encode()
    for artefact in built:
        files |= {f"{before}{file}": data for file, data in artefact.files}
        records.append(_record(artefact, before))


def _record(artefact: KernelArtefact, before: str) -> KernelRecord:
    """`before`: what its files' names begin with."""
    from sparsec.backends.triton import aot

    found = aot.findings_of(artefact)
    launch = artefact.launch
    return KernelRecord(
        f"{before}{artefact.name}",
        artefact.registers,
        artefact.spill_bytes,
        artefact.stack_bytes,
        artefact.shared_bytes,
        artefact.tensor_core,
        artefact.tma,
        found.problems,
        found.warnings,
        None if launch is None else replace(launch, file=f"{before}{launch.file}"),
    )


BACKEND: Builder = TritonBackend()

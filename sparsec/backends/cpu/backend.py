"""The `cpu` backend: C++ that the machine's compiler builds, run on CPU tensors.

Invariant: printing sources imports no torch; what does is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sparsec.backends.base import KEPT, PAGED, PARTS, Builder, FolderKernels, Kernels
from sparsec.backends.built import Built, KernelRecord
from sparsec.backends.cpu import processor
from sparsec.backends.cpu.emit import emit_cpp, emit_cpp_backward, emit_cpp_mass
from sparsec.backends.cpu.emit_cached import emit_cpp_cached, emit_cpp_cached_mass
from sparsec.backends.cpu.emit_paged import emit_cpp_paged
from sparsec.backends.cpu.header import HEADER, header
from sparsec.pipeline import Compilation
from sparsec.plan.launch import CachedLaunch, Launches

if TYPE_CHECKING:
    import torch

_OF_LISTS = f"sparsec_{KEPT}"
"""What the entry points of a folder's kernels over lists of kept keys begin with."""
_MASSES = ("mass", "cached_mass", f"{KEPT}_mass")
"""Libraries of masses of keys, one beside each of the gradients and of the kernels over a cache."""


@dataclass(frozen=True, slots=True)
class CpuBackend:
    """See `backends.base.Builder`."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)

    def target_of(self, device: torch.device) -> str:
        return "cpu"

    def check_runs(self, device: torch.device) -> None:
        """What is built here runs here."""

    def check_builds(self) -> None:
        from sparsec.backends.cpu.kernel import NoCompiler, has_compiler

        if not has_compiler():
            raise NoCompiler("expected a C++ compiler ($CXX, g++ or clang++) for target cpu, found none; install one")

    def kernels(self, compilation: Compilation) -> Kernels:
        from sparsec.backends.cpu.backward import CpuBackward
        from sparsec.backends.cpu.cached import CpuCached
        from sparsec.backends.cpu.kernel import CpuKernel
        from sparsec.backends.cpu.mass import CpuMass
        from sparsec.backends.cpu.paged import CpuPaged

        return Kernels(
            CpuKernel.of(compilation.forward),
            lambda: CpuBackward.of(compilation.backward),
            lambda: CpuCached.of(*compilation.cached),
            lambda: CpuMass.of(compilation.backward),
            lambda: CpuCached.of(*compilation.kept),
            lambda: CpuPaged.of(*compilation.cached),
            lambda kv_dtype, lists: CpuCached.of(*(compilation.kept if lists else compilation.cached), kv_dtype),
        )

    def sources(self, compilation: Compilation, parts: Sequence[str]) -> dict[str, str]:
        emitters = {
            "forward": lambda: emit_cpp(compilation.forward),
            "cached": lambda: emit_cpp_cached(*compilation.cached),
            KEPT: lambda: emit_cpp_cached(*compilation.kept, symbol=_OF_LISTS),
            "backward": lambda: emit_cpp_backward(compilation.backward),
            PAGED: lambda: emit_cpp_paged(*compilation.cached),
        }
        return {part: emitters[part]() for part in parts}

    def build(self, compilation: Compilation, parts: Sequence[str], progress: Callable[[str], None]) -> Built:
        from sparsec.backends.cpu import kernel
        from sparsec.backends.cpu.cached import NAMES, NAMES_WITH_LISTS
        from sparsec.backends.cpu.paged import PAGED_NAMES
        from sparsec.runtime.build.at_once import side_by_side

        entries = {
            "cached": NAMES,
            KEPT: tuple(f"{KEPT}_{name}" for name in NAMES_WITH_LISTS),
            "cached_mass": ("add_mass",),
            f"{KEPT}_mass": (f"{KEPT}_add_mass",),
            PAGED: PAGED_NAMES,
        }
        masses: dict[str, tuple[str, Callable[[], str]]] = {
            "backward": ("mass", lambda: emit_cpp_mass(compilation.backward)),
            "cached": ("cached_mass", lambda: emit_cpp_cached_mass(*compilation.cached)),
            KEPT: (f"{KEPT}_mass", lambda: emit_cpp_cached_mass(*compilation.kept, symbol=_OF_LISTS)),
        }
        level = compilation.target.partition(":")[2] or kernel.NATIVE
        texts: dict[str, str] = {}
        for part, source in self.sources(compilation, parts).items():
            texts[part] = source
            if part in masses:
                of_mass, emit = masses[part]
                texts[of_mass] = emit()

        def library(name: str, text: str) -> bytes:
            if name in parts:
                progress(name)
            return kernel.compile_shared(text, processor=level).read_bytes()

        libraries = side_by_side([(name, partial(library, name, text)) for name, text in texts.items()])
        files: dict[str, bytes] = {}
        names: dict[str, Sequence[str]] = {}
        micro_kernels: dict[str, dict[str, str]] = {}
        for (name, text), built in zip(texts.items(), libraries, strict=True):
            files |= {f"{name}.cpp": text.encode(), f"{name}.so": built}
            names[f"{name}.so"] = entries.get(name, (name,))
            micro_kernels[f"{name}.so"] = kernel.micro_kernels_of(built)
        records = tuple(
            KernelRecord(f"sparsec_{name}", micro_kernel=micro_kernels[file].get(name.removeprefix(f"{KEPT}_")))
            for file, found in names.items()
            for name in found
        )
        files[HEADER] = header(compilation, names.items()).encode()
        return Built(records, files, asdict(kernel.processor_of(level)))

    def check_needs(self, needs: Any) -> None:
        processor.check_processor(needs["machine"], needs["instructions"])

    def load(self, launches: Launches, folder: Path, files: Mapping[str, bytes]) -> FolderKernels:
        from sparsec.backends.cpu.backward import CpuBackward
        from sparsec.backends.cpu.cached import CpuCached
        from sparsec.backends.cpu.kernel import CpuKernel
        from sparsec.backends.cpu.mass import CpuMass
        from sparsec.backends.cpu.paged import CpuPaged

        parts = (*PARTS, KEPT, PAGED, *_MASSES)
        library = {part: folder / name for part in parts if (name := f"{part}.so") in files}
        backward, paged = launches.backward, launches.paged

        def over_cache(part: str, plan: CachedLaunch | None, symbol: str = "sparsec") -> CpuCached | None:
            if plan is None:
                return None
            return CpuCached.load(
                plan, files[f"{part}.cpp"].decode(), library[part], library.get(f"{part}_mass"), symbol
            )

        return FolderKernels(
            CpuKernel.load(launches.forward, files["forward.cpp"].decode(), library["forward"]),
            None if backward is None else CpuBackward.load(backward, library["backward"]),
            over_cache("cached", launches.cached),
            None if backward is None else CpuMass.load(backward.forward, library["mass"]),
            over_cache(KEPT, launches.kept, _OF_LISTS),
            None if paged is None else CpuPaged.load(paged, files[f"{PAGED}.cpp"].decode(), library[PAGED]),
        )


BACKEND: Builder = CpuBackend()

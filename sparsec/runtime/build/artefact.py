"""A compiled pattern as a folder: sources, what they were built to, and what it says of itself; and back to a module.

Invariant: a folder is written under a temporary name and renamed when whole; `load_compiled` runs nothing whose digest
differs from the manifest's, and neither parses a pattern nor prints a kernel.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sparsec import __version__
from sparsec.backends.cpu import cached as cpu_cached
from sparsec.backends.cpu import kernel as cpu
from sparsec.backends.cpu import processor
from sparsec.backends.cpu.backward import CpuBackward
from sparsec.backends.cpu.emit import emit_cpp, emit_cpp_backward
from sparsec.backends.cpu.emit_cached import emit_cpp_cached
from sparsec.backends.triton.emit import emit_triton, emit_triton_backward
from sparsec.backends.triton.emit_cached import emit_triton_cached
from sparsec.diagnostics.arguments import path
from sparsec.diagnostics.model import CallError, SparsecError
from sparsec.ir.bands.normalise import TooManyBands
from sparsec.pipeline import Compilation
from sparsec.plan.kernel import BackwardPlan, KernelPlan
from sparsec.plan.kv.cached import CachedPlan, NoCache
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.launch import Launches
from sparsec.plan.target import Family, family
from sparsec.program import Pattern
from sparsec.runtime.build.manifest import (
    FORMAT,
    LAYOUT,
    MANIFEST,
    KernelRecord,
    Manifest,
    Proof,
    launch_data,
    launches_of,
    layout_data,
    layout_of,
)
from sparsec.runtime.cached_kernel import CachedKernel
from sparsec.runtime.compile import check_supported, module_of
from sparsec.runtime.kernel import BackwardKernel, ForwardKernel, LoadedKernel
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import DTYPES, Request, kernel_name, request_of

_CPU_KERNELS = {"forward": ("forward",), "backward": ("backward",), "cached": cpu_cached.Entries._fields}
_SAID = {"forward": "the forward pass", "backward": "the gradients", "cached": "the KV cache"}

_Built = tuple[tuple[KernelRecord, ...], dict[str, bytes]]
_Kernels = tuple[ForwardKernel, BackwardKernel | None, CachedKernel | None]


def compile_to_directory(
    pattern: Pattern,
    directory: Path,
    *,
    target: str,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int,
    dtype: str,
    gradients: bool = True,
    progress: Callable[[str], None] = lambda _: None,
    prove: Callable[[Compilation], Proof] | None = None,
) -> Manifest:
    """Writes the artefacts of `pattern` for `target` (a name of `plan.target`) to `directory`.

    dtype: "float32", "bfloat16" or "float16". `gradients`: whether it can be trained. `progress` is told of each step.
    `prove`, called before anything is built, gives what the manifest is to record, or raises to refuse. An existing
    folder is replaced if it is empty or holds such artefacts. Raises CallError, DiagnosticError, and the compilers'
    BuildError or AheadOfTimeError.
    """
    names = {name: kind for kind, name in DTYPES.items()}
    if dtype not in names:
        raise CallError(f"expected dtype {', '.join(names)}, got {dtype!r}")
    if directory.exists() and any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        raise CallError(f"expected a new folder or one that sparsec wrote, got {directory}, which holds other files")
    check_supported(pattern, head_dim)
    progress("lowering")
    with pattern.refusals():
        request = Request(pattern.lowered(heads, kv_heads), head_dim, names[dtype])
        compilation = request.compilation(target)
        plans, layout = _plans(compilation, gradients)
    proof = None
    if prove is not None:
        progress("proving")
        proof = prove(compilation)
    kernels, files = (_build_cpu if _for_cpu(target) else _build_gpu)(plans, target, progress)
    files[LAYOUT] = _json(layout_data(layout))
    manifest = Manifest(
        target,
        pattern.name,
        kernel_name(request, target),
        _versions(target),
        launch_data(Launches.of(plans.forward, plans.backward, plans.cached)),
        kernels,
        {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        cpu.processor_of(_level(target)) if _for_cpu(target) else None,
        proof,
    )
    progress("writing")
    try:
        _publish(directory, {**files, MANIFEST: _json({"format": FORMAT, **asdict(manifest)})})
    except OSError as error:  # of the scratch folder, of which the caller knows nothing
        raise OSError(error.errno, error.strerror, str(directory)) from error
    return manifest


def load_compiled(directory: Path | str) -> SparseAttention:
    """The module that `compile_to_directory` (`sparsec compile`) wrote. Raises CallError for anything else.

    A library for the CPU is run as it is; a GPU's kernels go from their source through Triton, which keeps what it has
    built in a cache of its own.
    """
    folder = path(directory)
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest = json.loads(text)
        if manifest["format"] != FORMAT:
            raise CallError(f"expected artefacts of format {FORMAT}, got {manifest['format']!r}")
        files = _checked(folder, manifest["files"])
        layout = layout_of(json.loads(files[LAYOUT]))
        launches = launches_of(manifest["launch"], layout)
        request = replace(request_of(manifest["request"])[0], file_layout=partial(_layout, layout))
        kind = "cpu" if _for_cpu(manifest["target"]) else "triton"
        if kind == "cpu":
            processor.check(manifest["processor"]["machine"], manifest["processor"]["instructions"])
        forward, backward, cached = (_load_cpu if kind == "cpu" else _load_triton)(launches, folder, files)
    except CallError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise CallError(f"expected a folder that sparsec compile wrote, got {folder} ({said})") from error
    kernels = LoadedKernel(
        forward,
        (lambda: backward) if backward is not None else _no_gradient,
        launches.forward,
        (lambda: cached) if cached is not None else _no_cache,
        lambda: request.compilation(manifest["target"]).forward,
    )
    name = kernel_name(request, manifest["target"], hashlib.sha256(text).hexdigest())
    return module_of(
        kind,
        name,
        kernels,
        request,
        torch.device("cuda" if kind == "triton" and torch.cuda.is_available() else "cpu"),
    )


def _for_cpu(target: str) -> bool:
    return family(target) is Family.CPU


def _level(target: str) -> str:
    """The processor that a target for the CPU names, as `cpu.compile_shared` takes it."""
    return target.partition(":")[2] or cpu.NATIVE


def _no_gradient() -> BackwardKernel:
    raise SparsecError("expected a forward pass alone: the folder was compiled with --inference, without gradients")


def _no_cache() -> CachedKernel:
    raise CallError("expected a folder with kernels for a cache, got one without")


def _layout(layout: CacheLayout | str) -> CacheLayout:
    if isinstance(layout, str):
        raise CallError(f"expected a pattern that a KV cache serves, got one without: {layout}")
    return layout


@dataclass(frozen=True, slots=True)
class _Plans:
    """What a folder's kernels are made from; None as of `Launches`."""

    forward: KernelPlan
    backward: BackwardPlan | None
    cached: tuple[CachedPlan, CachedPlan] | None


def _plans(compilation: Compilation, gradients: bool) -> tuple[_Plans, CacheLayout | str]:
    """The plans; the layout of the cache, or why there is none. Raises TooManyBands."""
    forward = compilation.forward
    backward = compilation.backward if gradients else None
    try:
        cached = compilation.cached
    except (NoCache, TooManyBands) as error:  # the heads of a KV group may have more bands together than each has
        return _Plans(forward, backward, None), str(error)
    return _Plans(forward, backward, cached), cached[0].layout


def _build_cpu(plans: _Plans, target: str, progress: Callable[[str], None]) -> _Built:
    sources = {"forward": emit_cpp(plans.forward)}
    if plans.cached is not None:
        sources["cached"] = emit_cpp_cached(*plans.cached)
    if plans.backward is not None:
        sources["backward"] = emit_cpp_backward(plans.backward)
    files: dict[str, bytes] = {}
    for part, source in sources.items():
        progress(f"compiling {_SAID[part]}")
        library = cpu.compile_shared(source, processor=_level(target))
        files |= {f"{part}.cpp": source.encode(), f"{part}.so": library.read_bytes()}
    return tuple(KernelRecord(f"sparsec_{name}") for part in sources for name in _CPU_KERNELS[part]), files


def _build_gpu(plans: _Plans, target: str, progress: Callable[[str], None]) -> _Built:
    from sparsec.backends.triton import aot  # imported where it is used, for it is slow to import

    def build(part: str, source: str, ahead: Callable[[str], tuple[aot.KernelArtefact, ...]]) -> None:
        progress(f"compiling {_SAID[part]} for {target}")
        files[f"{part}.py"] = source.encode()
        for artefact in ahead(source):
            found = aot.check(artefact)
            files.update(artefact.files)
            records.append(
                KernelRecord(
                    artefact.name,
                    artefact.registers,
                    artefact.spill_bytes,
                    artefact.stack_bytes,
                    artefact.shared_bytes,
                    artefact.tensor_core,
                    artefact.tma,
                    found.problems,
                    found.warnings,
                )
            )

    files: dict[str, bytes] = {}
    records: list[KernelRecord] = []
    backward, cached = plans.backward, plans.cached
    build("forward", emit_triton(plans.forward), lambda text: aot.compile_ahead(text, plans.forward, target))
    if cached is not None:
        build("cached", emit_triton_cached(*cached), lambda text: aot.compile_ahead_cached(text, *cached, target))
    if backward is not None:
        build(
            "backward", emit_triton_backward(backward), lambda text: aot.compile_ahead_backward(text, backward, target)
        )
    return tuple(records), files


def _load_cpu(launches: Launches, folder: Path, files: Mapping[str, bytes]) -> _Kernels:
    backward, cached = launches.backward, launches.cached
    library = {part: folder / name for part in _CPU_KERNELS if (name := f"{part}.so") in files}
    return (
        cpu.CpuKernel.load(launches.forward, files["forward.cpp"].decode(), library["forward"]),
        None if backward is None else CpuBackward.load(backward, library["backward"]),
        None if cached is None else cpu_cached.CpuCached.load(cached, files["cached.cpp"].decode(), library["cached"]),
    )


def _load_triton(launches: Launches, folder: Path, files: Mapping[str, bytes]) -> _Kernels:
    from sparsec.backends.triton.cached import TritonCached
    from sparsec.backends.triton.kernel import TritonKernel  # imported where they are used, for they are slow to import

    backward, cached = launches.backward, launches.cached
    gradients = None if backward is None else (backward, files["backward.py"].decode())
    kernel = TritonKernel.load(launches.forward, files["forward.py"].decode(), gradients)
    return (
        kernel,
        None if backward is None else kernel,
        None if cached is None else TritonCached.load(cached, files["cached.py"].decode()),
    )


def _checked(folder: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    """The files' contents. Raises CallError for one that differs from its digest, OSError for one that is not there."""
    files = {}
    for name, digest in digests.items():
        if Path(name).name == name:
            files[name] = (folder / name).read_bytes()
        if name not in files or hashlib.sha256(files[name]).hexdigest() != digest:
            raise CallError(f"expected {folder / name} as its manifest describes it, got another content")
    return files


def _versions(target: str) -> dict[str, str]:
    packages = ("torch",) if _for_cpu(target) else ("torch", "triton")
    versions = {name: version(name) for name in packages}
    return {"python": platform.python_version(), "sparsec": __version__, **versions}


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()


def _publish(directory: Path, files: Mapping[str, bytes]) -> None:
    """Puts a whole folder in place: written beside it, then renamed, or exchanged with the one that is there."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".sparsec-") as scratch:
        fresh, former = Path(scratch) / "fresh", Path(scratch) / "former"
        fresh.mkdir()
        for name, data in files.items():
            (fresh / name).write_bytes(data)
        if directory.exists():
            if _exchanged(fresh, directory):
                return
            directory.rename(former)
        try:
            fresh.rename(directory)
        except OSError:
            if former.exists():
                former.rename(directory)
            raise
        shutil.rmtree(former, ignore_errors=True)


def _exchanged(a: Path, b: Path) -> bool:
    """Whether both could be given each other's name in one step, of which nothing is left half done: Linux can."""
    if sys.platform != "linux":
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <fcntl.h>, <linux/fs.h>
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0

"""A compiled pattern as a folder: sources, built artefacts and `manifest.json`; and the way back to a module.

Invariant: a folder is written under a temporary name and renamed when whole; `load_compiled` runs nothing whose digest
differs from the manifest's, and neither parses nor builds.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sparsec import __version__
from sparsec.codegen.cpp import emit_cpp
from sparsec.codegen.triton import emit_triton
from sparsec.diagnostics.model import CallError, DiagnosticError, SparsecError
from sparsec.ir.expr import FALSE
from sparsec.ir.normalise import TooManyBands
from sparsec.ir.tiles import ListSpec, TileProgram
from sparsec.plan.kernel import HeadClass, KernelPlan
from sparsec.program import Pattern
from sparsec.runtime import cpu
from sparsec.runtime.compile import DTYPES, Request, check_supported, module_of, plan_request
from sparsec.runtime.kernel import BackwardKernel
from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import Documents

FORMAT = 1
PLAIN_FIELDS = ("heads", "kv_heads", "head_dim", "dtype", "scale", "softcap", "alibi", "learned_sink")
"""Of a KernelPlan: what JSON holds as it is."""
MANIFEST = "manifest.json"
CPP_FILE, LIBRARY_FILE, TRITON_FILE = "forward.cpp", "forward.so", "kernels.py"


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """One kernel. Registers per thread, bytes per thread or program; None where a target has no such figure.

    `problems` holds what makes it unfit: spills, too much shared memory, no tensor-core instruction.
    """

    name: str
    registers: int | None = None
    spills: int | None = None
    stack_bytes: int | None = None
    shared_bytes: int | None = None
    tensor_core_instructions: int | None = None
    tma_instructions: int | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says; `files` maps each file's name to its SHA-256."""

    target: str
    pattern: str
    versions: Mapping[str, str]
    launch: Mapping[str, Any]
    kernels: tuple[KernelRecord, ...]
    files: Mapping[str, str]


def compile_to_directory(
    pattern: Pattern,
    directory: Path,
    *,
    target: str,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int,
    dtype: str,
    progress: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Writes the artefacts of `pattern` for `target` ("cpu", "cuda:90", "hip:gfx942", ...) to `directory`.

    dtype: "float32", "bfloat16" or "float16". `progress` is told of each step. An existing folder is replaced if it is
    empty or holds such artefacts. Raises CallError, DiagnosticError, and the compilers' BuildError or AheadOfTimeError.
    """
    names = {name: kind for kind, name in DTYPES.items()}
    if dtype not in names:
        raise CallError(f"expected dtype {', '.join(names)}, got {dtype!r}")
    if directory.exists() and any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        raise CallError(f"expected a new folder or one that sparsec wrote, got {directory}, which holds other files")
    check_supported(pattern, head_dim)
    progress("lowering")
    try:
        plan = plan_request(Request(pattern.resolve(heads, kv_heads), head_dim, names[dtype]), target)
    except TooManyBands as error:
        raise DiagnosticError((pattern.too_many_bands(),)) from error
    build = _build_cpu if target == "cpu" else _build_gpu
    kernels, files = build(plan, target, progress)
    manifest = Manifest(
        target,
        pattern.name,
        _versions(target),
        _launch(plan),
        kernels,
        {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )
    text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=2) + "\n"
    progress("writing")
    _publish(directory, {**files, MANIFEST: text.encode()})
    return manifest


def load_compiled(directory: Path | str) -> SparseAttention:
    """The module that `compile_to_directory` (`sparsec compile`) wrote. Raises CallError for anything else."""
    folder = Path(directory)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise CallError(f"expected a folder that sparsec compile wrote, got {folder}: {error}") from error
    if manifest.get("format") != FORMAT:
        raise CallError(f"expected artefacts of format {FORMAT}, got {manifest.get('format')!r}")
    for name, digest in manifest["files"].items():
        if Path(name).name != name or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise CallError(f"expected {folder / name} as its manifest describes it, got another content")
    plan = _launch_plan(manifest["launch"])
    if manifest["target"] == "cpu":
        kernel = cpu.CpuKernel.load(plan, (folder / CPP_FILE).read_text(), folder / LIBRARY_FILE)
        return module_of("cpu", plan, kernel, _no_gradient)
    from sparsec.runtime.triton import TritonKernel  # imported where it is used, for it is slow to import

    return module_of("triton", plan, TritonKernel(plan, (folder / TRITON_FILE).read_text()), _no_gradient)


def _no_gradient() -> BackwardKernel:
    raise SparsecError(
        "expected a forward pass alone: a compiled folder has no gradients; compile the pattern for them"
    )


def _build_cpu(
    plan: KernelPlan, target: str, progress: Callable[[str], None]
) -> tuple[tuple[KernelRecord, ...], dict[str, bytes]]:
    source = emit_cpp(plan)
    progress("compiling C++")
    library = cpu.compile_shared(source)
    return (KernelRecord("sparsec_forward"),), {CPP_FILE: source.encode(), LIBRARY_FILE: library.read_bytes()}


def _build_gpu(
    plan: KernelPlan, target: str, progress: Callable[[str], None]
) -> tuple[tuple[KernelRecord, ...], dict[str, bytes]]:
    from sparsec.runtime import aot  # imported where it is used, for it is slow to import

    source = emit_triton(plan)
    files = {TRITON_FILE: source.encode()}
    records = []
    progress(f"compiling {len(plan.classes)} kernels for {target}")
    for artefact in aot.compile_ahead(source, plan, target):
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
                aot.check(artefact),
            )
        )
    return tuple(records), files


def _versions(target: str) -> dict[str, str]:
    packages = ("torch",) if target == "cpu" else ("torch", "triton")
    versions = {name: version(name) for name in packages}
    return {"python": platform.python_version(), "sparsec": __version__, **versions}


def _launch(plan: KernelPlan) -> dict[str, Any]:
    """What a launch needs to know of the plan: all of it but the tile programs' expressions."""
    classes = [
        {
            "heads": list(c.heads),
            "constants": {name: list(values) for name, values in c.constants},
            "query_tile": c.program.query_tile,
            "key_tile": c.program.key_tile,
            "lists": [asdict(spec) for spec in c.program.lists],
        }
        for c in plan.classes
    ]
    plain = {name: getattr(plan, name) for name in PLAIN_FIELDS}
    return {**plain, "documents": plan.documents.value, "classes": classes}


def _launch_plan(launch: Mapping[str, Any]) -> KernelPlan:
    """The plan that `_launch` described, with empty tile programs."""
    classes = []
    for c in launch["classes"]:
        lists = tuple(
            ListSpec(s["width"], s["block"], tuple((seed, lane) for seed, lane in s["lanes"]), s["lane_row"])
            for s in c["lists"]
        )
        program = TileProgram(c["query_tile"], c["key_tile"], (), (), (), FALSE, lists)
        constants = tuple((name, tuple(values)) for name, values in c["constants"].items())
        classes.append(HeadClass(tuple(c["heads"]), constants, program, ()))
    plain = {name: launch[name] for name in PLAIN_FIELDS}
    return KernelPlan(**plain, documents=Documents(launch["documents"]), classes=tuple(classes))


def _publish(directory: Path, files: Mapping[str, bytes]) -> None:
    """Puts a whole folder in place: written beside it, then renamed."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as scratch:
        fresh, former = Path(scratch) / "fresh", Path(scratch) / "former"
        fresh.mkdir()
        for name, data in files.items():
            (fresh / name).write_bytes(data)
        if directory.exists():
            directory.rename(former)
        try:
            fresh.rename(directory)
        except OSError:
            if former.exists():
                former.rename(directory)
            raise
        shutil.rmtree(former, ignore_errors=True)

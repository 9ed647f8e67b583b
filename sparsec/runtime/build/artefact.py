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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from sparsec import __version__
from sparsec.backends import registry
from sparsec.backends.absent import no_kept, no_mass
from sparsec.backends.base import (
    KEPT,
    PAGED,
    PARTS,
    BackwardKernel,
    CachedKernel,
    Kernels,
    MassKernel,
)
from sparsec.backends.paged import PagedKernel
from sparsec.diagnostics.arguments import path
from sparsec.diagnostics.model import CallError, SparsecError
from sparsec.ir.bands.kept import token_ordinals
from sparsec.ir.bands.normalise import TooManyBands
from sparsec.pipeline import Compilation
from sparsec.plan.kv.cached import NoCache
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.launch import Launches
from sparsec.program import Pattern
from sparsec.runtime.build.manifest import (
    FORMAT,
    LAYOUT,
    MANIFEST,
    MODEL,
    Manifest,
    Proof,
    launch_data,
    launches_of,
    layout_data,
    layout_of,
)
from sparsec.runtime.compile import checked_dims, chosen_tiles, module_of
from sparsec.runtime.devices import default_device
from sparsec.runtime.kernel import LoadedKernel
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import DTYPES, Request, kernel_name, request_of

_Kernel = TypeVar("_Kernel", BackwardKernel, CachedKernel, MassKernel, PagedKernel)
_SAID = {
    "forward": "the forward pass",
    "backward": "the gradients",
    "cached": "the KV cache",
    KEPT: "kept keys",
    PAGED: "pages",
}


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """What the kernels of a folder are for.

    target: a name of `plan.target`. value_dim: head_dim if None. dtype: "float32", "bfloat16" or "float16".
    `gradients`: whether it can be trained; `pages`: whether it can attend over a server's pages. `tiles`: as of
    `sparsec.compile`.
    """

    target: str
    head_dim: int
    dtype: str
    value_dim: int | None = None
    gradients: bool = True
    pages: bool = False
    tiles: Mapping[str, Sequence[int | None]] | None = None


@dataclass(frozen=True, slots=True)
class FolderPlan:
    """A pattern on its way into a folder: what is known before anything is built. `layout`: of the cache, or why there
    is none."""

    name: str
    request: Request
    compilation: Compilation
    launches: Launches
    layout: CacheLayout | str

    @classmethod
    def of(cls, pattern: Pattern, heads: int | None, kv_heads: int | None, options: FolderOptions) -> FolderPlan:
        """Raises CallError, DiagnosticError."""
        names, target = {name: kind for kind, name in DTYPES.items()}, options.target
        if options.dtype not in names:
            raise CallError(f"expected dtype {', '.join(names)}, got {options.dtype!r}")
        dims = checked_dims(options.head_dim, options.value_dim)
        registry.check_target(target)
        with pattern.refusals():
            request = Request(pattern.lowered(heads, kv_heads), *dims, names[options.dtype])
            if options.tiles:
                request = request.with_tiles(chosen_tiles(options.tiles, registry.backend_name(target)))
            compilation = request.compilation(target)
            launches, layout = _launches(compilation, options.gradients, options.pages)
        return cls(pattern.name, request, compilation, launches, layout)

    def build(self, proof: Proof | None, progress: Callable[[str], None]) -> tuple[Manifest, dict[str, bytes]]:
        """What the folder says of itself, and all its files. Raises the compilers' BuildError or AheadOfTimeError."""
        target = self.compilation.target
        backend = registry.builder(target)
        parts = [part for part in (*PARTS, KEPT, PAGED) if getattr(self.launches, part) is not None]
        built = backend.build(self.compilation, parts, lambda part: progress(f"compiling {_SAID[part]} for {target}"))
        files = {**built.files, LAYOUT: json_bytes(layout_data(self.layout))}
        manifest = Manifest(
            target,
            self.name,
            kernel_name(self.request, target),
            _versions(backend.packages),
            launch_data(self.launches),
            built.kernels,
            {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            built.needs,
            proof,
        )
        return manifest, {**files, MANIFEST: json_bytes({"format": FORMAT, **asdict(manifest)})}


def compile_to_directory(
    pattern: Pattern,
    directory: Path,
    *,
    target: str,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int,
    value_dim: int | None = None,
    dtype: str,
    gradients: bool = True,
    pages: bool = False,
    tiles: Mapping[str, Sequence[int | None]] | None = None,
    progress: Callable[[str], None] = lambda _: None,
    prove: Callable[[Compilation], Proof] | None = None,
) -> Manifest:
    """Writes the artefacts of `pattern` to `directory`; target and options as of FolderOptions.

    `progress` is told of each step, from any thread. `prove`, called before anything is built, gives what the manifest
    is to record, or raises to refuse. An existing folder is replaced if it is empty or one that sparsec wrote. Raises
    CallError, DiagnosticError, and the compilers' BuildError or AheadOfTimeError.
    """
    check_replaceable(directory)
    progress("lowering")
    plan = FolderPlan.of(
        pattern, heads, kv_heads, FolderOptions(target, head_dim, dtype, value_dim, gradients, pages, tiles)
    )
    proof = None
    if prove is not None:
        progress("proving")
        proof = prove(plan.compilation)
    manifest, files = plan.build(proof, progress)
    progress("writing")
    publish_folder(directory, files)
    return manifest


def check_replaceable(directory: Path) -> None:
    """Raises CallError for a folder that holds what sparsec did not write."""
    if directory.exists() and any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        if is_model_folder(directory):
            return
        raise CallError(f"expected a new folder or one that sparsec wrote, got {directory}, which holds other files")


def is_model_folder(directory: Path) -> bool:
    """Whether it is a folder of a model's kinds of layers (`runtime.build.model_folder`)."""
    try:
        found = json.loads((directory / MODEL).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"sparsec", "model", "layers"} <= set(found)


def load_compiled(directory: Path | str) -> SparseAttention:
    """The module that `compile_to_directory` (`sparsec compile`) wrote. Raises CallError for anything else.

    A library for the CPU is run as it is, and so is a GPU's machine code where this machine has such a GPU and the
    Triton that compiled it. Else, and for calls of another kind than those that it was compiled for, a GPU's kernels go
    from their source through Triton, which keeps what it has built in a cache of its own.
    """
    folder = path(directory)
    if is_model_folder(folder):
        raise CallError(
            f"expected the folder of one kind of layers, got {folder}, that of a model: its {MODEL} names one for each "
            "layer"
        )
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest = json.loads(text)
        if manifest["format"] != FORMAT:
            raise CallError(f"expected artefacts of format {FORMAT}, got {manifest['format']!r}")
        files = _checked(folder, manifest["files"])
        layout = layout_of(json.loads(files[LAYOUT]))
        launches = launches_of(manifest["launch"], layout)
        request = replace(request_of(manifest["request"])[0], file_layout=partial(_layout, layout))
        target = str(manifest["target"])
        name, backend = registry.backend_name(target), registry.builder(target)
        backend.check_needs(manifest["processor"])
        loaded = backend.load(launches, folder, files)
    except CallError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise CallError(f"expected a folder that sparsec compile wrote, got {folder} ({said})") from error
    kernels = Kernels(
        loaded.forward,
        _giving(loaded.backward, _no_gradient),
        _giving(loaded.cached, _no_cache),
        _giving(loaded.mass, no_mass),
        _giving(loaded.kept, no_kept),
        _giving(loaded.paged, _no_pages),
    )
    return module_of(
        name,
        kernel_name(request, target, hashlib.sha256(text).hexdigest()),
        LoadedKernel(kernels, launches.forward, lambda: request.compilation(target).forward),
        request,
        default_device(name),
    )


def _giving(kernel: _Kernel | None, otherwise: Callable[[], _Kernel]) -> Callable[[], _Kernel]:
    return otherwise if kernel is None else lambda: kernel


def _no_gradient() -> BackwardKernel:
    raise SparsecError("expected a forward pass alone: the folder was compiled with --inference, without gradients")


def _no_cache() -> CachedKernel:
    raise CallError("expected a folder with kernels for a cache, got one without")


def _no_pages() -> PagedKernel:
    raise CallError("expected a folder with kernels for attention over pages, got one compiled without --pages")


def _layout(layout: CacheLayout | str) -> CacheLayout:
    if isinstance(layout, str):
        raise CallError(f"expected a pattern that a KV cache serves, got one without: {layout}")
    return layout


def _launches(compilation: Compilation, gradients: bool, pages: bool) -> tuple[Launches, CacheLayout | str]:
    """What a folder's kernels are called by; the layout of the cache, or why there is none. Raises TooManyBands, and
    CallError for `pages` without a cache."""
    forward, backward = compilation.forward, compilation.backward if gradients else None
    try:
        cached = compilation.cached
    except (NoCache, TooManyBands) as error:  # the heads of a KV group may have more bands together than each has
        if pages:
            raise CallError(
                f"expected a pattern that a KV cache serves for --pages, got one without: {error}"
            ) from None
        return Launches.of(forward, backward, None, None), str(error)
    kept = compilation.kept if token_ordinals(compilation.pattern.inputs) else None
    return Launches.of(forward, backward, cached, kept, compilation.paged if pages else None), cached[0].layout


def _checked(folder: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    """The files' contents. Raises CallError for one that differs from its digest, OSError for one that is not there."""
    files = {}
    for name, digest in digests.items():
        if Path(name).name == name:
            files[name] = (folder / name).read_bytes()
        if name not in files or hashlib.sha256(files[name]).hexdigest() != digest:
            raise CallError(f"expected {folder / name} as its manifest describes it, got another content")
    return files


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    versions = {name: version(name) for name in packages}
    return {"python": platform.python_version(), "sparsec": __version__, **versions}


def json_bytes(data: Mapping[str, Any]) -> bytes:
    """As files of a folder have it."""
    return (json.dumps(data, indent=2) + "\n").encode()


def publish_folder(directory: Path, files: Mapping[str, bytes]) -> None:
    """Puts a whole folder in place, whose files may be in sub-folders of one level: written beside it, then renamed, or
    exchanged with the one that is there. Raises OSError, which names `directory`."""
    try:
        _publish(directory, files)
    except OSError as error:  # of the scratch folder, of which the caller knows nothing
        raise OSError(error.errno, error.strerror, str(directory)) from error


def _publish(directory: Path, files: Mapping[str, bytes]) -> None:
    """Puts a whole folder in place: written beside it, then renamed, or exchanged with the one that is there."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".sparsec-") as scratch:
        fresh, former = Path(scratch) / "fresh", Path(scratch) / "former"
        fresh.mkdir()
        for folder in dict.fromkeys(Path(name).parent for name in files):
            (fresh / folder).mkdir(exist_ok=True)
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

"""Generated C++ -> a shared library built by the machine's compiler -> a kernel on CPU tensors.

Invariant: a build is keyed by everything it depends on, so a library found in the cache needs no compiler run; outputs
are the same bit for bit whatever the number of threads.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import sparsec
from sparsec.backends.base import Lookup, Unavailable
from sparsec.backends.cpu import calls
from sparsec.backends.cpu.emit import emit_cpp
from sparsec.backends.cpu.lookups import bias_arguments, lookup_table, with_whole_rows
from sparsec.backends.cpu.processor import Processor, used_by
from sparsec.diagnostics.model import CallError
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.launch import LaunchPlan
from sparsec.runtime.build.at_once import cores
from sparsec.runtime.build.cache import BuildError as BuildError
from sparsec.runtime.build.cache import build_key, discard, lookup, publish
from sparsec.runtime.positions import check_positions
from sparsec.sema.model import Documents

NATIVE = "native"
_LIBRARY = "kernel.so"
_ALIAS = "entry"
_TIMEOUT_SECONDS = 300
_MICRO_KERNEL = re.compile(rb"sparsec micro-kernel of (\w+)\0+([ -~]+)\0")
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}


_room: dict[str, threading.BoundedSemaphore] = {}
"""What keeps as many compilers running at a time as this process has cores, whoever asks for them."""


def _make_room() -> None:
    _room["to compile"] = threading.BoundedSemaphore(cores())


_make_room()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make_room)  # the threads that hold some are the parent's


class NoCompiler(BuildError, Unavailable):
    """The machine has no C++ compiler, and the build cache no kernel that one has built."""

    lack = "no C++ compiler was found"


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler's command line so far, and what tells it from another version: path, size and time of its files."""

    command: tuple[str, ...]
    identity: str


def find_compiler() -> Compiler | None:
    """$CXX, else g++, else clang++; asked by `stat` alone, never run. Raises BuildError for a $CXX of no words."""
    for candidate in (os.environ.get("CXX", ""), "g++", "clang++"):
        try:
            words = shlex.split(candidate)
        except ValueError as error:
            raise BuildError(f"expected $CXX as the words of a command, got {candidate!r} ({error})") from error
        if not words or shutil.which(words[0]) is None:
            continue
        programs = [Path(found).resolve() for word in words if (found := shutil.which(word)) is not None]
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in programs]
        if os.sep in words[0]:  # it is run in another folder
            words[0] = str(Path(words[0]).absolute())
        return Compiler(tuple(words), repr((words, stats)))
    return None


def has_compiler() -> bool:
    return find_compiler() is not None


def compile_shared(source: str, *, optimise: int = 3, processor: str = NATIVE) -> Path:
    """The shared library of C++ `source`, from the build cache or built now (-O`optimise`).

    `processor`: this machine's, or one of `plan.target.CPU_LEVELS`. Without a compiler a library that any one has built
    here serves. Raises NoCompiler, BuildError.
    """
    compiler = find_compiler()
    flags = _flags(optimise, processor)
    parts = (source, repr(flags), _machine(), sparsec.__version__)
    alias = build_key("any compiler", *parts)
    if compiler is None:
        folder = _aliased(alias)
        if folder is None:
            raise NoCompiler(
                "expected a C++ compiler ($CXX, g++ or clang++), found none; install one or use target='torch'"
            )
        return folder / _LIBRARY
    key = build_key(source, compiler.identity, *parts[1:])
    folder = lookup(key)
    if folder is None:
        try:
            with _room["to compile"], tempfile.TemporaryDirectory(prefix="sparsec-") as scratch:
                _run_compiler(compiler.command, flags, source, Path(scratch))
                built = (Path(scratch) / _LIBRARY).read_bytes()
        except OSError as error:
            raise BuildError(f"expected room to build in {tempfile.tempdir}, got an error: {error}") from error
        folder = publish(key, {_LIBRARY: built, "kernel.cpp": source.encode()})
    if _aliased(alias) is None:
        discard(alias)  # one whose library is gone
        publish(alias, {_ALIAS: key.encode()})
    return folder / _LIBRARY


def _aliased(alias: str) -> Path | None:
    """The entry that another one names."""
    found = lookup(alias)
    return None if found is None else lookup((found / _ALIAS).read_text(encoding="ascii"))


def micro_kernels_of(library: bytes) -> dict[str, str]:
    """The micro-kernels that a compiler chose for a library of `compile_shared`, by entry point without its symbol."""
    return {entry.decode("ascii"): name.decode("ascii") for entry, name in _MICRO_KERNEL.findall(library)}


def open_library(library: Path) -> ctypes.CDLL:
    """Loads a library of the build cache or of a folder, whose digest was checked. Raises BuildError."""
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise BuildError(
            f"expected a library that this system loads, got {library} ({error}); "
            "SPARSEC_CACHE_DIR names another folder, such as one of a mount without noexec"
        ) from error


def _flags(optimise: int, processor: str) -> tuple[str, ...]:
    # No -ffast-math: a masked score is an infinity, and a NaN has to show.
    exact = ("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
    return ("-std=c++17", f"-O{int(optimise)}", _processor_flag(processor), *exact, "-shared", "-fPIC", "-fopenmp")


def _processor_flag(processor: str) -> str:
    arm = platform.machine() in ("aarch64", "arm64")
    if processor != NATIVE and arm:
        raise BuildError(f"expected an x86-64 machine to build for {processor}, got {platform.machine()}")
    return "-mcpu=native" if arm else f"-march={processor}"


def processor_of(processor: str = NATIVE) -> Processor:
    """What the libraries of `compile_shared` need."""
    compiler = find_compiler()
    return used_by(compiler.command if compiler is not None else (), _processor_flag(processor))


def _run_compiler(command: tuple[str, ...], flags: tuple[str, ...], source: str, folder: Path) -> None:
    (folder / "kernel.cpp").write_text(source, encoding="utf-8")
    arguments = [*command, *flags, "kernel.cpp", "-o", _LIBRARY]
    try:
        done = subprocess.run(
            arguments, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
        if done.returncode != 0 and "omp" in done.stderr:  # a compiler without OpenMP: one thread
            arguments.remove("-fopenmp")
            done = subprocess.run(
                arguments, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{shlex.join(arguments)} did not finish: {error}") from error
    if done.returncode != 0:
        said = "\n".join(done.stderr.splitlines()[:40])
        raise BuildError(f"{shlex.join(arguments)} failed with exit status {done.returncode}:\n{said}")


@cache
def _machine() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return repr((platform.machine(), platform.processor(), sorted(set(facts))))


_ADDRESSES, _REST = calls.FORWARD.packer(slice(5)), calls.FORWARD.packer(slice(5, None))
_MOST_CHECKED = 64
"""Kinds of calls that one kernel remembers."""
DrawList = calls.LIST.structure()


@dataclass(frozen=True, slots=True)
class CpuKernel:
    """The forward kernel of one plan, loaded; `source` is the text of its library."""

    plan: LaunchPlan
    source: str
    entry: Callable[[bytes], int]
    checked: dict[tuple[object, ...], bytes] = field(default_factory=dict, compare=False, repr=False)
    """What follows the addresses in calls of q, k and v alone, by what it depends on: such a call is checked once."""

    @staticmethod
    def of(plan: KernelPlan) -> CpuKernel:
        """Builds (or finds) and loads the kernel of `plan`. Raises BuildError."""
        return build_kernels((plan,))[0]

    @staticmethod
    def load(plan: LaunchPlan, source: str, library: Path) -> CpuKernel:
        """The kernel from a library that `compile_shared(source)` made, `source` being what `plan` launches."""
        return CpuKernel(plan, source, open_library(library).sparsec_forward)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        q_offset: int,
        scale: float | None,
        lists: tuple[Tensor, ...],
        sink: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """q [B, H, Nq, D]; k [B, G, Nk, D]; v [B, G, Nk, Dv]; any strides; row r of q is at q_offset + r.

        `scale` None means the plan's, else 1/sqrt(D). `lists` are int32 [rows, query blocks, width], one for each list
        of the plan, class by class, from query block q_offset // block on (0 where documents restart).
        sink: float32 [H], given iff the plan has a learned sink. cu_seqlens: int32 [documents + 1], given iff it has
        documents; B is then 1 and every query lies in 0..Nk-1. Returns out [B, H, Nq, Dv] (contiguous) and the
        natural-log LSE, float32 [B, H, Nq]; an empty row has 0, and -inf or the sink. Uses
        torch.get_num_threads() threads. Raises CallError for tensors that the plan was not made for.
        """
        threads = torch.get_num_threads()
        alike: tuple[object, ...] | None = None
        if sink is None and cu_seqlens is None and key_bias is None and not lists and not inputs:
            alike = (
                *(q.shape, k.shape, v.shape, q.stride(), k.stride(), v.stride(), q.dtype, k.dtype, v.dtype),
                *(q.is_cpu and k.is_cpu and v.is_cpu, q_offset, scale, threads),
            )
        rest = None if alike is None else self.checked.get(alike)
        if rest is None:
            check_call(self.plan, q, k, v, q_offset, sink, cu_seqlens)
            k, v = with_whole_rows(self.plan, k, v)
        rows = q.shape[:3]
        out = torch.empty((*rows, v.shape[3]), dtype=q.dtype)
        lse = torch.empty(rows, dtype=torch.float32)
        if rest is None:
            tables = draw_lists(self.plan, lists, q_offset, q.shape[2])
            lookups = lookup_table(self.plan, inputs, q.shape[0])
            sink = None if sink is None else sink.detach().contiguous()
            cu_seqlens = None if cu_seqlens is None else cu_seqlens.detach().contiguous()
            rest = _REST.pack(
                *(*q.stride(), *k.stride(), *v.stride(), *out.stride(), *lse.stride()),
                *(q.shape[0], q.shape[2], k.shape[2], q_offset),
                *(table_address(tables), table_address(lookups), address(sink)),
                *bias_arguments(self.plan, key_bias, q.shape[0]),
                address(cu_seqlens),
                0 if cu_seqlens is None else cu_seqlens.shape[0] - 1,
                self.plan.scale(scale),
                threads,
            )
            if alike is not None:
                if len(self.checked) >= _MOST_CHECKED:
                    self.checked.clear()
                self.checked[alike] = rest
        addresses = _ADDRESSES.pack(q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr(), lse.data_ptr())
        if self.entry(addresses + rest) != 0:
            raise MemoryError("the kernel's scratch could not be allocated")
        return out, lse


def address(tensor: Tensor | None) -> int:
    """Where a tensor's numbers are; 0, a null pointer, for none."""
    return 0 if tensor is None else tensor.data_ptr()


def table_address(table: ctypes.Array[ctypes.Structure] | array[int] | None) -> int:
    """Likewise of an array of structs."""
    if table is None:
        return 0
    return table.buffer_info()[0] if isinstance(table, array) else ctypes.addressof(table)


def draw_lists(
    plan: LaunchPlan, lists: tuple[Tensor, ...], q_offset: int, n_queries: int
) -> ctypes.Array[ctypes.Structure] | None:
    """The tables of draws as the kernels take them. Raises CallError for tables that do not cover the queries."""
    if not lists and not plan.lists:
        return None
    start = 0 if plan.documents is Documents.RESTART else q_offset
    rows = []
    for spec, table in zip(plan.lists, lists, strict=True):
        first = start // spec.block
        blocks = max((q_offset + n_queries - 1) // spec.block + 1 - first, 0)
        if table.dtype != torch.int32 or not table.is_contiguous() or table.dim() != 3:
            raise CallError(f"expected contiguous int32 tables of draws, got {table.dtype} {tuple(table.shape)}")
        if table.shape[0] != len(spec.lanes) or table.shape[1] < blocks or table.shape[2] != spec.width:
            wanted = (len(spec.lanes), blocks, spec.width)
            raise CallError(f"expected a table of draws of shape {wanted}, got {tuple(table.shape)}")
        rows.append(DrawList(table.data_ptr(), first, table.shape[1]))
    return (DrawList * len(rows))(*rows)


def check_call(
    plan: LaunchPlan, q: Tensor, k: Tensor, v: Tensor, q_offset: int, sink: Tensor | None, cu_seqlens: Tensor | None
) -> None:
    """Raises CallError for what the kernels of `plan` cannot take, so that no address of theirs is out of bounds."""
    check_keys(plan, q, k, q_offset, sink, cu_seqlens)
    wanted = (*k.shape[:3], plan.value_dim)
    if v.shape != wanted or v.dtype != q.dtype or not v.is_cpu:
        raise CallError(f"expected v {q.dtype} {list(wanted)} on the CPU, got {v.dtype} {list(v.shape)} on {v.device}")


def check_keys(
    plan: LaunchPlan, q: Tensor, k: Tensor, q_offset: int, sink: Tensor | None, cu_seqlens: Tensor | None
) -> None:
    """The same of all but the values."""
    dtype = TORCH_DTYPES[plan.dtype]
    if q.dtype != dtype or k.dtype != dtype or not (q.is_cpu and k.is_cpu):
        raise CallError(f"expected {dtype} tensors on the CPU, got {[(t.dtype, str(t.device)) for t in (q, k)]}")
    of_q, of_k = q.shape, k.shape
    batch, n_keys = of_q[0], of_k[2] if len(of_k) == 4 else 0
    wanted = (batch, plan.heads, of_q[-2], plan.head_dim), (batch, plan.kv_heads, n_keys, plan.head_dim)
    if (of_q, of_k) != wanted:
        raise CallError(f"expected q, k of shapes {list(wanted)}, got {[tuple(of_q), tuple(of_k)]}")
    check_positions(q_offset, of_q[2], n_keys)
    if (sink is not None) != plan.score.learned:
        raise CallError(
            f"expected {'a' if plan.score.learned else 'no'} sink, got {'one' if sink is not None else 'none'}"
        )
    if sink is not None and (sink.shape != (plan.heads,) or sink.dtype != torch.float32 or sink.device.type != "cpu"):
        raise CallError(
            f"expected sink float32 [{plan.heads}] on the CPU, got {sink.dtype} {list(sink.shape)} on {sink.device}"
        )
    if (cu_seqlens is not None) != (plan.documents is not Documents.NONE):
        raise CallError(f"expected {'no ' if cu_seqlens is not None else ''}cu_seqlens for this pattern")
    if cu_seqlens is not None:
        _check_documents(cu_seqlens, batch, q_offset, q.shape[2], n_keys)


def _check_documents(cu_seqlens: Tensor, batch: int, q_offset: int, n_queries: int, n_keys: int) -> None:
    if batch != 1:
        raise CallError(f"expected a batch of 1 with cu_seqlens, got {batch}")
    if cu_seqlens.dtype != torch.int32 or cu_seqlens.dim() != 1 or cu_seqlens.device.type != "cpu":
        raise CallError(
            f"expected cu_seqlens int32 [documents + 1] on the CPU, got {cu_seqlens.dtype} {list(cu_seqlens.shape)}"
        )
    ends = [int(cu_seqlens[n]) for n in (0, -1)] if cu_seqlens.numel() else []
    if ends != [0, n_keys] or bool((cu_seqlens.diff() < 0).any()):
        raise CallError(f"expected cu_seqlens to rise from 0 to Nk {n_keys}, got {cu_seqlens.tolist()[:8]}")
    if q_offset < 0 or q_offset + n_queries > n_keys:
        raise CallError(
            f"expected documents' queries at positions in 0..{n_keys}, got q_offset {q_offset}, Nq {n_queries}"
        )


def build_kernels(plans: Sequence[KernelPlan], *, optimise: int = 3) -> tuple[CpuKernel, ...]:
    """The kernels of several plans, built as one library. Raises BuildError."""
    symbols = ["sparsec"] if len(plans) == 1 else [f"sparsec_{n}" for n in range(len(plans))]
    source = "\n".join(emit_cpp(plan, symbol=symbol) for plan, symbol in zip(plans, symbols, strict=True))
    library = open_library(compile_shared(source, optimise=optimise))
    return tuple(
        CpuKernel(LaunchPlan.of(plan), source, library[f"{symbol}_forward"])
        for plan, symbol in zip(plans, symbols, strict=True)
    )

"""`sparsec.compile`: a pattern (or the text or file that holds one) -> a module that runs it on this machine.

The way down: Program.pattern -> Pattern.resolve -> plan_kernels -> emit_cpp or emit_triton -> build -> SparseAttention.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

import torch

from sparsec.backends.cpu import kernel as cpu
from sparsec.backends.cpu.backward import CpuBackward
from sparsec.backends.cpu.cached import CpuCached
from sparsec.backends.reference.kernel import ReferenceKernel
from sparsec.backends.torch.cached import TorchCached
from sparsec.backends.torch.kernel import TorchBackward, TorchKernel
from sparsec.diagnostics.arguments import instance, integer
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.plan.launch import LaunchPlan
from sparsec.plan.target import Family, family
from sparsec.program import Pattern, Program, load, parse
from sparsec.runtime import flops as flops  # registers the formulas
from sparsec.runtime.cached_kernel import CachedKernel
from sparsec.runtime.devices import device_of
from sparsec.runtime.kernel import BackwardKernel, LoadedKernel, register
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import DTYPES, HEAD_DIM_LIMIT, Request, kernel_name, request_of
from sparsec.sema.arguments import Given
from sparsec.sema.model import Documents

TARGETS = ("cpu", "triton", "torch", "reference")


def compile(
    pattern: Pattern | Program | Path | str,
    *,
    head_dim: int,
    heads: int | None = None,
    kv_heads: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    target: str | None = None,
    name: str | None = None,
    params: Mapping[str, Given] | None = None,
) -> SparseAttention:
    """Compiles a pattern into a `torch.nn.Module`.

    pattern: a Pattern, a Program, a path (a Path, or a string that ends in `.sparse`), or source text; `name` and
    `params` choose the pattern of a file and override its parameters.
    heads, kv_heads: needed where the file leaves them out.
    dtype: float32, bfloat16 or float16. device: where it will run; the GPU if there is one, else the CPU.
    target: "cpu" (generated C++), "triton", "torch" (plain PyTorch) or "reference"; the device's best if left out.
    One module serves every batch size and every length. Raises DiagnosticError for a bad pattern, CallError for a bad
    argument, BuildError if the machine's compiler fails.
    """
    chosen = _pattern(pattern, name, params or {})
    if target is not None and target not in TARGETS:
        raise CallError(f"expected a target among {', '.join(TARGETS)}, got {target!r}")
    where = device_of(device) if device is not None else _default_device(target)
    kind = target if target is not None else _default_target(where)
    if kind == "cpu" and where.type != "cpu":
        raise CallError(f"expected a CPU for target 'cpu', got device {where}")
    if dtype not in DTYPES and not (kind in ("torch", "reference") and dtype == torch.float64):
        raise CallError(f"expected dtype float32, bfloat16 or float16, got {dtype}")
    head_dim = check_supported(chosen, head_dim)
    with chosen.refusals():
        return _module(request_for(chosen, head_dim, dtype, heads, kv_heads), kind, where, anyhow=target is None)


def request_for(
    pattern: Pattern, head_dim: int, dtype: torch.dtype, heads: int | None, kv_heads: int | None
) -> Request:
    layout = partial(pattern.cache_layout, heads, kv_heads)
    return Request(pattern.lowered(heads, kv_heads), head_dim, dtype, layout, pattern.refusals)


def check_supported(pattern: Pattern, head_dim: int) -> int:
    """The head dimension. Raises DiagnosticError for what no kernel takes, CallError for a bad head dimension."""
    problems = pattern.unsupported()
    if problems:
        raise DiagnosticError(problems)
    return integer("head_dim", head_dim, 1, HEAD_DIM_LIMIT)


def _pattern(given: Pattern | Program | Path | str, name: str | None, params: Mapping[str, Given]) -> Pattern:
    instance("params", params, Mapping)  # type: ignore[type-abstract]  # it makes none
    match given:
        case Pattern() if name is not None or params:
            raise CallError("expected name= and params= without a Pattern, which has its own, got them with one")
        case Pattern():
            return given
        case Program():
            return given.pattern(name, **params)
        case Path():
            return load(given).pattern(name, **params)
        case str():
            return (load if given.endswith(".sparse") else parse)(given).pattern(name, **params)
    raise CallError(
        f"expected a Pattern (as program.pattern(name) and model.layer(n) give), a Program, a path or a text, "
        f"got {type(given).__name__}"
    )


def _default_device(target: str | None) -> torch.device:
    return torch.device("cuda" if target != "cpu" and torch.cuda.is_available() else "cpu")


def _default_target(device: torch.device) -> str:
    return {"cuda": "triton", "cpu": "cpu"}.get(device.type, "torch")


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=6)


def _module(request: Request, kind: str, device: torch.device, *, anyhow: bool) -> SparseAttention:
    if kind == "reference":
        pattern = request.pattern
        return SparseAttention(
            heads=pattern.heads,
            kv_heads=pattern.kv_heads,
            head_dim=request.head_dim,
            dtype=request.dtype,
            target=kind,
            score=pattern.score,
            kernel=ReferenceKernel(pattern),
            documents=pattern.documents is not Documents.NONE,
            request=request,
        )
    target = kind
    if kind == "triton":
        from sparsec.backends.triton import kernel as triton  # imported where it is used, for it is slow to import

        target = triton.target_of(device)
    kernels = _kernels(request, kind, device, anyhow=anyhow)
    if isinstance(kernels.forward, TorchKernel):
        kind = target = "torch"
    return module_of(kind, kernel_name(request, target), kernels, request, device)


def _kernels(request: Request, kind: str, device: torch.device, *, anyhow: bool) -> LoadedKernel:
    """The kernels of a request for "cpu", "torch" or "triton"; those of gradients and of a cache come later.

    `anyhow`: those of "torch" take the place of such of "cpu" as cannot be built for want of a compiler.
    """
    if kind == "triton":
        from sparsec.backends.triton import kernel as triton  # imported where it is used, for it is slow to import
        from sparsec.backends.triton.cached import TritonCached

        name = triton.target_of(device)
        compilation = request.compilation(name)
        plan = compilation.forward
        built = triton.TritonKernel.of(plan, plan_backward=lambda: compilation.backward)
        return LoadedKernel(
            built, lambda: built, built.plan, lambda: TritonCached.of(*compilation.cached), lambda: plan
        )
    compilation = request.compilation("cpu")
    plan = compilation.forward

    def backward() -> BackwardKernel:
        made = CpuBackward.of(compilation.backward)
        return made if available(made.entry) else TorchBackward(compilation.backward)

    def cached() -> CachedKernel:
        made = CpuCached.of(*compilation.cached)
        return made if available(made.entries) else TorchCached(compilation.chunks)

    def available(library: Callable[[], object]) -> bool:
        """Whether it is there, or will be: with a compiler it is built when it is first called."""
        if not anyhow or cpu.has_compiler():
            return True
        try:
            library()
        except cpu.NoCompiler:
            _warn_once("no C++ compiler was found; sparsec falls back to target='torch', which is slower")
            return False
        return True

    if kind == "cpu" and available(lambda: cpu.CpuKernel.of(plan)):
        return LoadedKernel(cpu.CpuKernel.of(plan), backward, LaunchPlan.of(plan), cached, lambda: plan)
    return LoadedKernel(
        TorchKernel(plan),
        lambda: TorchBackward(compilation.backward),
        LaunchPlan.of(plan),
        lambda: TorchCached(compilation.chunks),
        lambda: plan,
    )


def rebuilt(name: str, device: torch.device | None) -> LoadedKernel:
    """The kernels of a name that another process gave, for tensors of a device (None: the target's own kind).

    Raises CallError for a string that is no name, and as `compile` does.
    """
    request, target = request_of(name)
    kind = "torch" if target == "torch" else "cpu" if family(target) is Family.CPU else "triton"
    return _kernels(request, kind, device or _default_device(kind), anyhow=True)


def module_of(
    kind: str, name: str, kernels: LoadedKernel, request: Request, device: torch.device | None = None
) -> SparseAttention:
    """The module around the kernels of a request for target `kind`, which it makes known by their name."""
    launch = kernels.launch
    return SparseAttention(
        heads=launch.heads,
        kv_heads=launch.kv_heads,
        head_dim=launch.head_dim,
        dtype=request.dtype,
        target=kind,
        score=launch.score,
        kernel=register(name, kernels),
        documents=launch.documents is not Documents.NONE,
        device=device,
        request=request,
    )

"""`sparsec.compile`: a pattern (or the text or file that holds one) -> a module that runs it on this machine.

The way down: Program.pattern -> Pattern.lowered -> Compilation -> the kernels of a backend -> SparseAttention.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import torch

from sparsec.backends import registry
from sparsec.backends.base import Backend, BackwardKernel, CachedKernel, Kernels, MassKernel, Unavailable
from sparsec.backends.paged import PagedKernel, no_paged
from sparsec.diagnostics.arguments import instance, integer
from sparsec.diagnostics.model import CallError, InternalError
from sparsec.pipeline import Compilation
from sparsec.plan.launch import LaunchPlan
from sparsec.plan.picks import Tiles
from sparsec.plan.tiles import tiles_from
from sparsec.program import Pattern, Program, load, parse
from sparsec.runtime import flops as flops  # registers the formulas
from sparsec.runtime.build.tuned import kept_tiles
from sparsec.runtime.devices import check_device, default_device, device_of
from sparsec.runtime.kernel import LoadedKernel, register
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import DTYPES, HEAD_DIM_LIMIT, Request, kernel_name, request_of
from sparsec.sema.arguments import Given
from sparsec.sema.inputs import settled
from sparsec.sema.model import Documents

_Made = TypeVar("_Made", BackwardKernel, CachedKernel, MassKernel, PagedKernel)


def compile(
    pattern: Pattern | Program | Path | str,
    *,
    head_dim: int,
    value_dim: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    target: str | None = None,
    name: str | None = None,
    params: Mapping[str, Given] | None = None,
    tiles: Mapping[str, Sequence[int | None]] | None = None,
) -> SparseAttention:
    """Compiles a pattern into a `torch.nn.Module`.

    pattern: a Pattern, a Program, a path (a Path, or a string that ends in `.sparse`), or source text; `name` and
    `params` choose the pattern of a file and override its parameters.
    head_dim: numbers of a query and of a key, 1 to 1024. value_dim: of a value, and so of an output, likewise; head_dim
    if left out.
    heads, kv_heads: needed where the file leaves them out.
    dtype: float32, bfloat16 or float16. device: where it will run; the GPU if there is one, else the CPU.
    target: "cpu" (generated C++), "triton", "torch" (plain PyTorch) or "reference"; the device's best if left out.
    "gluon" has forward kernels for GPUs of compute capability 9.0 and is never chosen.
    tiles: for "triton", the tiles of some kinds of kernels, as in {"forward": (128, 64, 8, 3)}: query tile, key tile,
    warps, stages and, if given, the most registers of a thread; of the kinds "forward", "grad_queries", "grad_keys",
    "chunk" and "decode". Left out: what `sparsec tune` has found best on this card, else what is best known.
    One module serves every batch size and every length. Raises DiagnosticError for a bad pattern, CallError for a bad
    argument, BuildError if the machine's compiler fails.
    """
    chosen = _pattern(pattern, name, params or {})
    if target is not None and target not in registry.BACKENDS:
        raise CallError(f"expected a target among {', '.join(registry.BACKENDS)}, got {target!r}")
    where = device_of(device) if device is not None else default_device(target)
    backend = target if target is not None else registry.best(where.type)
    if backend is None:
        raise CallError(f"expected a device that a target runs on, got {where}")
    check_device(backend, where)
    if dtype not in DTYPES and not (registry.BACKENDS[backend].float64 and dtype == torch.float64):
        raise CallError(f"expected dtype torch.float32, torch.bfloat16 or torch.float16, got {dtype!r:.80}")
    dims = checked_dims(head_dim, value_dim)
    with chosen.refusals():
        request = request_for(chosen, *dims, dtype, heads, kv_heads)
        request = request.with_tiles(_tiles(tiles, request, backend, where))
        return module_for(request, backend, where, anyhow=target is None)


def _tiles(
    given: Mapping[str, Sequence[int | None]] | None, request: Request, backend: str, device: torch.device
) -> Tiles:
    """Those that are given, else those that were found best. Raises CallError."""
    chooses = registry.BACKENDS[backend].tiles
    if given is None:
        tuned = chooses and device.type == "cuda"
        return kept_tiles(request, registry.backend(backend).target_of(device), device) if tuned else ()
    return chosen_tiles(given, backend)


def chosen_tiles(given: Mapping[str, Sequence[int | None]], backend: str) -> Tiles:
    """What a caller gives, for a backend. Raises CallError."""
    if not registry.BACKENDS[backend].tiles:
        raise CallError(f"expected no tiles for target {backend!r}, which has none to choose, got {given!r:.80}")
    try:
        return tiles_from(given)
    except ValueError as error:
        raise CallError(str(error)) from error


def request_for(
    pattern: Pattern, head_dim: int, value_dim: int, dtype: torch.dtype, heads: int | None, kv_heads: int | None
) -> Request:
    layout = partial(pattern.cache_layout, heads, kv_heads)
    return Request(pattern.lowered(heads, kv_heads), head_dim, value_dim, dtype, layout, pattern.refusals)


def checked_dims(head_dim: int, value_dim: int | None) -> tuple[int, int]:
    """The dimensions of keys and of values. Raises CallError."""
    head_dim = integer("head_dim", head_dim, 1, HEAD_DIM_LIMIT)
    return head_dim, head_dim if value_dim is None else integer("value_dim", value_dim, 1, HEAD_DIM_LIMIT)


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


def _warn_once(error: Unavailable, other: str) -> None:
    _warn(f"{error.lack}; sparsec falls back to target={other!r}, which is slower")


@cache
def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=6)


def module_for(request: Request, backend: str, device: torch.device, *, anyhow: bool = False) -> SparseAttention:
    """The module of a checked request; `anyhow`: of the next best backend where this machine cannot build for this."""
    if registry.BACKENDS[backend].oracle:
        pattern = request.pattern
        return SparseAttention(
            heads=pattern.heads,
            kv_heads=pattern.kv_heads,
            head_dim=request.head_dim,
            value_dim=request.value_dim,
            dtype=request.dtype,
            target=backend,
            score=pattern.score,
            kernel=registry.oracle(backend).kernel(pattern),
            documents=pattern.documents is not Documents.NONE,
            inputs=settled(pattern.inputs, pattern.block),
            request=request,
        )
    backend, kernels = _loaded(request, backend, device, anyhow=anyhow)
    target = registry.backend(backend).target_of(device)
    if registry.backend_name(target) != backend:  # or its modules would have another one's kernels
        raise InternalError(f"a backend has targets of its own: {backend} gave {target}")
    return module_of(backend, kernel_name(request, target), kernels, request, device)


def _loaded(request: Request, backend: str, device: torch.device, *, anyhow: bool) -> tuple[str, LoadedKernel]:
    """The kernels of a request, and the backend that they are of: the named one or, with `anyhow`, the next best one
    for the device where this machine lacks what that one builds with."""
    maker, other = registry.backend(backend), registry.best(device.type, after=backend) if anyhow else None
    compilation = request.compilation(maker.target_of(device))
    try:
        kernels = maker.kernels(compilation)
    except Unavailable as error:
        if other is None:
            raise
        _warn_once(error, other)
        return _loaded(request, other, device, anyhow=False)
    if other is not None:
        kernels = _with_other(kernels, maker, other, compilation)
    return backend, LoadedKernel(kernels, LaunchPlan.of(compilation.forward), lambda: compilation.forward)


def _with_other(kernels: Kernels, maker: Backend, other: str, compilation: Compilation) -> Kernels:
    """The kernels of a backend, with those of another one for such as can neither be built nor be found."""

    def either(make: Callable[[], _Made], instead: Callable[[Kernels], _Made]) -> _Made:
        made = make()
        try:
            maker.check_builds()  # then it is built when it is first called
        except Unavailable:
            try:
                made.build()
            except Unavailable as error:
                _warn_once(error, other)
                return instead(registry.backend(other).kernels(compilation))
        return made

    return Kernels(
        kernels.forward,
        lambda: either(kernels.make_backward, lambda others: others.make_backward()),
        lambda: either(kernels.make_cached, lambda others: others.make_cached()),
        lambda: either(kernels.make_mass, lambda others: others.make_mass()),
        lambda: either(kernels.make_kept, lambda others: others.make_kept()),
        kernels.make_paged
        if kernels.make_paged is no_paged
        else lambda: either(kernels.make_paged, lambda others: others.make_paged()),
        lambda *of: either(partial(kernels.make_stored, *of), lambda others: others.make_stored(*of)),
    )


def rebuilt(name: str, device: torch.device | None) -> LoadedKernel:
    """The kernels of a name that another process gave, for tensors of a device (None: the target's own kind).

    Raises CallError for a string that is no name, and as `compile` does.
    """
    request, target = request_of(name)
    backend = registry.backend_name(target)
    return _loaded(request, backend, device or default_device(backend), anyhow=True)[1]


def module_of(
    backend: str, name: str, kernels: LoadedKernel, request: Request, device: torch.device | None = None
) -> SparseAttention:
    """The module around the kernels of a request on a backend, which it makes known by their name."""
    launch = kernels.launch
    return SparseAttention(
        heads=launch.heads,
        kv_heads=launch.kv_heads,
        head_dim=launch.head_dim,
        value_dim=launch.value_dim,
        dtype=request.dtype,
        target=backend,
        score=launch.score,
        kernel=register(name, kernels),
        documents=launch.documents is not Documents.NONE,
        inputs=settled(launch.declared, request.pattern.block),
        device=device,
        request=request,
    )

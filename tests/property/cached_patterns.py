"""Causal patterns for the cache's properties, and modules that run them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from torch import float32

from sparsec.backends.base import BackwardKernel, Kernels
from sparsec.backends.cpu.cached import build_cached
from sparsec.backends.torch.cached import TorchCached
from sparsec.backends.torch.kernel import TorchKernel
from sparsec.ir.bands.normalise import TooManyBands
from sparsec.pipeline import Lowered
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.kv.cached import NoCache
from sparsec.plan.launch import LaunchPlan
from sparsec.runtime.compile import module_of
from sparsec.runtime.kernel import LoadedKernel
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request, kernel_name
from sparsec.sema.model import Causal, Documents, Intersection, ResolvedPattern
from sparsec.testing import patterns


def causal(pattern: ResolvedPattern) -> ResolvedPattern:
    """The pattern with every term made causal, and without documents."""
    cut = {term: Intersection((Causal(), term)) for term in pattern.terms}
    return replace(pattern, terms=tuple(cut[term] for term in pattern.terms), documents=Documents.NONE)


def has_cache(pattern: ResolvedPattern) -> bool:
    try:
        assert Lowered(pattern).layout
    except (NoCache, TooManyBands):
        return False
    return True


def causal_patterns(
    blocks: tuple[int, ...] = (16, 32), *, inputs: bool = False, scored: bool = False
) -> st.SearchStrategy[ResolvedPattern]:
    return patterns(blocks=blocks, inputs=inputs, scored=scored).map(causal).filter(has_cache)


def torch_module(pattern: ResolvedPattern, head_dim: int) -> SparseAttention:
    lowered = Lowered(pattern)
    request = Request(lowered, head_dim, head_dim, float32, lambda: lowered.layout)
    plan = lowered.plan_forward(head_dim=head_dim, dtype="float32", query_tile=16, key_tile=16)
    chunks = request.compilation("torch").chunks
    kernels = Kernels(TorchKernel(plan), _no_backward, lambda: TorchCached(chunks))
    return _module("torch", kernel_name(request, "torch", "small tiles"), kernels, plan, request)


def cpu_modules(chosen: list[ResolvedPattern], head_dim: int) -> list[SparseAttention]:
    """One library for all; the first call of an empty cache runs on the torch target."""
    requests = [Request(Lowered(pattern), head_dim, head_dim, float32) for pattern in chosen]
    built = build_cached([request.compilation("cpu").cached for request in requests], optimise=1)
    modules = []
    for request, kernel in zip(requests, built, strict=True):
        plan = request.compilation("torch").forward
        kernels = Kernels(TorchKernel(plan), _no_backward, lambda kernel=kernel: kernel)  # type: ignore[misc]
        modules.append(_module("cpu", kernel_name(request, "cpu", "forward on torch"), kernels, plan, request))
    return modules


def _module(backend: str, name: str, kernels: Kernels, plan: KernelPlan, request: Request) -> SparseAttention:
    return module_of(backend, name, LoadedKernel(kernels, LaunchPlan.of(plan), lambda: plan), request)


def _no_backward() -> BackwardKernel:
    raise AssertionError("a cache has no gradients")

"""Checked pattern and target -> the launches of its kernels, planned as the runtime plans them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparsec.backends.cpu import cached as cpu_cached
from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.normalise import TooManyBands
from sparsec.plan.kernel import HeadClass
from sparsec.plan.kv.cached import CachedPlan, NoCache, cache_layout
from sparsec.plan.target import Family, family
from sparsec.prove.tile_setting import ProgramKind
from sparsec.runtime.compile import backward_plan, cached_plans, plan_request
from sparsec.runtime.request import DTYPES, Request
from sparsec.sema.model import Documents, ResolvedPattern


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel's name, and the classes of heads that it is launched for."""

    name: str
    kind: ProgramKind
    classes: tuple[HeadClass, ...]
    of_gradients: bool = False


def launches(
    pattern: ResolvedPattern, head_dim: int, dtype: str, target: str, plans: tuple[CachedPlan, ...]
) -> tuple[Launch, ...]:
    """The launches, those of the `cached` plans included.

    Raises TooManyBands or TooManyClasses; ValueError for a target of another form; InternalError for a launch that
    leaves out a head or takes it twice.
    """
    request = _request(pattern, head_dim, dtype)
    forward = ProgramKind.IN_DOCUMENT if pattern.documents is Documents.SEPARATE else ProgramKind.FORWARD
    backward = backward_plan(request, target)
    found = [
        Launch("forward", forward, plan_request(request, target).classes),
        Launch("gradients of queries", forward, backward.forward.classes, True),
        Launch("gradients of keys", ProgramKind.TRANSPOSED, backward.transposed, True),
    ]
    for name, plan in zip(("cached chunks", "cached rows"), plans, strict=False):
        found.append(Launch(name, ProgramKind.FORWARD, plan.attend.classes))
    for launch in found:
        if sorted(head for each in launch.classes for head in each.heads) != list(range(pattern.heads)):
            raise InternalError(f"{launch.name}: a head is launched for once")
    return tuple(found)


def cached(pattern: ResolvedPattern, head_dim: int, dtype: str, target: str) -> tuple[CachedPlan, ...]:
    """The plans over a KV cache, of chunks and of few queries; none for a pattern that has no cache."""
    try:
        if family(target) is Family.CPU:
            return cpu_cached.cached_plans(pattern, head_dim, dtype)
        return cached_plans(_request(pattern, head_dim, dtype), target)
    except (NoCache, TooManyBands):  # the heads of a KV group may have more bands together than each has
        return ()


def _request(pattern: ResolvedPattern, head_dim: int, dtype: str) -> Request:
    kinds: dict[str, torch.dtype] = {name: kind for kind, name in DTYPES.items()}
    return Request(pattern, head_dim, kinds[dtype], lambda: cache_layout(pattern))

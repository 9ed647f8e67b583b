"""Every pattern of every example, and of `more.sparse` -> its kernels for the CPU, or in Triton's interpreter.

Invariant: patterns, head dimensions and dtypes, and their order, follow from the settings alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from findings import EXAMPLES, MORE, Settings
from formulas import CASES
from input_patterns import pattern as with_inputs

import sparsec
from sparsec.backends.base import BackwardKernel, CachedKernel, ForwardKernel, MassKernel
from sparsec.backends.cpu.backward import build_backwards
from sparsec.backends.cpu.cached import build_cached
from sparsec.backends.cpu.kernel import build_kernels
from sparsec.backends.cpu.mass import build_masses
from sparsec.backends.cpu.paged import CpuPaged, build_paged
from sparsec.pipeline import Lowered
from sparsec.plan.kernel import KernelPlan
from sparsec.plan.kv.cached import NoCache
from sparsec.runtime.request import DTYPES, Request
from sparsec.sema.model import InputDecl, InputKind, ResolvedPattern, Score
from sparsec.sema.modifiers import KeyBias

VARIANTS = tuple((dims, dtype) for dims in ((20, 20), (64, 64), (20, 36), (36, 20)) for dtype in DTYPES)
"""Of keys and values, and the dtype."""
INPUTS = ("two lists", "vertical and slash", "causal cells", "causal labels", "causal tree", "draws", "all but rows")
INPUTS += ("run-time ranges", "run-time sink", "causal tokens", "causal slash_blocks", "pages")
BIASED = "biased "
OF_FILES = {"quest_pages": "quest", "minference": "minference"}
INPUTS += (f"{BIASED}two lists", *OF_FILES)
"""Patterns of `input_patterns`, for the CPU, and some of `examples/inputs`; behind BIASED with weights of keys."""
BESIDE = "inputs "
"""What their names begin with, instead of a file."""
AT_ONCE = 6
"""Patterns of one library."""


@dataclass(frozen=True, slots=True)
class Built:
    """The kernels of one pattern, each library built when the first of its kernels is asked for.

    `cached` is None where there is no cache.
    """

    name: str
    number: int
    request: Request
    plan: KernelPlan
    forward: Callable[[], ForwardKernel]
    backward: Callable[[], BackwardKernel]
    cached: Callable[[], CachedKernel] | None
    mass: Callable[[], MassKernel] | None = None
    """None where the target has none."""
    paged: Callable[[], CpuPaged] | None = None
    """None where there is no cache, or the target has none, or the pattern asks inputs."""


def kernels(settings: Settings) -> Iterator[Built]:
    found = list(_requests(settings))
    for first in range(0, len(found), AT_ONCE):
        part = found[first : first + AT_ONCE]
        make = _cpu if settings.target == "cpu" else _triton
        for n, ((name, request), rest) in enumerate(zip(part, make([r for _, r in part], settings), strict=True)):
            yield Built(name, first + n, request, *rest)


def _requests(settings: Settings) -> Iterator[tuple[str, Request]]:
    for n, (name, pattern) in enumerate(_patterns(settings)):
        if settings.patterns and name.split(" ")[1].split("-")[0] not in settings.patterns:
            continue
        for m in range(settings.variants):
            dims, dtype = VARIANTS[(5 * n + m) % len(VARIANTS)]  # 5 and 12 have no common factor
            yield f"{name}, head_dim {dims[0]}, value_dim {dims[1]}, {dtype}", Request(Lowered(pattern), *dims, dtype)


def _patterns(settings: Settings) -> Iterator[tuple[str, ResolvedPattern]]:
    """With names of the form "file pattern", or "file pattern-parameters"."""
    for case in CASES:
        pattern = sparsec.load(EXAMPLES / f"{case.file}.sparse").pattern(case.pattern, **case.params)
        yield f"{case.file}.sparse {case.id}", pattern.resolve(case.heads, case.kv_heads)
    more = sparsec.load(MORE)
    for name in more.patterns:
        yield f"{MORE.name} {name}", more.pattern(name).resolve()
    for name in INPUTS if settings.target == "cpu" else ():
        yield beside(name), _with_inputs(name)


def _with_inputs(name: str) -> ResolvedPattern:
    if name in OF_FILES:
        return sparsec.load(EXAMPLES / "inputs" / f"{OF_FILES[name]}.sparse").pattern(name).resolve(4, 2)
    own = with_inputs(name.removeprefix(BIASED))
    return _biased(own) if BIASED in name else own


def _biased(pattern: ResolvedPattern) -> ResolvedPattern:
    weights = InputDecl("weights", InputKind.WEIGHTS, 1, 1)
    score = Score(modifiers=(KeyBias(len(pattern.inputs)),))
    return replace(pattern, inputs=(*pattern.inputs, weights), score=score)


def beside(name: str) -> str:
    """The name of one of INPUTS."""
    return BESIDE + name.replace(" ", "_").replace("-", "_")


def has_cache(request: Request) -> bool:
    try:
        assert request.lowered.layout
    except NoCache:
        return False
    return True


Makers = tuple[
    KernelPlan,
    Callable[[], ForwardKernel],
    Callable[[], BackwardKernel],
    Callable[[], CachedKernel] | None,
    Callable[[], MassKernel] | None,
    Callable[[], CpuPaged] | None,
]


def _cpu(part: Sequence[Request], settings: Settings) -> Iterator[Makers]:
    """Several patterns a library."""
    level = settings.optimise
    plans = [request.compilation("cpu").forward for request in part]
    held = [request for request in part if has_cache(request)]
    forward = cache(lambda: build_kernels(plans, optimise=level))
    backward = cache(lambda: build_backwards([request.compilation("cpu").backward for request in part], optimise=level))
    of_held = [request.compilation("cpu").cached for request in held]
    cached = build_cached(of_held, optimise=level, kv_dtype=settings.kv_dtype)
    plain = [request for request in held if not request.pattern.inputs]
    paged = build_paged([request.compilation("cpu").cached for request in plain], optimise=level)
    masses = build_masses([request.compilation("cpu").backward for request in part], optimise=level)
    for n, request in enumerate(part):
        of_cache = partial(cached.__getitem__, held.index(request)) if request in held else None
        of_mass = partial(masses.__getitem__, n)
        of_pages = partial(paged.__getitem__, plain.index(request)) if request in plain else None
        yield plans[n], partial(_nth, forward, n), partial(_nth, backward, n), of_cache, of_mass, of_pages


def _nth(made: Callable[[], Sequence[Any]], n: int) -> Any:
    return made()[n]


def _triton(part: Sequence[Request], settings: Settings) -> Iterator[Makers]:
    from sparsec.backends.triton.cached import TritonCached
    from sparsec.backends.triton.kernel import TritonKernel  # imported where it is used, for it is slow to import

    for request in part:
        of = request.compilation("interpreter")
        plan = of.forward
        kernel = TritonKernel.of(plan, plan_backward=lambda of=of: of.backward)  # type: ignore[misc]
        of_cache = (lambda of=of: TritonCached.of(*of.cached)) if has_cache(request) else None  # type: ignore[misc]
        yield plan, lambda kernel=kernel: kernel, lambda kernel=kernel: kernel, of_cache, None, None  # type: ignore[misc]

"""Names of baselines and one case's tensors -> the calls of those that run, and why the others do not.

Invariant: every call is on the same tensors, and has run once where only running tells whether it can.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from sparsec.bench.baseline_names import DENSE
from sparsec.bench.baselines import BaselineAbsent, baselines_on, dense, eager, flex_with_gradients, over_dense_cache
from sparsec.integrations.flex import FlexUnavailable, compile_flex
from sparsec.sema.model import ResolvedPattern

_FLEX_BLOCKS = {"flex": 128, "flex64": 64}


class Passes(Enum):
    """What is timed: the forward pass, forward and backward, or the last queries over a cache of all keys."""

    FORWARD = "forward"
    GRADIENTS = "gradients"
    CACHED = "cached"


@dataclass(frozen=True, slots=True)
class BaselineCalls:
    """The forward call of each baseline that runs, and the others' reasons; seconds that FlexAttention compiled for."""

    calls: dict[str, Callable[[], Tensor]]
    absent: dict[str, str]
    flex_compile_seconds: float | None


def baseline_calls(
    pattern: ResolvedPattern,
    tensors: tuple[Tensor, Tensor, Tensor],
    against: Collection[str],
    *,
    passes: Passes,
    causal: bool,
    report: Callable[[str], None],
) -> BaselineCalls:
    """`tensors`: q, k and v, q being the last queries alone with CACHED. `causal`: whether dense baselines are."""
    calls: dict[str, Callable[[], Tensor]] = {}
    absent: dict[str, str] = {}
    compiling = 0.0
    for name in baselines_on(tensors[0].device, against):
        report(f"compiling {name}" if name in _FLEX_BLOCKS else f"preparing {name}")
        try:
            if name in _FLEX_BLOCKS:
                made = flex_with_gradients if passes is Passes.GRADIENTS else compile_flex
                flex = made(pattern, *tensors, block=_FLEX_BLOCKS[name])
                calls[name] = flex.call
                compiling += flex.compile_seconds
            elif name == "eager":
                calls[name] = eager(pattern, *tensors)
            elif name in DENSE and passes is Passes.CACHED:
                calls[name] = over_dense_cache(*tensors, scale=pattern.score.scale, backend=name)
            elif name in DENSE:
                calls[name] = dense(*tensors, causal=causal, scale=pattern.score.scale, backend=name)
            else:
                raise AssertionError(f"no baseline is called {name}")
        except (FlexUnavailable, BaselineAbsent) as error:
            absent[name] = str(error)
    return BaselineCalls(calls, absent, compiling if any(name in calls for name in _FLEX_BLOCKS) else None)

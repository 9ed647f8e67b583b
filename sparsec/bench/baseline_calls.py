"""Names of baselines and one case's tensors -> the calls of those that run, and why the others do not.

Invariant: every call is on the same tensors, and has run once where only running tells whether it can.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from sparsec.bench.baseline_names import DENSE, FLASH_ATTN
from sparsec.bench.baselines import (
    BaselineAbsent,
    baseline_mask,
    baselines_on,
    dense,
    eager,
    flex_with_gradients,
    masked,
    over_dense_cache,
)
from sparsec.bench.gathering import by_gathering, rows_of
from sparsec.bench.own_baselines import of_flash_attn, of_own
from sparsec.integrations.flex.compiled import compile_flex
from sparsec.integrations.flex.terms import FlexUnavailable
from sparsec.reference.parts import InputTensors
from sparsec.sema.model import ResolvedPattern

_FLEX_BLOCKS = {"flex": 128, "flex64": 64}


class Passes(Enum):
    """What is timed: the forward pass, forward and backward, or the last queries over a cache of all keys."""

    FORWARD = "forward"
    GRADIENTS = "gradients"
    CACHED = "cached"


@dataclass(frozen=True, slots=True)
class BaselineCalls:
    """The forward call of each baseline that runs, and the others' reasons; seconds that FlexAttention compiled for.

    `flex_mask_seconds`: of making its block mask once more, as every call with inputs of its own has to.
    """

    calls: dict[str, Callable[[], Tensor]]
    absent: dict[str, str]
    flex_compile_seconds: float | None
    flex_mask_seconds: float | None = None


def baseline_calls(
    pattern: ResolvedPattern,
    tensors: tuple[Tensor, Tensor, Tensor],
    against: Collection[str],
    *,
    passes: Passes,
    causal: bool,
    report: Callable[[str], None],
    given: Mapping[str, InputTensors] | None = None,
) -> BaselineCalls:
    """`tensors`: q, k and v, q being the last queries alone with CACHED. `causal`: whether dense baselines are."""
    calls: dict[str, Callable[[], Tensor]] = {}
    absent: dict[str, str] = {}
    compiling, mask_seconds = 0.0, None
    q, k = tensors[:2]
    inputs, start = given or {}, k.shape[2] - q.shape[2]
    live: Tensor | None = None
    for name in baselines_on(tensors[0].device, against):
        report(f"compiling {name}" if name in _FLEX_BLOCKS else f"preparing {name}")
        try:
            if name in _FLEX_BLOCKS:
                made = flex_with_gradients if passes is Passes.GRADIENTS else compile_flex
                flex = made(pattern, *tensors, block=_FLEX_BLOCKS[name], inputs=given)
                calls[name] = flex.call
                compiling += flex.compile_seconds
                if inputs:
                    mask_seconds = (mask_seconds or 0.0) + _median(flex.build)
            elif name in ("masked", "gather"):
                live = baseline_mask(pattern, inputs, q.shape[2], k.shape[2], start) if live is None else live
                scale = pattern.score.scale
                if name == "masked":
                    calls[name] = masked(live, *tensors, scale=scale)
                else:
                    calls[name] = by_gathering(live, *tensors, rows=min(rows_of(pattern), q.shape[2]), scale=scale)
            elif ":" in name:
                calls[name] = of_own(name, *tensors)
            elif name == FLASH_ATTN:
                calls[name] = of_flash_attn(*tensors, causal=causal, scale=pattern.score.scale)
            elif name == "eager":
                if inputs:
                    raise BaselineAbsent("masked stands for it where a pattern has inputs")
                calls[name] = eager(pattern, *tensors)
            elif name == "window":
                raise BaselineAbsent("it is for a cache alone")
            elif name in DENSE and passes is Passes.CACHED:
                calls[name] = over_dense_cache(*tensors, scale=pattern.score.scale, backend=name)
            elif name in DENSE:
                calls[name] = dense(*tensors, causal=causal, scale=pattern.score.scale, backend=name)
            else:
                raise AssertionError(f"no baseline is called {name}")
        except (FlexUnavailable, BaselineAbsent) as error:
            absent[name] = str(error)
    compiled = compiling if any(name in calls for name in _FLEX_BLOCKS) else None
    return BaselineCalls(calls, absent, compiled, mask_seconds)


def _median(call: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)

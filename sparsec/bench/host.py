"""A compiled pattern's calls on a few tokens, their launches left out -> the host's time for each, beside SDPA's.

Invariant: every time is the median of single calls, and all calls take turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sparsec.diagnostics.model import SparsecError
from sparsec.diagnostics.tables import table
from sparsec.plan.target import DECODE_ROWS

if TYPE_CHECKING:
    from sparsec.bench.baselines import BenchCase
    from sparsec.program import Pattern
    from sparsec.runtime.module import SparseAttention
    from sparsec.sema.model import ResolvedPattern

TOKENS = 16
"""Of a call without a cache."""
APPENDED = DECODE_ROWS + 1
"""Tokens of a call over a cache that is no step of decoding."""
_IN_A_ROW = 128
"""Calls of one kind in a round: a caller's loop is warm too."""

Call = Callable[[], object]
Timed = tuple[Call, Call]
"""What comes before some calls in a row and is not timed, and the call."""


@dataclass(frozen=True, slots=True)
class HostFigures:
    """Seconds of a `call` by what was timed, and of each the kernels that one call launches, where known."""

    call: str
    seconds: dict[str, float]
    launches: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON: microseconds."""
        return {
            "call": self.call,
            "us": {name: seconds * 1e6 for name, seconds in self.seconds.items()},
            "launches": self.launches,
        }


def measure_host(
    pattern: Pattern,
    found: ResolvedPattern,
    head_dim: int,
    dtype: str,
    batch: int,
    *,
    repeats: int,
    report: Callable[[str], None],
) -> list[HostFigures]:
    """Times the calls to Triton's kernels of a pattern, settled as `found`, in so many rounds."""
    from sparsec.bench.baselines import make_case
    from sparsec.bench.stub import stub_launches

    case = make_case(found, batch, TOKENS, head_dim, dtype, "cpu")
    with stub_launches() as launched:
        report(f"compiling {pattern.name}")
        attn = case.compiled(pattern, "triton")
        return _measured(attn, case, launched, repeats, report)


def _measured(
    attn: SparseAttention, case: BenchCase, launched: list[str], repeats: int, report: Callable[[str], None]
) -> list[HostFigures]:
    import torch

    stages = {name: {"sparsec": each} for name, each in _stages(attn, case).items()}
    for name, call in _sdpa(case).items():
        if name in stages:
            stages[name]["sdpa"] = (_nothing, call)
    of_one: dict[str, tuple[str, ...]] = {}
    for name, each in stages.items():
        report(f"calling {name}")
        for before, call in each.values():
            before()
            call()
            launched.clear()
            call()
            of_one.setdefault(name, tuple(launched))
    report(f"timing {', '.join(stages)}, {repeats} rounds of {_IN_A_ROW} calls")
    flat = {(name, of): each for name, timed in stages.items() for of, each in timed.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what SDPA computes is too little to share
    try:
        seconds = dict(zip(flat, median_of_each(list(flat.values()), repeats), strict=True))
    finally:
        torch.set_num_threads(threads)
    return [HostFigures(name, {of: seconds[name, of] for of in stages[name]}, of_one[name]) for name in stages]


def median_of_each(timed: Sequence[Timed], rounds: int) -> list[float]:
    """The median seconds of each of the calls."""
    taken: list[list[float]] = [[] for _ in timed]
    clock = time.perf_counter
    for _ in range(rounds):
        for times, (before, call) in zip(taken, timed, strict=True):
            before()
            call()
            for _ in range(_IN_A_ROW):
                start = clock()
                call()
                times.append(clock() - start)
    return [statistics.median(times) for times in taken]


def _stages(attn: SparseAttention, case: BenchCase) -> dict[str, Timed]:
    """A causal pattern's calls with a cache too."""
    import torch

    attend = case.call(attn)
    q, k, v = case.inputs()
    leaves = tuple(each.clone().requires_grad_() for each in (q, k, v))
    gradient = torch.ones_like(q)
    stages: dict[str, Timed] = {
        "forward": (_nothing, lambda: attend(q, k, v)),
        "forward + backward": (_nothing, lambda: torch.autograd.grad(attend(*leaves), leaves, gradient)),
    }
    if case.given or attn.documents:
        return stages
    with suppress(SparsecError):  # a pattern that no cache serves
        cache = attn.new_cache(case.batch, (_IN_A_ROW + 2) * APPENDED, device=case.device)
        for name, new in (("decode", 1), ("append", APPENDED)):
            few = tuple(t.repeat(1, 1, 2, 1)[:, :, :new].contiguous() for t in (q, k, v))
            stages[name] = cache.reset, partial(attn, *few, cache=cache)
    return stages


def _sdpa(case: BenchCase) -> dict[str, Call]:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    q, k, v = case.inputs()
    grouped = q.shape[1] != k.shape[1]
    leaves = tuple(each.clone().requires_grad_() for each in (q, k, v))
    gradient = torch.ones_like(q)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return sdpa(q, k, v, is_causal=q.shape[2] > 1, enable_gqa=grouped)

    last = q[:, :, -1:]
    return {
        "forward": lambda: attend(q, k, v),
        "forward + backward": lambda: torch.autograd.grad(attend(*leaves), leaves, gradient),
        "decode": lambda: attend(last, k, v),
    }


def _nothing() -> None:
    """Before calls that leave nothing behind."""


def host_table(measured: Sequence[HostFigures]) -> str:
    rows = []
    for each in measured:
        sdpa = each.seconds.get("sdpa")
        cells = f"{each.seconds['sparsec'] * 1e6:.1f}", "-" if sdpa is None else f"{sdpa * 1e6:.1f}"
        rows.append((each.call, *cells, ", ".join(each.launches)))
    lines = [
        table(("call", "us", "sdpa us", "launches"), rows),
        "",
        f"of a call of {TOKENS} tokens; decode: of 1, append: of {APPENDED}, over the KV cache",
        "us: Triton's launches do nothing, and what the driver does is not in it",
        "sdpa: all of a call on the CPU, by one thread",
    ]
    return "\n".join(lines)

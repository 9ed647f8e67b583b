"""Times the rows of `cases.py` on this card beside PyTorch's kernels and FlexAttention, into gpu_bench.json.

    python tests/gpu/bench.py --out FOLDER

All of a row's times come from the same rounds: replayed CUDA graphs, after the caches are flushed. If gpu_sweep.json
lies in the folder, sparsec is timed with its picks too, under the name `picked`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import torch
from cases import DENSE, FLEX, Row, rows
from gpu import REHEARSAL, Card, card, free, state_under, synchronize
from picks import picks_of
from results import Results, read
from step import arguments
from torch import Tensor

from sparsec.analysis.coverage import pattern_coverage
from sparsec.bench.baseline_calls import Passes, baseline_calls
from sparsec.bench.baselines import BenchCase, compare, copying, passes
from sparsec.bench.clock import CALLS_BESIDE_ROUNDS, Call, Recorded, Timed, recorder, timed
from sparsec.diagnostics.model import in_one_line
from sparsec.pipeline import Lowered
from sparsec.plan import target as targets
from sparsec.plan.picks import Pick
from sparsec.reference import mask
from sparsec.runtime import kernel as kernels
from sparsec.sema.model import ResolvedPattern

ROW_SECONDS, FEWEST, MOST = (0.1, 1, 1) if REHEARSAL else (3.0, 3, 15)
"""Of a row's rounds in all, and how many rounds there are at least and at most."""
EAGER_CALLS = 2 if REHEARSAL else 100
Leaves = tuple[Tensor, Tensor, Tensor]


def main() -> int:
    given = arguments(__doc__)
    found, copy_rate = card(), (read(given.out / "environment.json") or {}).get("copy_bytes_per_second")
    swept = read(given.out / "gpu_sweep.json")
    picks = picks_of(swept) if swept and swept.get("rows") else {}
    about = {"card": found.name, "target": found.target, "torch": torch.__version__}
    results = Results(given.out / "gpu_bench.json", {**about, "picks": {str(k): str(v) for k, v in picks.items()}})
    for row in rows():
        named = {name: getattr(row, name) for name in ("pattern", "length", "head_dim", "batch", "decode")}
        if not given.left():
            results.add({**named, "left_out": "no time"})
            continue
        started = time.monotonic()
        try:
            measured = decode(row, found, copy_rate) if row.decode else train(row, found, picks)
        except Exception as error:
            measured = {"error": in_one_line(error)}
        results.add({**named, **measured, "seconds": round(time.monotonic() - started, 1)})
        free()
    return 0


def train(row: Row, found: Card, picks: Mapping[Any, Pick]) -> dict[str, Any]:
    """Forward, and forward and backward."""
    case = row.case(found.device)
    leaves: Leaves = tuple(t.requires_grad_() for t in case.inputs())
    attn = row.compiled(found.device)
    forwards: dict[str, Callable[[], Tensor]] = {"sparsec": lambda: attn(*leaves)}
    absent: dict[str, str] = {}
    registry: dict[str, Any] = {}
    if picks:
        with picked(picks, registry):
            other = row.compiled(found.device)
        forwards["picked"] = lambda: other(*leaves)
    dense = [name for name in row.against if name in DENSE]
    baselines = baseline_calls(case.pattern, leaves, dense, passes=Passes.GRADIENTS, causal=True, report=lambda _: None)
    forwards, absent = forwards | baselines.calls, absent | baselines.absent
    without_gradient = []
    for name in (name for name in row.against if name in FLEX):
        call, gradients, why = flex_call(case, leaves, name)
        if call is not None:
            forwards[name] = call
        if call is None or not gradients:
            absent[name if call is None else f"{name}, backward"] = why
            without_gradient.append(name)
    calls: dict[str, Call] = {}
    for name, forward in forwards.items():
        calls[f"{name} forward"] = forward
        if name not in without_gradient:
            calls[f"{name} both"] = passes(forward, leaves)[0]
    calls |= {name: inside(picks, registry, call) for name, call in calls.items() if name.startswith("picked ")}
    recorded, failed = recordings({name: [call] for name, call in calls.items()}, found)
    times, rounds = in_rounds(recorded, found)
    live = case.batch * live_pairs(case.pattern, case.length)
    pairs = case.batch * case.pattern.heads * case.length * (case.length + 1) / 2
    out: dict[str, Any] = {
        "rounds": rounds,
        "ideal_speed_up": pairs / live,
        "absent": absent | failed,
        "state": state_under(recorded["sparsec forward"].run, times["sparsec forward"].seconds),
        "host_us": host_microseconds(lambda: attn(*(t[:1, :, :64].detach() for t in leaves))),
    }
    # Two products of matrices forward, five backward, 2 operations a pair and element each.
    out |= figures("forward", times, 4 * case.head_dim * live) | figures("both", times, 14 * case.head_dim * live)
    if row.length == min(each.length for each in rows()):
        checked = compare(case.pattern, *leaves, attn(*leaves))
        out |= {
            "right": checked.passed,
            "largest_error": checked.ours.largest,
            "allowed_error": checked.allowed.largest,
        }
    return out


@lru_cache
def live_pairs(pattern: ResolvedPattern, length: int) -> float:
    """Of all heads."""
    return sum(len(head.heads) * head.live_pairs for head in pattern_coverage(Lowered(pattern), length))


def figures(what: str, times: Mapping[str, Timed], operations: float) -> dict[str, Any]:
    """Milliseconds of each, speed-ups, useful TFLOP/s of sparsec, and whose times the host's share is in."""
    own = {name.removesuffix(f" {what}"): each for name, each in times.items() if name.endswith(f" {what}")}
    if "sparsec" not in own:
        return {}
    seconds = own["sparsec"].seconds
    return {
        what: {
            "ms": {name: each.seconds * 1e3 for name, each in own.items()},
            "speed_up": {name: each.seconds / seconds for name, each in own.items() if name != "sparsec"},
            "useful_tflops": operations / seconds / 1e12,
            "host_time_in": [name for name, each in own.items() if each.host],
        }
    }


def flex_call(case: BenchCase, leaves: Leaves, name: str) -> tuple[Callable[[], Tensor] | None, bool, str]:
    """FlexAttention's call, whether it has gradients, and why not. One compile serves both where it can."""

    def asked(tensors: Leaves, what: Passes) -> tuple[Callable[[], Tensor] | None, str]:
        # One function compiles for every row's shapes, and for each of them alone: of sizes it does not know,
        # FlexAttention's backward pass of blocks of 64 does not compile.
        torch._dynamo.config.recompile_limit, torch._dynamo.config.automatic_dynamic_shapes = 512, False
        baselines = baseline_calls(case.pattern, tensors, (name,), passes=what, causal=True, report=lambda _: None)
        return baselines.calls.get(name), baselines.absent.get(name, "")

    call, why = asked(leaves, Passes.GRADIENTS)
    if call is not None:
        return call, True, ""
    q, k, v = (t.detach() for t in leaves)
    call, worse = asked((q, k, v), Passes.FORWARD)
    return call, False, why if call is not None else worse


def decode(row: Row, found: Card, copy_rate: float | None) -> dict[str, Any]:
    """One token over caches that hold all that comes before: several, lest the keys lie in a cache of the chip."""
    case = row.case(found.device)
    attn = row.compiled(found.device)
    heads, kv_heads = row.heads
    new = [normal((row.batch, n, 1, row.head_dim), found, case.dtype) for n in (heads, kv_heads, kv_heads)]
    seen = mask(case.pattern, 1, row.length)[:, 0].view(kv_heads, -1, row.length).any(dim=1)
    live_bytes = row.batch * int(seen.sum()) * 2 * row.head_dim * case.dtype.itemsize
    turns = max(1, min(8, -(-3 * found.l2_bytes // live_bytes)))
    room = MOST + 2 + CALLS_BESIDE_ROUNDS + EAGER_CALLS + 8
    caches = [attn.new_cache(row.batch, row.length + room, device=found.device) for _ in range(turns)]
    for cache in caches:
        cache.keys.normal_()
        cache.values.normal_()

    def refill() -> None:
        for cache in caches:
            cache.lengths_tensor.fill_(row.length - 1)
            cache.refresh()

    refill()
    k, v = (normal((row.batch, kv_heads, row.length, row.head_dim), found, case.dtype) for _ in range(2))
    baselines = baseline_calls(
        case.pattern, (new[0], k, v), row.against, passes=Passes.CACHED, causal=True, report=lambda _: None
    )
    calls: dict[str, Sequence[Call]] = {name: [call] for name, call in baselines.calls.items()}
    calls |= {"sparsec": [lambda cache=cache: attn(*new, cache=cache) for cache in caches], "copy": [copying(k)]}
    with torch.no_grad():
        recorded, failed = recordings(calls, found)
        times, rounds = in_rounds(recorded, found)
        refill()
        state = state_under(recorded["sparsec"].run, times["sparsec"].seconds * turns)
        refill()
        eager = host_microseconds(lambda: attn(*new, cache=caches[0])) / 1e6
    seconds = times["sparsec"].seconds
    rate = max(2 * k.nbytes / times["copy"].seconds, copy_rate or 0.0)
    return {
        "rounds": rounds,
        "ms": {name: each.seconds * 1e3 for name, each in times.items()},
        "eager_ms": eager * 1e3,
        "speed_up": {name: times[name].seconds / seconds for name in baselines.calls if name in times},
        "absent": baselines.absent | failed,
        "host_time_in": [name for name, each in times.items() if each.host],
        "live_bytes": live_bytes,
        "cache_bytes": caches[0].nbytes,
        "dense_bytes": 2 * k.nbytes,
        "copy_bytes_per_second": rate,
        "share_of_copy_bandwidth": live_bytes / seconds / rate,
        "caches": turns,
        "state": state,
    }


def normal(shape: tuple[int, ...], found: Card, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, device=found.device, dtype=dtype).normal_()


def recordings(calls: Mapping[str, Sequence[Call]], found: Card) -> tuple[dict[str, Recorded], dict[str, str]]:
    """Every call as a graph of one stream; those that fail, with their error, apart. sparsec's may not fail."""
    made, failed = {}, {}
    record = recorder(found.device)
    for name, turns in calls.items():
        try:
            made[name] = record(turns)
        except Exception as error:
            if name.startswith("sparsec"):
                raise
            failed[name] = in_one_line(error)
    return made, failed


def in_rounds(recorded: Mapping[str, Recorded], found: Card) -> tuple[dict[str, Timed], int]:
    """The times, of as many rounds as a row's seconds hold."""
    once = timed(recorded, repeats=1, device=found.device)
    total = sum(once[name].seconds * each.turns for name, each in recorded.items())
    rounds = max(FEWEST, min(MOST, int(ROW_SECONDS / max(total, 1e-6)) - 2))
    return timed(recorded, repeats=rounds, device=found.device), rounds


def host_microseconds(call: Call) -> float:
    """Of one call in a row of many, the wait for the last one shared."""
    call()
    synchronize()
    started = time.perf_counter()
    for _ in range(EAGER_CALLS):
        call()
    synchronize()
    return (time.perf_counter() - started) / EAGER_CALLS * 1e6


@contextmanager
def picked(picks: Mapping[Any, Pick], registry: dict[str, Any]) -> Iterator[None]:
    """While it lasts, `plan.target` has the picks, and kernels are registered and found in `registry`."""
    with patch.object(targets, "PICKS", picks), patch.object(kernels, "_KERNELS", registry):
        yield


def inside(picks: Mapping[Any, Pick], registry: dict[str, Any], call: Call) -> Call:
    """The call as it is made with the picks: tiles and launches are chosen when a kernel is first called."""

    def run() -> object:
        with picked(picks, registry):
            return call()

    return run


if __name__ == "__main__":
    sys.exit(main())

"""A compiled pattern and its baselines, forward and backward, timed on the same tensors in turn -> seconds of each.

Invariant: as of `measure`; and "backward" is a second pass over a kept graph, "both" a fresh forward and its backward.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsec.bench.baseline_names import baseline_label
from sparsec.bench.forward import coverage_of, launched_lines
from sparsec.diagnostics.tables import table

if TYPE_CHECKING:
    from torch import Tensor

    from sparsec.bench.baselines import BenchCase
    from sparsec.runtime.module import SparseAttention


@dataclass(frozen=True, slots=True)
class GradientFigures:
    """Seconds of sparsec and of each baseline that ran; `absent` says why another did not.

    `launched`: as of Measurement, by call. `ideal` is dense pairs over live pairs, dense causal if the pattern is.
    """

    length: int
    both: dict[str, float]
    backward: dict[str, float]
    absent: dict[str, str]
    launched: tuple[str, ...]
    ideal: float

    @property
    def calls(self) -> dict[str, dict[str, float]]:
        """As of `bench.sums.TimedCalls`."""
        return {"forward + backward": self.both, "backward": self.backward}

    def as_dict(self) -> dict[str, object]:
        """For JSON: milliseconds and ratios."""
        return {
            "seq_len": self.length,
            "both_ms": {name: seconds * 1e3 for name, seconds in self.both.items()},
            "backward_ms": {name: seconds * 1e3 for name, seconds in self.backward.items()},
            "both_speed_up": {name: seconds / self.both["sparsec"] for name, seconds in self.both.items()},
            "backward_speed_up": {name: seconds / self.backward["sparsec"] for name, seconds in self.backward.items()},
            "absent": self.absent,
            "host_time_in": self.launched,
            "ideal_speed_up": self.ideal,
        }


def measure_gradients(
    attn: SparseAttention, case: BenchCase, against: Collection[str], *, repeats: int, report: Callable[[str], None]
) -> GradientFigures:
    """Times the forward and backward passes of `attn` and of the baselines in `against`."""
    from sparsec.bench.baseline_calls import Passes, baseline_calls
    from sparsec.bench.baselines import passes
    from sparsec.bench.clock import median_seconds

    report("counting live pairs")
    found = coverage_of(case)
    causal = all(head.causal for head in found)
    live = sum(len(head.heads) * head.live_pairs for head in found)
    pairs = case.length * (case.length + 1) / 2 if causal else case.length**2
    q, k, v = leaves = tuple(each.requires_grad_() for each in case.inputs())
    attend = case.call(attn)
    forwards: dict[str, Callable[[], Tensor]] = {"sparsec": lambda: attend(q, k, v)}
    baselines = baseline_calls(
        case.pattern, (q, k, v), against, passes=Passes.GRADIENTS, causal=causal, report=report, given=case.given
    )
    forwards |= baselines.calls
    calls: dict[str, Callable[[], object]] = {}
    for name, forward in forwards.items():
        calls[f"{name} both"], calls[f"{name} backward"] = passes(forward, leaves)
    report(f"timing {', '.join(forwards)} at {case.length} tokens, {repeats} rounds")
    times = median_seconds(calls, repeats=repeats, device=case.device)
    return GradientFigures(
        length=case.length,
        both={name: times[f"{name} both"].seconds for name in forwards},
        backward={name: times[f"{name} backward"].seconds for name in forwards},
        absent=baselines.absent,
        launched=tuple(name for name, taken in times.items() if taken.host),
        ideal=case.pattern.heads * pairs / max(live, 1),
    )


def gradients_table(measured: list[GradientFigures], baselines: tuple[str, ...]) -> str:
    """Forward and backward together, and the backward pass alone."""
    columns = [column for name in baselines for column in (f"{name} ms", f"vs {name}")]
    head = ("tokens", "passes", "ms", *columns, "ideal")
    rows = []
    for each in measured:
        for passes, times in each.calls.items():
            cells = [f"{times['sparsec'] * 1e3:.3g}"]
            for name in baselines:
                ran = name in times
                cells += [f"{times[name] * 1e3:.3g}", f"{times[name] / times['sparsec']:.2f}x"] if ran else ["-", "-"]
            rows.append((str(each.length), passes, *cells, f"{each.ideal:.2f}x"))
    reasons = launched_lines(measured)
    reasons += dict.fromkeys(
        f"{baseline_label(name)} did not run: {why}" for each in measured for name, why in each.absent.items()
    )
    return "\n".join([table(head, rows), *([""] if reasons else []), *reasons])

"""A compiled pattern and its baselines, timed on the same tensors in turn -> figures, and the names of their columns.

Invariant: every time of a Measurement comes from the same rounds of one process, with the same threads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsec.analysis.coverage import HeadCoverage, pattern_coverage
from sparsec.bench.baseline_names import DENSE, baseline_label
from sparsec.diagnostics.tables import duration, percent, table
from sparsec.pipeline import Lowered

if TYPE_CHECKING:
    from sparsec.bench.baselines import BenchCase, Comparison
    from sparsec.bench.cached import CachedFigures
    from sparsec.bench.gradients import GradientFigures
    from sparsec.bench.kept import KeptFigures
    from sparsec.bench.paged import PagedFigures
    from sparsec.runtime.module import SparseAttention


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds of sparsec and of each baseline that ran; `absent` says why another did not.

    `launched`: whose times have the host's launches in them, since a GPU's graph could not hold the call.
    `dense_pairs` and `live_pairs` count over all heads and the batch; dense is causal if the pattern is.
    """

    length: int
    seconds: float
    baselines: dict[str, float]
    absent: dict[str, str]
    launched: tuple[str, ...]
    flex_compile_seconds: float | None
    flex_mask_seconds: float | None
    live_pairs: float
    dense_pairs: float
    causal: bool
    exact: bool
    gflops: float
    sgemm_gflops: float
    comparison: Comparison | None

    @property
    def calls(self) -> dict[str, dict[str, float]]:
        """As of `bench.sums.TimedCalls`."""
        return {"forward": {"sparsec": self.seconds, **self.baselines}}

    @property
    def ideal(self) -> float:
        """The speed-up over dense if time followed the live pairs."""
        return self.dense_pairs / max(self.live_pairs, 1)

    @property
    def achieved(self) -> float | None:
        """The speed-up over the fastest dense baseline as a share of `ideal`."""
        dense = [self.baselines[name] for name in DENSE if name in self.baselines]
        return min(dense) / self.seconds / self.ideal if dense else None

    def as_dict(self) -> dict[str, object]:
        """For JSON: milliseconds, ratios and GFLOP/s."""
        return {
            "seq_len": self.length,
            "ms": self.seconds * 1e3,
            "peers_ms": {name: seconds * 1e3 for name, seconds in self.baselines.items()},
            "speed_up": {name: seconds / self.seconds for name, seconds in self.baselines.items()},
            "absent": self.absent,
            "host_time_in": self.launched,
            "flex_compile_s": self.flex_compile_seconds,
            "flex_block_mask_s": self.flex_mask_seconds,
            "live_fraction": self.live_pairs / self.dense_pairs,
            "live_exact": self.exact,
            "causal": self.causal,
            "ideal_speed_up": self.ideal,
            "achieved_over_ideal": self.achieved,
            "useful_gflops": self.gflops,
            "sgemm_gflops": self.sgemm_gflops,
            "share_of_sgemm": self.gflops / self.sgemm_gflops,
        }


def launched_lines(
    measured: Sequence[Measurement | GradientFigures | CachedFigures | KeptFigures | PagedFigures],
) -> list[str]:
    """In words, whose times have the host's launches in them."""
    names = dict.fromkeys(name for each in measured for name in each.launched)
    return [f"the host's time to launch is in that of: {', '.join(names)}"] if names else []


def coverage_of(case: BenchCase, cells: tuple[int, int] = (1, 1)) -> tuple[HeadCoverage, ...]:
    """What is live, with the inputs that the case has."""
    from sparsec.pictures.given import given_coverage

    if case.given:
        return given_coverage(case.pattern, case.given, case.length, cells)
    return pattern_coverage(Lowered(case.pattern), case.length, cells)


def measure(
    attn: SparseAttention,
    case: BenchCase,
    against: Collection[str],
    *,
    repeats: int,
    report: Callable[[str], None],
    check: bool = False,
    found: tuple[HeadCoverage, ...] | None = None,
) -> Measurement:
    """Times `attn` and the baselines in `against`; with `check`, compares its output with float64 first."""
    from sparsec.bench.baseline_calls import Passes, baseline_calls
    from sparsec.bench.baselines import compare, matrix_product
    from sparsec.bench.clock import median_seconds

    pattern = case.pattern
    report("counting live pairs")
    found = coverage_of(case) if found is None else found
    causal = all(head.causal for head in found)
    (q, k, v), attend = case.inputs(), case.call(attn)
    comparison = None
    if check:
        report("comparing with float64")
        comparison = compare(pattern, q, k, v, attend(q, k, v), case.given)
    calls: dict[str, Callable[[], object]] = {"sparsec": lambda: attend(q, k, v)}
    baselines = baseline_calls(
        pattern, (q, k, v), against, passes=Passes.FORWARD, causal=causal, report=report, given=case.given
    )
    calls |= baselines.calls
    calls["sgemm"], product_flops = matrix_product(case.dtype, case.device)
    report(f"timing {', '.join(calls)} at {case.length} tokens, {repeats} rounds")
    times = median_seconds(calls, repeats=repeats, device=case.device)
    live = case.batch * sum(len(head.heads) * head.live_pairs for head in found)
    pairs = case.length * (case.length + 1) / 2 if causal else case.length**2
    return Measurement(
        length=case.length,
        seconds=times["sparsec"].seconds,
        baselines={name: times[name].seconds for name in baselines.calls},
        absent=baselines.absent,
        launched=tuple(name for name, taken in times.items() if taken.host),
        flex_compile_seconds=baselines.flex_compile_seconds,
        flex_mask_seconds=baselines.flex_mask_seconds,
        live_pairs=live,
        dense_pairs=case.batch * pattern.heads * pairs,
        causal=causal,
        exact=all(head.exact for head in found),
        gflops=4 * case.head_dim * live / times["sparsec"].seconds / 1e9,
        sgemm_gflops=product_flops / times["sgemm"].seconds / 1e9,
        comparison=comparison,
    )


def forward_table(measured: Sequence[Measurement], baselines: tuple[str, ...]) -> str:
    """Times, and how much of the possible they reach."""
    columns = [column for name in baselines for column in (f"{name} ms", f"vs {name}")]
    head = ("tokens", "live", "ms", *columns, "ideal", "of ideal", "GFLOP/s", "matmul GFLOP/s", "of matmul")
    rows = []
    for each in measured:
        against = []
        for name in baselines:
            seconds = each.baselines.get(name)
            against += ["-", "-"] if seconds is None else [_ms(seconds), f"{seconds / each.seconds:.2f}x"]
        rows.append(
            (
                str(each.length),
                percent(each.live_pairs / each.dense_pairs),
                _ms(each.seconds),
                *against,
                f"{each.ideal:.2f}x",
                "-" if each.achieved is None else f"{each.achieved:.2f}",
                f"{each.gflops:.0f}",
                f"{each.sgemm_gflops:.0f}",
                f"{each.gflops / each.sgemm_gflops:.2f}",
            )
        )
    of = "the causal pairs" if all(each.causal for each in measured) else "the pairs that a dense kernel computes"
    dense = ", ".join(name for name in baselines if name in DENSE)
    lines = [table(head, rows), "", f"live: share of {of}"]
    if dense:
        lines[-1] += f"; {dense}: dense" + (" causal" if measured[0].causal else "")
    lines += launched_lines(measured)
    compiled = [each.flex_compile_seconds for each in measured if each.flex_compile_seconds is not None]
    if compiled:
        lines.append(f"compiling FlexAttention, not counted: {', '.join(map(duration, compiled))}")
    masks = [each.flex_mask_seconds for each in measured if each.flex_mask_seconds is not None]
    if masks:
        lines.append(f"making FlexAttention's BlockMask, at each call, not counted: {', '.join(map(duration, masks))}")
    lines += dict.fromkeys(
        f"{baseline_label(name)} did not run: {why}" for each in measured for name, why in each.absent.items()
    )
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}"

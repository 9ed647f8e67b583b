"""The candidates of a pattern's kernels, timed on this card -> what is best of each kind, and a table of all.

Invariant: only a candidate whose result is that of the tiles that are taken untuned is chosen, and none that is not
faster than these by more than noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsec.diagnostics.model import CallError
from sparsec.diagnostics.tables import duration, table
from sparsec.plan.candidates import candidates_of
from sparsec.plan.picks import Kind, Pick, Tiles

if TYPE_CHECKING:
    from torch import Tensor

    from sparsec.bench.baselines import BenchCase
    from sparsec.runtime.module import SparseAttention

GAIN = 0.97
"""A candidate is chosen if it takes at most this share of the time of what is taken untuned."""
ULPS = 4.0
"""By how many units in the last place of the largest number a result may differ."""

Seconds = Callable[[Kind, Pick | None], Sequence[float]]
"""Times a kind of kernel at every length, with tiles or (None) untuned. Raises what says why it does not run."""


@dataclass(frozen=True, slots=True)
class Tried:
    """`seconds` by length, none where it did not run or gave another result, which `error` then says."""

    kind: Kind
    pick: Pick
    untuned: bool
    seconds: tuple[float, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Tuning:
    lengths: tuple[int, ...]
    trials: tuple[Tried, ...]

    @property
    def tiles(self) -> Tiles:
        """The fastest of each kind, where one is faster than what is taken untuned."""
        best = {kind: self._best(kind) for kind in Kind}
        return tuple((kind, trial.pick) for kind, trial in best.items() if trial is not None and not trial.untuned)

    def _best(self, kind: Kind) -> Tried | None:
        ran = [trial for trial in self.trials if trial.kind is kind and trial.seconds]
        if not ran:
            return None
        fastest = min(ran, key=self.share)
        return fastest if fastest.untuned or self.share(fastest) <= GAIN else None

    def share(self, trial: Tried) -> float:
        """Its time as a share of the untuned one's: the geometric mean over the lengths."""
        (untuned,) = (each for each in self.trials if each.kind is trial.kind and each.untuned)
        ratios = (a / b for a, b in zip(trial.seconds, untuned.seconds, strict=True))
        return math.exp(sum(map(math.log, ratios)) / len(trial.seconds))

    def as_dict(self) -> dict[str, object]:
        """For JSON: milliseconds by length."""
        chosen = dict(self.tiles)
        return {
            "trials": [
                {
                    "kind": each.kind.value,
                    "query_tile": each.pick.query_tile,
                    "key_tile": each.pick.key_tile,
                    "warps": each.pick.warps,
                    "stages": each.pick.stages,
                    "maxnreg": each.pick.maxnreg,
                    "untuned": each.untuned,
                    "ms": [seconds * 1e3 for seconds in each.seconds],
                    "chosen": _is_chosen(each, chosen),
                    "error": each.error or None,
                }
                for each in self.trials
            ]
        }

    def table(self) -> str:
        """All trials, then why some have no time."""
        chosen = dict(self.tiles)
        head = (
            "kernels",
            "tiles",
            "warps",
            "stages",
            "registers",
            *(f"{n} tokens" for n in self.lengths),
            "of untuned",
            "",
        )
        rows = []
        for each in self.trials:
            pick, ran = each.pick, bool(each.seconds)
            said = "chosen" if _is_chosen(each, chosen) else "untuned" if each.untuned else ""
            rows.append(
                (
                    each.kind.value,
                    f"{pick.query_tile} x {pick.key_tile}",
                    str(pick.warps),
                    str(pick.stages),
                    "-" if pick.maxnreg is None else str(pick.maxnreg),
                    *(map(duration, each.seconds) if ran else ["-"] * len(self.lengths)),
                    f"{self.share(each):.2f}" if ran else "-",
                    said,
                )
            )
        reasons = [f"{_named(each)} did not run: {each.error}" for each in self.trials if each.error]
        return "\n".join([table(head, rows), *([""] if reasons else []), *reasons])


def _is_chosen(trial: Tried, chosen: Mapping[Kind, Pick]) -> bool:
    return trial.pick == chosen[trial.kind] and not trial.untuned if trial.kind in chosen else trial.untuned


def _named(trial: Tried) -> str:
    return f"{trial.kind.value} {trial.pick.query_tile} x {trial.pick.key_tile}, {trial.pick.warps} warps"


def tune(
    kinds: Sequence[Kind],
    lengths: Sequence[int],
    at: tuple[str, int, str],
    seconds: Seconds,
    report: Callable[[str], None],
) -> Tuning:
    """Times the candidates of each kind. `at`: target, head dimension and dtype. Raises CallError where what is taken
    untuned does not run."""
    trials: list[Tried] = []
    for kind in kinds:
        found = candidates_of(at[0], kind, *at[1:])
        for n, pick in enumerate(found):
            untuned = n == 0
            report(f"{kind.value}: candidate {n + 1} of {len(found)}")
            try:
                taken = tuple(seconds(kind, None if untuned else pick))
            except Exception as error:
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
                if untuned:
                    raise CallError(f"expected kernels that run on this device, got {reason}") from error
                trials.append(Tried(kind, pick, untuned, error=reason))
            else:
                trials.append(Tried(kind, pick, untuned, taken))
    return Tuning(tuple(lengths), tuple(trials))


class Unequal(Exception):
    """A candidate's result is not that of what is taken untuned."""


@dataclass(slots=True)
class Timing:
    """A pattern's calls at every length: a `Seconds`. `compiled` makes its module with tiles, or untuned."""

    compiled: Callable[[Mapping[str, Sequence[int | None]]], SparseAttention]
    cases: Sequence[BenchCase]
    chunk: int
    repeats: int
    expected: dict[tuple[Kind, int], tuple[Tensor, ...]]

    def __call__(self, kind: Kind, pick: Pick | None) -> list[float]:
        from sparsec.bench.clock import median_seconds
        from sparsec.plan.tiles import tiles_data

        attn = self.compiled(tiles_data(() if pick is None else ((kind, pick),)))
        taken = []
        for case in self.cases:
            call = _call(attn, kind, case, self.chunk, self.repeats)
            result = call()
            if pick is None:
                self.expected[kind, case.length] = result
            else:
                check_equal(result, self.expected[kind, case.length])
            taken.append(median_seconds({"": call}, repeats=self.repeats, device=case.device)[""].seconds)
        return taken


def check_equal(result: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Raises Unequal unless the tensors differ by rounding alone."""
    import torch

    for ours, theirs in zip(result, expected, strict=True):
        allowed = ULPS * torch.finfo(ours.dtype).eps * theirs.float().abs().max().item()
        apart = (ours.float() - theirs.float()).abs().max().item()
        if not apart <= allowed:
            raise Unequal(f"its result is {apart:.3g} from that of what is taken untuned, over {allowed:.3g}")


def _call(
    attn: SparseAttention, kind: Kind, case: BenchCase, chunk: int, repeats: int
) -> Callable[[], tuple[Tensor, ...]]:
    import torch

    from sparsec.bench.baselines import passes
    from sparsec.bench.clock import CALLS_BESIDE_ROUNDS
    from sparsec.bench.filled import fill_cache

    q, k, v = case.inputs()
    attend = case.call(attn)
    if kind in (Kind.GRAD_QUERIES, Kind.GRAD_KEYS):
        leaves = tuple(each.requires_grad_() for each in (q, k, v))
        _, backward = passes(lambda: attend(*leaves), leaves)
        return backward  # type: ignore[return-value]  # it gives the gradients
    if kind is Kind.FORWARD:
        return torch.no_grad()(lambda: (attend(q, k, v),))
    new = 1 if kind is Kind.DECODE else min(chunk, case.length)
    few = [t[:, :, case.length - new :].contiguous() for t in (q, k, v)]
    more: dict[str, Any] = {"inputs": case.given} if case.given else {}
    cache = attn.new_cache(case.batch, case.length + new * (repeats + CALLS_BESIDE_ROUNDS + 1), device=case.device)
    torch.manual_seed(0)
    fill_cache(cache, case.length - new)
    return torch.no_grad()(lambda: (attn(*few, cache=cache, **more),))

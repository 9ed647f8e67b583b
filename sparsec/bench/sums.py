"""The times of each kind of a model's layers -> those of all its layers, one after the other.

Invariant: a baseline has a sum only where it ran for every kind of layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sparsec.diagnostics.tables import table


class TimedCalls(Protocol):
    """Figures of one length."""

    @property
    def length(self) -> int: ...

    @property
    def calls(self) -> Mapping[str, Mapping[str, float]]:
        """By what is called, seconds of sparsec and of each baseline that ran."""
        ...


@dataclass(frozen=True, slots=True)
class ModelSum:
    """Seconds of one call of each layer, by sparsec and by the baselines; `partial`: those that ran for some kinds
    alone."""

    length: int
    call: str
    seconds: Mapping[str, float]
    partial: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON: milliseconds and ratios."""
        return {
            "seq_len": self.length,
            "call": self.call,
            "ms": {name: seconds * 1e3 for name, seconds in self.seconds.items()},
            "speed_up": {name: seconds / self.seconds["sparsec"] for name, seconds in self.seconds.items()},
            "of_some_layers": self.partial,
        }


def model_sums(kinds: Sequence[tuple[int, Sequence[TimedCalls]]]) -> tuple[ModelSum, ...]:
    """Over kinds of layers: how many layers there are, and their figures, of the same lengths and calls."""
    found = []
    for at in zip(*(figures for _, figures in kinds), strict=True):
        for call in at[0].calls:
            each = [figures.calls[call] for figures in at]
            names = dict.fromkeys(name for times in each for name in times)
            whole = [name for name in names if all(name in times for times in each)]
            sums = {
                name: sum(layers * times[name] for (layers, _), times in zip(kinds, each, strict=True))
                for name in whole
            }
            found.append(ModelSum(at[0].length, call, sums, tuple(name for name in names if name not in sums)))
    return tuple(found)


def sums_table(sums: Sequence[ModelSum]) -> str:
    names = [name for name in dict.fromkeys(name for each in sums for name in each.seconds) if name != "sparsec"]
    columns = [column for name in names for column in (f"{name} ms", f"vs {name}")]
    rows = []
    for each in sums:
        ours, cells = each.seconds["sparsec"], []
        for name in names:
            seconds = each.seconds.get(name)
            cells += ["-", "-"] if seconds is None else [f"{seconds * 1e3:.3g}", f"{seconds / ours:.2f}x"]
        rows.append((str(each.length), each.call, f"{ours * 1e3:.3g}", *cells))
    some = dict.fromkeys(name for each in sums for name in each.partial)
    lines = [f"without a sum, since it ran for some kinds of layers alone: {name}" for name in some]
    return "\n".join([table(("tokens", "call", "ms", *columns), rows), *([""] if lines else []), *lines])

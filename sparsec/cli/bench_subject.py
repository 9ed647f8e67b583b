"""What `sparsec bench` times: a pattern, with what its inputs hold and the baselines beside it.

Invariant: a wrong option is refused before anything is compiled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from sparsec.bench.baseline_names import BASELINES, GRADIENT_BASELINES, USUAL, USUAL_WITH_INPUTS
from sparsec.cli.inputs import InputSources
from sparsec.program import Pattern
from sparsec.sema.inputs import OF_KEYS
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.shapes import Sizes

if TYPE_CHECKING:
    from sparsec.bench.baselines import BenchCase
    from sparsec.runtime.module import SparseAttention


@dataclass(frozen=True, slots=True)
class BenchSetting:
    """How it is called; dtype and device as the command line has them."""

    lengths: tuple[int, ...]
    batch: int
    head_dim: int
    dtype: str
    device: str | None
    kv_dtype: str | None = None


@dataclass(slots=True)
class BenchSubject:
    """`baselines`: named, and then those of the device."""

    pattern: Pattern
    meaning: ResolvedPattern
    sources: InputSources
    baselines: tuple[str, ...] = ()

    def name_baselines(self, against: str | None, new: int | None, *, backward: bool) -> None:
        """Takes those of --against, or the usual ones, for calls of `new` tokens over a cache, or without one.

        Raises click.UsageError, also for inputs that no such call has.
        """
        inputs = self.meaning.inputs
        usual: tuple[str, ...] = USUAL_WITH_INPUTS if inputs else USUAL
        if inputs and new is not None:
            usual = (*usual, "window")
        elif backward and not inputs:
            usual = (*usual, "eager")
        self.baselines = _named_baselines(against, GRADIENT_BASELINES if backward else BASELINES, usual)

    def check_over_cache(self) -> None:
        """Raises click.UsageError."""
        if any(input_.kind in OF_KEYS for input_ in self.meaning.inputs):
            raise click.UsageError("expected no inputs that speak of keys with --decode or --prefill-chunk, got some")

    def cases(self, at: BenchSetting, new: int | None, *, draws: bool) -> Iterator[BenchCase]:
        """What is measured at each length; `draws`: with the pattern's inputs."""
        from sparsec.bench.baselines import make_case

        for length in at.lengths:
            case = make_case(self.meaning, at.batch, length, at.head_dim, at.dtype, at.device)
            case = replace(case, kv_dtype=at.kv_dtype)
            if self.meaning.inputs and draws:
                case = replace(case, given=self.sources.tensors(self.meaning, _sizes(case, new), case.device))
            yield case

    def compiled(self, at: BenchSetting) -> SparseAttention:
        """Raises as `sparsec.compile` does."""
        from sparsec.bench.baselines import make_case

        case = make_case(self.meaning, at.batch, at.lengths[0], at.head_dim, at.dtype, at.device)
        return case.compiled(self.pattern)


def shared_number(numbers: Sequence[int]) -> int | list[int]:
    """The number that all are, or each once."""
    distinct = list(dict.fromkeys(numbers))
    return distinct[0] if len(distinct) == 1 else distinct


def _sizes(case: BenchCase, new: int | None) -> Sizes:
    """Those of the timed call."""
    heads, kv_heads = case.pattern.heads, case.pattern.kv_heads
    n_q = case.length if new is None else new
    return Sizes(case.batch, heads, kv_heads, n_q, n_q, case.length, case.length - n_q)


def _named_baselines(text: str | None, known: Collection[str], usual: tuple[str, ...]) -> tuple[str, ...]:
    if text is None:
        return usual
    names = () if text == "none" else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if any(name not in known and not _own(name) for name in names):
        raise click.BadParameter(
            f"expected names among {', '.join(known)}, or MODULE:CALLABLE, got {text!r}", param_hint="'--against'"
        )
    return names


def _own(name: str) -> bool:
    """Whether it is MODULE:CALLABLE."""
    module, colon, path = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *path.split(".")))

"""A check of one case -> the smallest case that fails, of those that a strategy draws.

Invariant: the failure kept is of the last case to fail, which is the smallest: hypothesis runs it again at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy

from sparsec.diagnostics.arguments import integer
from sparsec.testing.cases import Case

Report = Callable[[str], None]


class _Failed(Exception):
    """What hypothesis sees of every failure: it shrinks whichever error a case gives, and prints no case."""


@dataclass(slots=True)
class Search:
    """What running `check` on one case after another has found; it raises for a case that fails.

    `examples` and `keys`: the cases run up to the first failure, and the most keys of any. `error`: that of `case`, the
    smallest to fail; `flaky`: whether another run of it did not.
    """

    check: Callable[[Case], None]
    report: Report = lambda _: None
    shrinking_seconds: float = math.inf
    examples: int = 0
    keys: int = 0
    case: Case | None = None
    error: Exception | None = None
    flaky: bool = False
    failed: set[Case] = field(default_factory=set)
    deadline: float = 0.0

    def over(self, drawn: SearchStrategy[Case], *, examples: int, seed: int = 0) -> None:
        """Runs so many of the cases drawn; the same seed draws the same."""
        integer("examples", examples, 1)

        @seeded(seed)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.quiet,
        )
        @given(drawn)
        def run(case: Case) -> None:
            self._run(case)

        try:
            run()
        except _Failed:
            pass
        except Flaky:
            if self.error is None:
                raise
            self.flaky = True

    @property
    def again(self) -> str:
        """What to add to the error of a failure that did not repeat."""
        return "\nanother run of it did not fail" if self.flaky else ""

    def _run(self, case: Case) -> None:
        """Raises _Failed if the case fails; once shrinking has had its time, only cases that failed before do."""
        if not self.failed:
            self.examples += 1
            self.keys = max(self.keys, case.keys)
            self.report(f"example {self.examples}")
        elif case not in self.failed and time.perf_counter() > self.deadline:
            return
        else:
            self.report(f"shrinking, {case.keys} keys")
        try:
            self.check(case)
        except Exception as error:
            if not self.failed:
                self.deadline = time.perf_counter() + self.shrinking_seconds
            self.failed.add(case)
            self.case, self.error = case, error
        else:
            return
        raise _Failed

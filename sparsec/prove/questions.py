"""What a claim is to the solver: conditions that hold together exactly where it fails.

Invariant: a claim is proved iff its failure is impossible; all unknowns of the setting range freely in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparsec.prove.linear import Condition, some


@dataclass(frozen=True, slots=True)
class Failure:
    """Where a claim fails: all of `given` holds and some of `cases`."""

    given: tuple[Condition, ...]
    cases: tuple[Condition, ...]

    @property
    def whole(self) -> tuple[Condition, ...]:
        return (*self.given, some(self.cases))


@dataclass(frozen=True, slots=True)
class Question:
    """`fails` states where the claim `name` fails, when it is asked.

    `shown`: whether a shorter way shows that it fails nowhere, given a test of whether failures are impossible; its no
    says nothing.
    """

    name: str
    fails: Callable[[], Failure]
    shown: Callable[[Callable[[Failure], bool]], bool] = lambda _: False

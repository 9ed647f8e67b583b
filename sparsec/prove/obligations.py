"""What has to be shown of a plan, and what the solver is asked for it: conditions that hold together where it fails.

Invariant: an obligation is met iff its query is impossible; all unknowns of the setting range freely in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparsec.prove.linear import Condition, some


@dataclass(frozen=True, slots=True)
class Query:
    """Whether all of `given` can hold, and some of `cases`."""

    given: tuple[Condition, ...]
    cases: tuple[Condition, ...]

    @property
    def whole(self) -> tuple[Condition, ...]:
        return (*self.given, some(self.cases))


@dataclass(frozen=True, slots=True)
class Obligation:
    """`negation` asks for a place where the claim `name` fails.

    `by_lemmas`: whether a shorter way shows that it fails nowhere, given a test of whether queries are impossible; its
    no says nothing.
    """

    name: str
    negation: Callable[[], Query]
    by_lemmas: Callable[[Callable[[Query], bool]], bool] = lambda _: False

"""The block mask: a head's set of pairs as a union of bands in closed form.

A band holds (i, j) iff every lower bound <= j < every upper bound, 0 <= j < nk, every row bound holds for i, every
congruence holds, and every test of a list and of an input holds. Transposed bands say the same with i and j exchanged
(see `transpose`).
Invariant: an empty tuple of bounds restricts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from sparsec.ir.bands.bounds import Bound, Number


@dataclass(frozen=True, slots=True)
class Congruence:
    """(j // unit - (i // unit if moving else 0) - phase) mod period < width, with 0 < width < period."""

    unit: int
    period: int
    phase: Number
    width: int
    moving: bool


@dataclass(frozen=True, slots=True)
class Draws:
    """A random term: `count` draws for each query block of `block` rows."""

    count: int
    seed: int
    lane: Number
    block: int


@dataclass(frozen=True, slots=True)
class ListTest:
    """Whether the pair's block is among the draws (or, `negated`, is not)."""

    draws: Draws
    negated: bool


class Asks(Enum):
    """What an `InputTest` asks of a pair (i, j), given its `height` of queries and `width` of keys."""

    MARKED = "marked"
    """Key j is marked."""
    COLUMN = "column"
    """j // width is listed."""
    SLASH = "slash"
    """i // height - j // width is listed; both are one number."""
    SLASH_TILE = "slash tile"
    """i // height * height - s <= j < i // height * height - s + height for a listed s."""
    ROW = "row"
    """j // width is in the list of query i."""
    CELL = "cell"
    """The cell (i // height, j // width) is set."""
    LABEL = "label"
    """The labels of i and j are equal and not negative."""
    ANCESTOR = "ancestor"
    """j comes before the tree's tokens, or is i or an ancestor of i."""
    KEY_BELOW = "key below"
    """j < the length."""
    QUERY_BELOW = "query below"
    """i < the length."""
    NEAR = "near"
    """i - j < the length, and the length is not 0."""
    KEPT = "kept"
    """Key j is in the list of keys that a cache keeps for their marks; the ordinal says nothing."""
    KEPT_MARK = "kept mark"
    """Key j, in that list, is marked."""


@dataclass(frozen=True, slots=True)
class InputTest:
    """What is asked of input `ordinal` (of `ResolvedPattern.inputs`); `negated`: it has to fail."""

    ordinal: int
    asks: Asks
    height: int = 1
    width: int = 1
    negated: bool = False


def plain(test: InputTest) -> InputTest:
    """The test without its negation."""
    return replace(test, negated=False)


@dataclass(frozen=True, slots=True)
class Band:
    lower: tuple[Bound, ...] = ()
    upper: tuple[Bound, ...] = ()
    first_row: tuple[Bound, ...] = ()
    last_row: tuple[Bound, ...] = ()
    """Exclusive, like `upper`: i < every bound."""
    congruences: tuple[Congruence, ...] = ()
    lists: tuple[ListTest, ...] = ()
    inputs: tuple[InputTest, ...] = ()
    row_residues: tuple[Congruence, ...] = ()
    """Residues that the row's own block must lie in; in transposed bands alone, never moving."""
    origin: str = ""
    """The canonical text of the terms it came from; never compared for meaning."""

    @property
    def gated(self) -> bool:
        """Whether some rows may lie outside the band altogether."""
        return bool(self.first_row or self.last_row or self.row_residues)


ALL = Band()

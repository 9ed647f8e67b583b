"""The block mask: a head's set of pairs as a union of bands in closed form.

A band holds (i, j) iff every lower bound <= j < every upper bound, 0 <= j < nk, every row bound holds for i, every
congruence holds, and every list test holds. Transposed bands say the same with i and j exchanged (see `transpose`).
Invariant: an empty tuple of bounds restricts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Band:
    lower: tuple[Bound, ...] = ()
    upper: tuple[Bound, ...] = ()
    first_row: tuple[Bound, ...] = ()
    last_row: tuple[Bound, ...] = ()
    """Exclusive, like `upper`: i < every bound."""
    congruences: tuple[Congruence, ...] = ()
    lists: tuple[ListTest, ...] = ()
    row_residues: tuple[Congruence, ...] = ()
    """Residues that the row's own block must lie in; in transposed bands alone, never moving."""
    origin: str = ""
    """The canonical text of the terms it came from; never compared for meaning."""

    @property
    def gated(self) -> bool:
        """Whether some rows may lie outside the band altogether."""
        return bool(self.first_row or self.last_row or self.row_residues)


ALL = Band()

"""Integer and boolean expressions in closed form: what a kernel computes per query tile and per pair of a partial tile.

One tree, several readers: `evaluate` runs it, a backend prints it in its language, a prover can state it.
Invariants: `//` and `%` round toward minus infinity; divisors are positive; no value leaves the int32 range while
positions and lengths stay below 2**29, apart from the products inside `Mul`, which the constructors keep small.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Int:
    value: int


@dataclass(frozen=True, slots=True)
class Var:
    """A named integer: an input (i0, i1, nk, i, j, tile, ...), a head constant (c0, c1, ...) or an earlier `Let`."""

    name: str


@dataclass(frozen=True, slots=True)
class Add:
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Sub:
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Mul:
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class FloorDiv:
    """left // right, right positive; `nonneg` states that left is known to be at least 0."""

    left: Expr
    right: Expr
    nonneg: bool


@dataclass(frozen=True, slots=True)
class Mod:
    """left % right in [0, right), right positive; `nonneg` states that left is known to be at least 0."""

    left: Expr
    right: Expr
    nonneg: bool


@dataclass(frozen=True, slots=True)
class Min:
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Max:
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Select:
    """then if condition else other; both sides are always safe to evaluate."""

    condition: Bool
    then: Expr
    other: Expr


Expr = Int | Var | Add | Sub | Mul | FloorDiv | Mod | Min | Max | Select


@dataclass(frozen=True, slots=True)
class Truth:
    value: bool


@dataclass(frozen=True, slots=True)
class Less:
    """left < right."""

    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class And:
    left: Bool
    right: Bool


@dataclass(frozen=True, slots=True)
class Or:
    left: Bool
    right: Bool


@dataclass(frozen=True, slots=True)
class Not:
    operand: Bool


@dataclass(frozen=True, slots=True)
class Listed:
    """Whether the tile at hand is in run-time list `ordinal` (a random term's draws); constant within a tile."""

    ordinal: int


class Extent(Enum):
    """What an input is asked of."""

    PAIR = "pair"
    """The pair (i, j)."""
    SOME = "some"
    """The tile at hand: may a pair of it pass? False only where none does."""
    EVERY = "every"
    """The tile at hand: do all pairs of it pass? True only where all do."""


@dataclass(frozen=True, slots=True)
class Picked:
    """Whether input test `ordinal` of the program passes; of SOME and EVERY constant within a tile."""

    ordinal: int
    scope: Extent


Bool = Truth | Less | And | Or | Not | Listed | Picked
Tree = Expr | Bool

ZERO, ONE = Int(0), Int(1)
TRUE, FALSE = Truth(True), Truth(False)


@dataclass(frozen=True, slots=True)
class Let:
    """`name` stands for `value` in everything that follows."""

    name: str
    value: Expr

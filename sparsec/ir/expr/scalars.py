"""Builds a tile program's straight-line scalars: names values, shares equal ones, simplifies by what is known of signs.

Invariant: a name stands for one value; what `maximum`, `minimum`, `floor_tile` and `ceil_tile` return equals what they
were asked for, for every tile of rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.nodes import ZERO, Add, Expr, FloorDiv, Int, Let, Max, Min, Mod, Mul, Select, Var

NK = Var("nk")
PUSHED_LIMIT = 16
"""Values of a maximum, at most, that a division is pushed to."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Tiles (or tokens) [start, stop)."""

    start: Expr
    stop: Expr
    origin: str


Gap = tuple[Expr, Expr | None]
"""Tiles from the first on, up to the second; None is no end."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a tile program calls rows and columns, and from where its columns count.

    `first` and `last`: the tile's rows, both inclusive. Columns are positions minus `origin`, from `begin` to `end`.
    """

    first: Var
    last: Var
    origin: Expr
    begin: Expr
    end: Expr
    row: Var
    column: Var


FORWARD = Frame(Var("i0"), Var("i1"), ZERO, ZERO, NK, Var("i"), Var("j"))
"""Rows are queries, columns are keys."""
DOCUMENT = Frame(Var("i0"), Var("i1"), ZERO, Var("begin"), Var("end"), Var("i"), Var("j"))
"""The same, with keys from `begin` to `end` alone: those of the document that the tile's queries lie in."""
TRANSPOSED = Frame(Var("j0"), Var("j1"), Var("base"), Var("begin"), Var("end"), Var("j"), Var("i"))
"""Rows are keys, columns are queries, counted from the start `base` of the first query tile."""


class Scalars:
    """The lets of one tile of `row_tile` rows, over tiles of `column_tile` columns.

    Calling it names a value: equal values share a name, literals and variables need none.
    """

    def __init__(self, row_tile: int, column_tile: int, frame: Frame) -> None:
        self.row_tile = row_tile
        self.column_tile = column_tile
        self.frame = frame
        self.items: list[Let] = []
        self.known: dict[Expr, Var] = {}
        self.values: dict[str, Expr] = {}
        self.taken: Counter[str] = Counter()
        self.signs: dict[Var, bool] = {}
        self.widths: dict[Var, int] = {}

    def __call__(self, name: str, value: Expr) -> Expr:
        if isinstance(value, Int | Var):
            return value
        if value not in self.known:
            var = Var(f"{name}{self.taken[name]}")
            self.taken[name] += 1
            self.known[value] = var
            self.items.append(Let(var.name, value))
            self.values[var.name] = value
        return self.known[value]

    def definition(self, value: Expr) -> Expr:
        """What a variable stands for, if it is one of the lets."""
        return self.values.get(value.name, value) if isinstance(value, Var) else value

    def nonneg(self, value: Expr) -> bool:
        """Whether the value is known to be at least 0; asked once of each let, for lets share what they are made of."""
        if not isinstance(value, Var):
            return self._nonneg(value)
        if value not in self.signs:
            self.signs[value] = self._nonneg(self.definition(value))
        return self.signs[value]

    def _nonneg(self, value: Expr) -> bool:
        match value:
            case Int(number):
                return number >= 0
            case Var("nk" | "n" | "begin" | "end"):
                return True
            case Add(a, b) | Mul(a, b) | Min(a, b):
                return self.nonneg(a) and self.nonneg(b)
            case Max(a, b):
                return self.nonneg(a) or self.nonneg(b)
            case FloorDiv(a, _, nonneg):
                return nonneg or self.nonneg(a)
            case Mod():
                return True
            case Select(_, a, b):
                return self.nonneg(a) and self.nonneg(b)
        return False

    def maximum(self, a: Expr, b: Expr) -> Expr:
        if (a == ZERO and self.nonneg(b)) or (b == ZERO and self.nonneg(a)):
            return b if a == ZERO else a
        return x.maximum(a, b)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        if (a == ZERO and self.nonneg(b)) or (b == ZERO and self.nonneg(a)):
            return ZERO
        return x.minimum(a, b)

    def width(self, value: Expr) -> int:
        """How many values the maxima and minima of `value` are taken of, through its lets."""
        match value:
            case Var():
                if value not in self.widths:
                    self.widths[value] = self.width(self.values[value.name]) if value.name in self.values else 1
                return self.widths[value]
            case Max(a, b) | Min(a, b):
                return self.width(a) + self.width(b)
        return 1

    def floor_tile(self, token: Expr) -> Expr:
        """token // column_tile, pushed through maxima and minima, where it often cancels against a multiple."""
        match self._few(token):
            case Max(a, b):
                return self.maximum(self.floor_tile(a), self.floor_tile(b))
            case Min(a, b):
                return self.minimum(self.floor_tile(a), self.floor_tile(b))
            case value:
                cancels = not isinstance(x.floor_div(value, Int(self.column_tile)), FloorDiv)
                return x.floor_div(value if cancels else token, Int(self.column_tile), nonneg=self.nonneg(value))

    def ceil_tile(self, token: Expr) -> Expr:
        """ceil(token / column_tile), likewise."""
        match self._few(token):
            case Max(a, b):
                return self.maximum(self.ceil_tile(a), self.ceil_tile(b))
            case Min(a, b):
                return self.minimum(self.ceil_tile(a), self.ceil_tile(b))
            case value:
                return x.ceil_div(value, Int(self.column_tile), nonneg=self.nonneg(value))

    def _few(self, token: Expr) -> Expr:
        """What `token` stands for; itself if that is a maximum or minimum of too many values for a copy of each."""
        return token if self.width(token) > PUSHED_LIMIT else self.definition(token)

    def meet(self, tiles: Interval, gap: Gap) -> Interval:
        """The tiles of the interval that lie in the gap; start equals stop where that is plain."""
        start = self("at", self.maximum(tiles.start, gap[0]))
        stop = tiles.stop if gap[1] is None else self.minimum(tiles.stop, gap[1])
        return Interval(start, start if tiles.start in (tiles.stop, gap[1]) else stop, tiles.origin)


def gaps(intervals: list[Interval]) -> list[Gap]:
    """The ranges before, between and after ordered disjoint intervals; None is no end."""
    starts = [ZERO, *(i.stop for i in intervals)]
    stops: list[Expr | None] = [*(i.start for i in intervals), None]
    return list(zip(starts, stops, strict=True))

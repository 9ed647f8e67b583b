"""Linear forms over bounded unknowns, and conditions on them: what obligations are stated in before a solver sees them.

Quotients, remainders, minima and choices become unknowns with rules. Invariant: a rule holds for exactly one value of
the unknowns that it defines, whatever the others are, so that rules never restrict what is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import gcd

from sparsec.diagnostics.model import InternalError


@dataclass(frozen=True, slots=True)
class Linear:
    """constant + the sum of coefficient * unknown; `terms` are sorted by unknown, without zeros."""

    constant: int
    terms: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: Linear) -> Linear:
        if not other.terms:
            return Linear(self.constant + other.constant, self.terms)
        found = dict(self.terms)
        for unknown, factor in other.terms:
            found[unknown] = found.get(unknown, 0) + factor
        return Linear(self.constant + other.constant, tuple(sorted((u, f) for u, f in found.items() if f)))

    def __mul__(self, factor: int) -> Linear:
        return Linear(self.constant * factor, tuple((u, f * factor) for u, f in self.terms) if factor else ())

    def __sub__(self, other: Linear) -> Linear:
        return self + other * -1

    def plus(self, number: int) -> Linear:
        return Linear(self.constant + number, self.terms)

    def over(self, divisor: int) -> Linear:
        """The quotient, by a number that divides every coefficient; the constant is rounded down."""
        return Linear(self.constant // divisor, tuple((u, f // divisor) for u, f in self.terms))


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    value: bool


@dataclass(frozen=True, slots=True, eq=False)
class AtLeastZero:
    value: Linear


@dataclass(frozen=True, slots=True, eq=False)
class IsZero:
    value: Linear


@dataclass(frozen=True, slots=True, eq=False)
class Flag:
    """A free truth value: whether a tile is in a list of draws."""

    name: tuple[object, ...]


@dataclass(frozen=True, slots=True, eq=False)
class All:
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Some:
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Never:
    """The operand does not hold."""

    part: Condition


Condition = Known | AtLeastZero | IsZero | Flag | All | Some | Never
YES, NO = Known(True), Known(False)


def every(parts: Iterable[Condition]) -> Condition:
    kept = [part for part in parts if part is not YES]
    if NO in kept:
        return NO
    return YES if not kept else kept[0] if len(kept) == 1 else All(tuple(kept))


def some(parts: Iterable[Condition]) -> Condition:
    kept = [part for part in parts if part is not NO]
    if YES in kept:
        return YES
    return NO if not kept else kept[0] if len(kept) == 1 else Some(tuple(kept))


def never(part: Condition) -> Condition:
    match part:
        case Known(value):
            return NO if value else YES
        case Never(inner):
            return inner
        case AtLeastZero(value):
            return AtLeastZero((value * -1).plus(-1))
    return Never(part)


class Space:
    """Unknowns with ranges, and the rules of those that stand for something."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.ranges: list[tuple[int, int]] = []
        self.rules: list[tuple[Condition, ...]] = []
        self.hints: dict[int, tuple[tuple[int, tuple[Condition, ...]], ...]] = {}
        """Of an unknown: others, and what is true of both, for queries that reach both."""
        self._divided: dict[tuple[Linear, int], tuple[Linear, Linear]] = {}
        self._wrapped: list[tuple[Linear, Linear, Linear]] = []
        self._chosen: dict[tuple[object, ...], Linear] = {}
        self._flags: dict[tuple[object, ...], Flag] = {}

    def unknown(self, name: str, low: int, high: int, rules: tuple[Condition, ...] = ()) -> Linear:
        """A new unknown with low <= value <= high; equal ends make it a number."""
        if low == high:
            return Linear(low)
        self.names.append(name)
        self.ranges.append((low, high))
        self.rules.append(rules)
        return Linear(0, ((len(self.names) - 1, 1),))

    def flag(self, *name: object) -> Flag:
        return self._flags.setdefault(name, Flag(name))

    def range_of(self, value: Linear) -> tuple[int, int]:
        low = high = value.constant
        for unknown, factor in value.terms:
            least, most = self.ranges[unknown]
            low += factor * (least if factor > 0 else most)
            high += factor * (most if factor > 0 else least)
        return low, high

    # ---- Conditions

    def at_least(self, left: Linear, right: Linear) -> Condition:
        """left >= right."""
        value = left - right
        low, high = self.range_of(value)
        if low >= 0 or high < 0:
            return YES if low >= 0 else NO
        for coarse, _, _ in self._on_grids(value, 0):
            return self.at_least(coarse, Linear(0))
        return AtLeastZero(value)

    def less(self, left: Linear, right: Linear) -> Condition:
        return never(self.at_least(left, right))

    def equal(self, left: Linear, right: Linear) -> Condition:
        value = left - right
        low, high = self.range_of(value)
        if low == high == 0:
            return YES
        common = gcd(*(factor for _, factor in value.terms))
        if low > 0 or high < 0 or (common and value.constant % common):
            return NO
        return IsZero(value)

    def within(self, value: Linear, low: Linear, stop: Linear) -> Condition:
        """low <= value < stop."""
        return every((self.at_least(value, low), self.less(value, stop)))

    # ---- Values

    def divided(self, value: Linear, divisor: int) -> tuple[Linear, Linear]:
        """Quotient, rounded down, and remainder."""
        whole = Linear(0, tuple((u, f) for u, f in value.terms if f % divisor == 0)).over(divisor)
        whole = whole.plus(value.constant // divisor)
        rest = Linear(value.constant % divisor, tuple((u, f) for u, f in value.terms if f % divisor))
        low, high = self.range_of(rest)
        if low // divisor == high // divisor:
            turns = low // divisor
            return whole.plus(turns), rest.plus(-turns * divisor)
        for coarse, fine, grid in self._on_grids(rest, divisor):
            quotient, left = self.divided(coarse, divisor // grid)
            return whole + quotient, left * grid + fine
        if rest.constant:
            quotient, left = self.divided(rest.plus(-rest.constant), divisor)
            carry = self.select(self.at_least(left, Linear(divisor - rest.constant)), Linear(1), Linear(0))
            return whole + quotient + carry, left.plus(rest.constant) - carry * divisor
        key = rest, divisor
        if key not in self._divided:
            quotient = self._new("quotient", low // divisor, high // divisor)
            left = self._new("remainder", 0, divisor - 1)
            bounds = AtLeastZero(left), AtLeastZero((left * -1).plus(divisor - 1))
            self._rule((quotient, left), (IsZero(rest - quotient * divisor - left), *bounds))
            self.hints[_unknown(quotient)] = tuple(self._in_step(rest, divisor, quotient))
            self._divided[key] = quotient, left
        quotient, left = self._divided[key]
        return whole + quotient, left

    def _in_step(self, value: Linear, divisor: int, quotient: Linear) -> Iterator[tuple[int, tuple[Condition, ...]]]:
        """What the solver would be slow to find: quotients by one divisor are ordered as what is divided is."""
        for (other, by), (found, _) in self._divided.items():
            if by == divisor:
                low, high = self.range_of(value - other)
                known = [
                    some((self.less(value, other), AtLeastZero(quotient - found))),
                    some((self.less(other, value), AtLeastZero(found - quotient))),
                ]
                if high - low < 4 * divisor:
                    known.append(AtLeastZero((quotient - found).plus(-(low // divisor))))
                    known.append(AtLeastZero((found - quotient).plus(-(-high // divisor))))
                yield _unknown(found), tuple(known)

    def _on_grids(self, value: Linear, divisor: int) -> Iterator[tuple[Linear, Linear, int]]:
        """Ways to write the value as coarse * grid + fine, 0 <= fine < grid; the grid divides `divisor` (0: any)."""
        for grid in sorted({gcd(factor, divisor) for _, factor in value.terms}, reverse=True):
            if grid > 1:
                fine = Linear(value.constant % grid, tuple((u, f) for u, f in value.terms if f % grid))
                low, high = self.range_of(fine)
                if low // grid == high // grid:
                    turns = low // grid
                    yield (value - fine).over(grid).plus(turns), fine.plus(-turns * grid), grid

    def wrapped(self, value: Linear, divisor: Linear) -> Linear:
        """value mod divisor, for an unknown positive divisor: the slot of a ring, its capacity being the divisor.

        value = turns * divisor + remainder is not linear, so the rules say what linear arithmetic can. Lemma: equal
        remainders by one divisor are of equal values, or of values at least the divisor apart. So the remainders of two
        values differ as soon as these differ by less than the divisor, which is for the solver to find. Beside it
        0 <= remainder < divisor, and values from 0 to the divisor are their own remainders. All of it is true, but does
        not define the remainder: what is proved is true, an assignment need not be one.
        Raises InternalError for a divisor that may not be positive.
        """
        if self.range_of(divisor)[0] < 1:
            raise InternalError("a remainder's divisor is positive")
        for known, by, left in self._wrapped:
            if known == value and by == divisor:
                return left
        left = self._new("remainder", 0, self.range_of(divisor)[1] - 1)
        before, small = self.less(value, Linear(0)), self.less(value, divisor)
        rules = [AtLeastZero(left), self.less(left, divisor), some((before, self.at_least(value, left)))]
        rules.append(some((before, never(small), self.equal(left, value))))
        for known, by, other in self._wrapped:
            if by == divisor:
                apart = (self.at_least(value - known, divisor), self.at_least(known - value, divisor))
                rules.append(some((never(self.equal(left, other)), self.equal(known, value), *apart)))
        self._rule((left,), tuple(rules))
        self._wrapped.append((value, divisor, left))
        return left

    def minimum(self, a: Linear, b: Linear) -> Linear:
        return self._extreme(a, b, 1)

    def maximum(self, a: Linear, b: Linear) -> Linear:
        return self._extreme(a, b, -1)

    def _extreme(self, a: Linear, b: Linear, sign: int) -> Linear:
        """The smaller of the two for sign 1, the larger for sign -1."""
        low, high = self.range_of((b - a) * sign)
        if low >= 0 or high <= 0:
            return a if low >= 0 else b
        key = (sign, *sorted((a, b), key=lambda value: (value.constant, value.terms)))
        if key not in self._chosen:
            pick = min if sign > 0 else max
            ends = tuple(pick(pair) for pair in zip(self.range_of(a), self.range_of(b), strict=True))
            found = self._new("least" if sign > 0 else "most", ends[0], ends[1])
            over, under = (a - found) * sign, (b - found) * sign
            reached = some((AtLeastZero(over * -1), AtLeastZero(under * -1)))
            self._rule((found,), (AtLeastZero(over), AtLeastZero(under), reached))
            self._chosen[key] = found
        return self._chosen[key]

    def select(self, condition: Condition, then: Linear, other: Linear) -> Linear:
        if isinstance(condition, Known) or then == other:
            return then if condition is YES else other
        test = condition.value if isinstance(condition, AtLeastZero) else condition
        key = ("select", test, then, other)
        if key not in self._chosen:
            (low, high), (least, most) = self.range_of(then), self.range_of(other)
            found = self._new("select", min(low, least), max(high, most))
            taken = some((never(condition), IsZero(found - then)))
            self._rule((found,), (taken, some((condition, IsZero(found - other)))))
            self._chosen[key] = found
        return self._chosen[key]

    def _new(self, name: str, low: int, high: int) -> Linear:
        """An unknown even where the ends are equal, for a rule to define."""
        self.names.append(name)
        self.ranges.append((low, high))
        self.rules.append(())
        return Linear(0, ((len(self.names) - 1, 1),))

    def _rule(self, defined: tuple[Linear, ...], rules: tuple[Condition, ...]) -> None:
        for value in defined:
            self.rules[_unknown(value)] = rules


def _unknown(value: Linear) -> int:
    """The unknown that the value is."""
    return value.terms[0][0]

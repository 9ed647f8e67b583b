"""Band set -> smaller band set of the same meaning: drops empty and contained bands, joins touching ones.

Invariant: the union of the result equals the union of the input, for every i, j and nk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import gcd

from sparsec.diagnostics.model import SparsecError
from sparsec.ir.bands.band import Band, Congruence
from sparsec.ir.bands.bounds import LIMIT, Base, Bound, lowest, never_above

BAND_LIMIT = 64
"""The largest number of bands a head may expand to."""


class TooManyBands(SparsecError):
    """The set of one head, or of the heads of KV group `group` together, expands to more than BAND_LIMIT bands."""

    def __init__(self, message: str, group: int | None = None) -> None:
        super().__init__(message)
        self.group = group


class TooManyBandsTogether(TooManyBands):
    """The kinds of heads of a pattern, each with few enough, have too many bands together."""


class TooMuchEffort(TooManyBands):
    """A pattern's terms take too many steps to simplify."""


@dataclass(slots=True)
class Effort:
    """How many more comparisons of bands a pattern may cost: what keeps a hostile one from taking minutes.

    `within`: a smaller budget of several patterns, which pays too.
    """

    left: int = 100_000
    within: Effort | None = None

    def spend(self, comparisons: int) -> None:
        if self.within is not None:
            self.within.spend(comparisons)
        self.left -= comparisons
        if self.left < 0:
            raise TooMuchEffort("expected a pattern that simplifies quickly, got one that takes too many steps")


def normalise(bands: Iterable[Band], effort: Effort) -> tuple[Band, ...]:
    """Applies the rules until none fires; keeps the order of first occurrence. Raises TooManyBands."""
    kept: list[Band] = []
    for band in bands:
        effort.spend(1)
        tightened = tighten(band)
        if tightened is not None:
            _insert(kept, tightened, effort)
        if len(kept) > BAND_LIMIT:
            raise TooManyBands(f"expected at most {BAND_LIMIT} bands, got more")
    return tuple(kept)


def _insert(kept: list[Band], band: Band, effort: Effort) -> None:
    """Adds `band` to `kept`, joining it with any band it can be joined with, again and again."""
    position = len(kept)
    while True:
        effort.spend(len(kept))
        for n, other in enumerate(kept):
            if (union := joined(other, band)) is not None:
                del kept[n]
                band, position = union, min(position, n)
                break
        else:
            kept.insert(position, band)
            return


def joined(a: Band, b: Band) -> Band | None:
    """One band equal to `a | b`, if one is found."""
    if contains(a, b):
        return a
    if contains(b, a):
        return b
    if (a.first_row, a.last_row, a.lists, a.inputs) != (b.first_row, b.last_row, b.lists, b.inputs):
        return None
    if a.congruences == b.congruences:
        for left, right in ((a, b), (b, a)):
            if _lower_before(left, right) and upper_before(left, right) and _touches(left, right):
                return replace(left, upper=right.upper, origin=_joined_origin(a, b))
    if (a.lower, a.upper) == (b.lower, b.upper) and len(a.congruences) == len(b.congruences) == 1:
        residues = _joined_residues(a.congruences[0], b.congruences[0])
        if residues is not None:
            congruences = () if residues.width == residues.period else (residues,)
            return replace(a, congruences=congruences, origin=_joined_origin(a, b))
    return None


def _joined_origin(a: Band, b: Band) -> str:
    return a.origin if a.origin == b.origin else f"{a.origin} | {b.origin}"


def _joined_residues(a: Congruence, b: Congruence) -> Congruence | None:
    """The union of two residue runs of one period that overlap or touch; width == period means every residue."""
    if (a.unit, a.period, a.moving) != (b.unit, b.period, b.moving):
        return None
    for left, right in ((a, b), (b, a)):
        gap = (_phase(right) - _phase(left)) % a.period
        if gap <= left.width:
            return replace(left, width=min(a.period, max(left.width, gap + right.width)))
    return None


def _phase(congruence: Congruence) -> int:
    assert isinstance(congruence.phase, int), "bands are normalised before heads are grouped"
    return congruence.phase


def contains(outer: Band, inner: Band) -> bool:
    """Whether inner is proved to be a subset of outer."""
    return (
        _lower_before(outer, inner)
        and upper_before(inner, outer)
        and all(any(never_above(o, n) for n in inner.first_row) for o in outer.first_row)
        and all(any(never_above(n, o) for n in inner.last_row) for o in outer.last_row)
        and all(any(implies(n, o) for n in inner.congruences) for o in outer.congruences)
        and set(outer.lists) <= set(inner.lists)
        and set(outer.inputs) <= set(inner.inputs)
    )


def implies(a: Congruence, b: Congruence) -> bool:
    """Whether a's residues all lie in b's."""
    if (a.unit, a.moving) != (b.unit, b.moving) or a.period % b.period != 0:
        return False
    return (_phase(a) - _phase(b)) % b.period + a.width <= b.width


def _lower_before(a: Band, b: Band) -> bool:
    """max(0, a.lower) <= max(0, b.lower), proved."""
    return all(_some_below((x,), b.lower) or below_start(x) for x in a.lower)


def upper_before(a: Band, b: Band) -> bool:
    """min(nk, a.upper) <= min(nk, b.upper), proved."""
    return all(_some_below(a.upper, (y,)) or beyond_end(y) for y in b.upper)


def _some_below(left: tuple[Bound, ...], right: tuple[Bound, ...]) -> bool:
    for x in left:
        for y in right:
            if never_above(x, y):
                return True
    return False  # loops, for two nested generators take as long again


def _touches(left: Band, right: Band) -> bool:
    """right starts no later than left ends: max(0, right.lower) <= min(nk, left.upper), proved for non-empty bands."""
    return all(
        never_above(lo, up) or (below_start(lo) and lowest(up.offset) >= 0 and up.base is not Base.ROW)
        for lo in right.lower or (Bound(Base.START, 1, 0),)
        for up in left.upper
    )


def below_start(bound: Bound) -> bool:
    """Whether every key is at or after the bound."""
    return bound.base is Base.START and lowest(bound.offset) <= 0


def beyond_end(bound: Bound) -> bool:
    """Whether every key is before the bound, proved."""
    return never_above(Bound(Base.END, 1, 0), bound) or (bound.base is Base.START and lowest(bound.offset) >= LIMIT)


def tighten(band: Band) -> Band | None:
    """The same band without redundant parts; None if it is proved empty."""
    lower = _strongest([b for b in band.lower if not below_start(b)], never_above)
    upper = _strongest([b for b in band.upper if not beyond_end(b)], lambda x, y: never_above(y, x))
    first = _strongest(list(band.first_row), never_above)
    last = _strongest(list(band.last_row), lambda x, y: never_above(y, x))
    if any(never_above(up, lo) for up in upper for lo in (*lower, Bound(Base.START, 1, 0))):
        return None
    if any(never_above(up, lo) for up in last for lo in first):
        return None
    if any(lo.base is Base.START and lowest(lo.offset) >= LIMIT for lo in (*lower, *first)):
        return None
    congruences: tuple[Congruence, ...] | None = ()
    for congruence in band.congruences:
        congruences = _with_congruence(congruences, congruence)
        if congruences is None:
            return None
    lists, inputs = tuple(dict.fromkeys(band.lists)), tuple(dict.fromkeys(band.inputs))
    if any(replace(test, negated=not test.negated) in lists for test in lists):
        return None
    if any(replace(test, negated=not test.negated) in inputs for test in inputs):
        return None
    return replace(
        band,
        lower=lower,
        upper=upper,
        first_row=first,
        last_row=last,
        congruences=congruences or (),
        lists=lists,
        inputs=inputs,
    )


def _strongest(bounds: list[Bound], weaker: Callable[[Bound, Bound], bool]) -> tuple[Bound, ...]:
    """Bounds that no other one implies, the first of equals; weaker(x, y) says that y implies x."""
    kept: list[Bound] = []
    for bound in bounds:
        if any(weaker(bound, other) for other in kept):
            continue
        kept = [other for other in kept if not weaker(other, bound)]
        kept.append(bound)
    return tuple(sorted(kept, key=lambda b: (b.base.value, b.unit, lowest(b.offset))))


def _with_congruence(known: tuple[Congruence, ...] | None, new: Congruence) -> tuple[Congruence, ...] | None:
    """`known` and `new`; None if they contradict each other."""
    assert known is not None
    for n, old in enumerate(known):
        met = met_residues(old, new)
        if not met:
            return None
        if met == (old,):
            return known
        if len(met) == 1:
            return _with_congruence(known[:n] + known[n + 1 :], met[0])
    return tuple(sorted((*known, new), key=lambda c: (c.moving, c.unit, c.period, lowest(c.phase), c.width)))


def met_residues(a: Congruence, b: Congruence) -> tuple[Congruence, ...]:
    """What holds where both hold: nothing if they contradict each other, one congruence if one is found, or both."""
    if implies(a, b):
        return (a,)
    if implies(b, a):
        return (b,)
    if (a.unit, a.moving) == (b.unit, b.moving) and a.width == b.width == 1:
        solved = _solve(a, b)
        if solved is None or solved.period * solved.unit < LIMIT:
            return () if solved is None else (solved,)
    for long, short in ((a, b), (b, a)):
        steps, rest = divmod(long.unit, short.unit)
        if rest or long.period * steps % short.period or long.width * steps > short.period:
            continue
        if (finer := _in_smaller_units(long, short, steps)) is not None:
            overlaps = _overlap(finer, short)
            if len(overlaps) < 2:
                return overlaps
    return (a, b)


def _in_smaller_units(long: Congruence, short: Congruence, steps: int) -> Congruence | None:
    """`long`, counted in the units of `short`, `steps` of which are one of its own."""
    if long.moving != short.moving or (long.moving and steps > 1) or long.period * long.unit >= LIMIT:
        return None
    period, phase, width = (each * steps for each in (long.period, _phase(long), long.width))
    return replace(long, unit=short.unit, period=period, phase=phase, width=width)


def _solve(a: Congruence, b: Congruence) -> Congruence | None:
    """The Chinese remainder of two single residues."""
    divisor = gcd(a.period, b.period)
    distance = _phase(b) - _phase(a)
    if distance % divisor != 0:
        return None
    period = a.period // divisor * b.period
    steps = distance // divisor * pow(a.period // divisor, -1, b.period // divisor)
    return replace(a, period=period, phase=(_phase(a) + a.period * steps) % period)


def _overlap(a: Congruence, b: Congruence) -> tuple[Congruence, ...]:
    """The runs of residues common to a run of `a` and the runs of `b`, whose period divides that of `a` and is no
    shorter than the run: none, one or two."""
    start = (_phase(b) - _phase(a)) % b.period
    runs = []
    for first, stop in ((start, min(start + b.width, a.width)), (0, min(start + b.width - b.period, a.width))):
        if first < stop:
            runs.append(replace(a, phase=(_phase(a) + first) % a.period, width=stop - first))
    return tuple(runs)

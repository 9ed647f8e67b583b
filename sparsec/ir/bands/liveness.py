"""Bands of a KV group -> the regions of a cache that keeps every key which a later query may still need.

A key j is needed at time t iff some query i >= t of some head of the group may attend to it. Bounds never decrease in
i, so a band needs j for at most `reach` positions, from its lower bounds, or for ever.

Invariant: while a key is needed, the first region that holds it keeps it: regions come longest-lived first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsec.ir.bands.band import Asks, Band, Congruence
from sparsec.ir.bands.bounds import Base, Bound, never_above, query
from sparsec.ir.bands.normalise import implies


@dataclass(frozen=True, slots=True)
class Region:
    """The keys start <= j < stop that lie in `residue`; each is needed by queries i < j + reach (None: by any).

    `stop` None is no end, `residue` None every key; a residue of keys never moves with the query.
    """

    start: int
    stop: int | None
    residue: Congruence | None
    reach: int | None
    origin: str

    @property
    def grows(self) -> bool:
        """Whether a longer sequence always needs more of it."""
        return self.reach is None and self.stop is None


EVERYTHING = Region(0, None, None, None, "")


@dataclass(frozen=True, slots=True)
class Growth:
    """Why `origin` makes a cache keep keys that a query might not ask for: no closed form tells which."""

    origin: str
    reason: str

    def __str__(self) -> str:
        return f"`{self.origin}`: {self.reason}"


def is_causal(band: Band) -> bool:
    """Whether every pair of the band is proved to have j <= i."""
    if any(never_above(bound, query(1)) for bound in band.upper):
        return True
    return any(never_above(last, first) for last in band.upper for first in band.first_row)


def regions(bands: tuple[Band, ...]) -> tuple[tuple[Region, ...], tuple[Growth, ...]]:
    """The regions that causal `bands` (plain integers) need together, and where they grow for want of a closed form."""
    kept: list[Region] = []
    growth: list[Growth] = []
    for band in bands:
        region = region_of(band)
        if region is None:
            continue
        if region.grows and region.residue is None:
            growth += _reasons(band)
        kept = [old for old in kept if not _within(old, region)]
        if not any(_within(region, old) for old in kept):
            kept.append(region)
    growing = [region for region in kept if region.grows]
    if sum(map(_density, growing)) >= 1:
        whole = replace(EVERYTHING, start=min(region.start for region in growing))
        kept = [whole, *(region for region in kept if not _within(region, whole))]
    return tuple(sorted(kept, key=_lifetime)), tuple(dict.fromkeys(growth))


def region_of(band: Band) -> Region | None:
    """The region of one band; None if no query has a key in it."""
    start, stop, reach = 0, None, None
    for bound in band.lower:
        if bound.base is Base.START:
            start = max(start, _integer(bound))
        else:
            reach = min(reach or _reach(bound), _reach(bound))
    for bound in (*band.upper, *band.last_row):  # j <= i, so a last row is a last key
        if bound.base is Base.START:
            stop = min(_integer(bound) if stop is None else stop, _integer(bound))
    if (stop is not None and stop <= start) or (reach is not None and reach <= 0):
        return None
    fixed = [c for c in band.congruences if not c.moving]
    residue = min(fixed, key=lambda c: c.width / c.period, default=None)
    return Region(start, stop, residue, reach, band.origin)


def _reach(bound: Bound) -> int:
    """The most positions, the key's own included, over which the bound lets a query see a key at or before it."""
    if bound.base is Base.END:  # nk > i, so unit * ceil(nk / unit) > i
        return -_integer(bound)
    assert bound.shift == 0, "liveness comes before heads are grouped"
    return bound.unit - _integer(bound)


def _integer(bound: Bound) -> int:
    assert isinstance(bound.offset, int), "liveness comes before heads are grouped"
    return bound.offset


def _reasons(band: Band) -> list[Growth]:
    reasons = []
    if any(c.moving for c in band.congruences):
        reasons.append("every key is at the right distance from some later query")
    if band.lists:
        reasons.append("a later query may draw any block")
    named = [test.asks for test in band.inputs if not test.negated]
    if named:
        drops = " until `KVCache.keep` takes its mark away" if Asks.MARKED in named else ""
        reasons.append(f"an input may name any key{drops}")
    if any(bound.base is Base.END for bound in band.upper):
        reasons.append("a bound that counts back from the end reaches every key in time")
    return [Growth(band.origin, reason) for reason in reasons]


def _within(inner: Region, outer: Region) -> bool:
    """Whether `outer` keeps all that `inner` keeps, as long."""
    return (
        outer.start <= inner.start
        and (outer.stop is None or (inner.stop is not None and inner.stop <= outer.stop))
        and (outer.reach is None or (inner.reach is not None and inner.reach <= outer.reach))
        and (outer.residue is None or (inner.residue is not None and implies(inner.residue, outer.residue)))
    )


def _density(region: Region) -> float:
    return 1.0 if region.residue is None else region.residue.width / region.residue.period


def _lifetime(region: Region) -> tuple[bool, int, bool, int]:
    """Longest-lived first; among those kept for ever, first the ones that have an end."""
    return region.reach is not None, -(region.reach or 0), region.stop is None, region.start


def without_numbers(region: Region) -> Region:
    """The region's shape: what two groups must share to be served by one kernel."""
    residue = None if region.residue is None else replace(region.residue, phase=0)
    return Region(
        min(region.start, 1), None if region.stop is None else 0, residue, None if region.reach is None else 0, ""
    )

"""Bands and ranges of queries -> the keys that some of these queries may attend to, as stretches in closed form.

A band's bounds never decrease in i, so the queries first <= i < last look at no key before its lower bounds at `first`,
nor from its upper bounds at `last - 1` on. Residues of keys hold for all of them; a residue that moves with the query
widens by a block for each block of queries.
Invariant: a key that one of the queries may attend to is in a stretch, whatever inputs say; stretches are disjoint and
ascend.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd, lcm
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sparsec.ir.bands.band import Band, Congruence
from sparsec.ir.bands.bounds import Base, Bound
from sparsec.ir.bands.draws import drawn_blocks

PERIOD_LIMIT = 1 << 16
"""The most residues that a stretch tells apart; beyond, it has all of its keys."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Range = tuple[int, int]
"""Positions, half-open."""
_ALL: Bools = np.ones(1, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """The keys start <= j < stop for which `kept[j // unit % len(kept)]` holds."""

    start: int
    stop: int
    unit: int
    kept: Bools

    def same_keys(self, other: Stretch) -> bool:
        return self.unit == other.unit and np.array_equal(self.kept, other.kept)


Needs = tuple[Stretch, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Queries that see keys of one document: both half-open ranges of positions, and the position that counts as 0."""

    queries: Range
    keys: Range
    origin: int = 0


def needed(bands: Iterable[Band], pieces: Sequence[Piece]) -> Needs:
    """The keys that the queries of these pieces need by bands of plain integers."""
    found = [run for band in bands for each in pieces for run in _of_piece(band, each)]
    ends = sorted({end for run in found for end in (run.start, run.stop)})
    parts: list[Stretch] = []
    opening = sorted(found, key=lambda run: run.start)
    active: list[Stretch] = []
    at = 0
    for start, stop in pairwise(ends):
        while at < len(opening) and opening[at].start <= start:
            active.append(opening[at])
            at += 1
        active = [run for run in active if run.stop > start]
        if not active:
            continue
        part = _united(active, start, stop)
        if parts and parts[-1].stop == start and parts[-1].same_keys(part):
            part = Stretch(parts.pop().start, stop, part.unit, part.kept)
        parts.append(part)
    return tuple(parts)


def count_below(needs: Needs, positions: Ints) -> Ints:
    """How many of the keys lie below each position."""
    total = np.zeros_like(positions)
    for each in needs:
        total += _below(each, np.clip(positions, each.start, each.stop)) - _below(each, np.int64(each.start))
    return total


def keys_within(needs: Needs, between: Range) -> Ints:
    """The keys that lie in a range, ascending."""
    found = [np.empty(0, np.int64)]
    for each in needs:
        j = np.arange(max(each.start, between[0]), min(each.stop, between[1]), dtype=np.int64)
        found.append(j[each.kept[j // each.unit % len(each.kept)]])
    return np.concatenate(found)


def _below(stretch: Stretch, positions: Ints | np.int64) -> Ints:
    """The keys of the stretch's residues from 0 to each position, wherever the stretch lies."""
    before = np.concatenate([[0], np.cumsum(stretch.kept)])
    block, rest = positions // stretch.unit, positions % stretch.unit
    turns, place = block // len(stretch.kept), block % len(stretch.kept)
    whole = (turns * before[-1] + before[place]) * stretch.unit
    return np.asarray(whole + stretch.kept[place] * rest, np.int64)


def lowest_key(band: Band, queries: Range, n_keys: int) -> int:
    """The key below which each of these queries sees the same keys by the band: those of its residues, or none."""
    first, last = _rows_of(band, queries, n_keys)
    if first >= last:
        return n_keys
    if sees_alike_below(band, queries, n_keys):
        return min([n_keys, *(_value(bound, first, n_keys) for bound in band.upper if bound.base is Base.ROW)])
    low = max([0, *(_value(bound, first, n_keys) for bound in band.lower)])
    ends = [_value(bound, first, n_keys) for bound in band.upper if bound.base is not Base.ROW]
    return n_keys if min([n_keys, *ends]) <= low else low


def sees_alike_below(band: Band, queries: Range, n_keys: int) -> bool:
    """Whether the band's keys below its `lowest_key` are keys that each of these queries sees, and not none."""
    moving = any(bound.base is Base.ROW for bound in band.lower) or any(each.moving for each in band.congruences)
    return not (moving or band.lists or band.inputs) and _rows_of(band, queries, n_keys) == queries


def seen_by_all(bands: Iterable[Band], queries: Range, n_keys: int, below: int) -> Bools:
    """[below]: whether each of these queries sees a key by one of the bands, which `sees_alike_below`. `below`: at most
    the `lowest_key` of each."""
    seen = np.zeros(below, np.bool_)
    for band in bands:
        start = max([0, *(_value(bound, queries[0], n_keys) for bound in band.lower)])
        ends = [_value(bound, queries[0], n_keys) for bound in band.upper if bound.base is not Base.ROW]
        j = np.arange(start, max(start, min([below, *ends])))
        kept = np.ones(len(j), np.bool_)
        for residue in band.congruences:
            kept &= _residues(residue, queries)[j // residue.unit % residue.period]
        seen[j] |= kept
    return seen


def _rows_of(band: Band, queries: Range, n_keys: int) -> Range:
    """Those of the queries for which the band's row bounds hold."""
    first = max([queries[0], *(_value(bound, 0, n_keys) for bound in band.first_row)])
    return first, min([queries[1], *(_value(bound, 0, n_keys) for bound in band.last_row)])


def _of_piece(band: Band, piece: Piece) -> list[Stretch]:
    first, last, stop = (each - piece.origin for each in (*piece.queries, piece.keys[1]))
    found = []
    for run in _of_band(band, (first, last), stop):
        start, end = max(run.start + piece.origin, piece.keys[0]), run.stop + piece.origin
        if start < end:
            found.append(_shifted(run, piece.origin, (start, end)))
    return found


def _shifted(run: Stretch, by: int, between: Range) -> Stretch:
    """The run's keys, each so many positions later, between two positions."""
    if by == 0 or len(run.kept) == 1:
        return Stretch(*between, run.unit, run.kept)
    whole, rest = divmod(by, run.unit)
    if rest == 0:
        return Stretch(*between, run.unit, np.roll(run.kept, whole))
    if len(run.kept) * run.unit > PERIOD_LIMIT:
        return Stretch(*between, 1, _ALL)
    return Stretch(*between, 1, np.roll(np.repeat(run.kept, run.unit), by))


def _of_band(band: Band, queries: Range, n_keys: int) -> list[Stretch]:
    first, last = _rows_of(band, queries, n_keys)
    if first >= last:
        return []
    start = max([0, *(_value(bound, first, n_keys) for bound in band.lower)])
    stop = min([n_keys, *(_value(bound, last - 1, n_keys) for bound in band.upper)])
    if start >= stop:
        return []
    unit, kept = 1, _ALL
    for residue in band.congruences:
        both = _met(unit, kept, residue.unit, _residues(residue, (first, last)))
        if both is not None:
            unit, kept = both
    whole = Stretch(start, stop, unit, kept)
    drawn = [test.draws for test in band.lists if not test.negated]
    if not drawn:
        return [whole]
    draws = drawn[0]  # the keys of one list hold those of all together
    assert isinstance(draws.lane, int), "of plain integers"
    blocks = {
        block
        for row in range(first // draws.block, (last - 1) // draws.block + 1)
        for block in drawn_blocks(draws.count, draws.seed, draws.lane, row)
    }
    spans = ((max(start, block * draws.block), min(stop, (block + 1) * draws.block)) for block in blocks - {-1})
    return [Stretch(*span, unit, kept) for span in spans if span[0] < span[1]]


def _value(bound: Bound, position: int, n_keys: int) -> int:
    assert isinstance(bound.offset, int) and isinstance(bound.shift, int), "of plain integers"
    match bound.base:
        case Base.START:
            return bound.offset
        case Base.ROW:
            return (position + bound.shift) // bound.unit * bound.unit + bound.offset
        case Base.END:
            return -(-n_keys // bound.unit) * bound.unit + bound.offset


def _residues(residue: Congruence, queries: Range) -> Bools:
    """Of each residue of the key's block, whether some query sees it."""
    assert isinstance(residue.phase, int), "of plain integers"
    phase, width = residue.phase, residue.width
    if residue.moving:
        first, last = queries[0] // residue.unit, (queries[1] - 1) // residue.unit
        phase, width = phase + first, width + last - first
    kept: Bools = (np.arange(residue.period) - phase) % residue.period < width
    return kept


def _met(unit: int, kept: Bools, other_unit: int, other: Bools) -> tuple[int, Bools] | None:
    """The residues of both, as residues of a common unit; None if they are too many."""
    common = gcd(unit, other_unit)
    period = lcm(unit * len(kept), other_unit * len(other)) // common
    if period > PERIOD_LIMIT:
        return None
    j = np.arange(period) * common
    return _shortest(common, kept[j // unit % len(kept)] & other[j // other_unit % len(other)])


def _united(runs: Sequence[Stretch], start: int, stop: int) -> Stretch:
    """What the runs hold together between two positions, in each of which they all lie."""
    unit, kept = runs[0].unit, ~runs[0].kept
    for run in runs[1:]:
        both = _met(unit, kept, run.unit, ~run.kept)
        if both is None:
            return Stretch(start, stop, 1, _ALL)
        unit, kept = both
    return Stretch(start, stop, *_shortest(unit, ~kept))


def _shortest(unit: int, kept: Bools) -> tuple[int, Bools]:
    """All or nothing has one residue."""
    return (1, kept[:1]) if kept.all() or not kept.any() else (unit, kept)


T = TypeVar("T")


def kinds(of_each: Sequence[T]) -> tuple[tuple[T, ...], tuple[int, ...]]:
    """The distinct values, and of each place the number of its value among them."""
    number: dict[T, int] = {}
    of_place = tuple(number.setdefault(each, len(number)) for each in of_each)
    return tuple(number), of_place

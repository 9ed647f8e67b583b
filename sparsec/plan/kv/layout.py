"""Regions of each KV group -> the cache layout: how many slots a group has, and which slot holds which key.

A layer's arena has one row of slots for all groups: group after group, region after region, each of `capacity` slots
from `base`. A region numbers its keys densely (`index`); a ring takes the number modulo its capacity.

Invariant: two keys that are needed at one time never share a slot, and a needed key is in the slot that `slot` names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from operator import add
from typing import TypeVar

from sparsec.ir.bands.band import Congruence
from sparsec.ir.bands.bounds import Number, PerHead, number_expr
from sparsec.ir.bands.liveness import Growth, Region, without_numbers
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.ir.expr.nodes import ONE, TRUE, ZERO, Bool, Expr, Int, Var

NOWHERE = Int(-1)
KEY, STOP = Var("j"), Var("stop")
MAX_LEN, ROLLBACK = Var("max_len"), Var("rollback")
LENGTH, NEWEST, CAPACITY = Var("length"), Var("newest"), Var("capacity")

_Amount = TypeVar("_Amount")


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """The regions of each KV group, and why some grow (`growth`). Lengths and capacities count tokens."""

    groups: tuple[tuple[Region, ...], ...]
    growth: tuple[Growth, ...]

    @property
    def most_regions(self) -> int:
        """Of any group, at least 1; a kernel's table of places has so many of each: [kv_heads, regions, 2]."""
        return max(1, *(len(group) for group in self.groups))

    def capacities(self, max_len: int, rollback: int = 0) -> tuple[tuple[int, ...], ...]:
        """Slots of each region of each group, for sequences of up to `max_len` tokens.

        `rollback`: how many tokens may always be taken back (see `runtime.kv.cache`); rings have that many more slots.
        """
        return tuple(tuple(capacity(region, max_len, rollback) for region in group) for group in self.groups)

    def slots(self, max_len: int, rollback: int = 0) -> int:
        """Slots of all groups together: keys, and as many values, that one sequence's cache holds in a layer."""
        return sum(sum(group) for group in self.capacities(max_len, rollback))

    def places(self, max_len: int, rollback: int = 0) -> tuple[tuple[tuple[int, int], ...], ...]:
        """(base, capacity) of each region of each group: where it lies in the arena."""
        return laid_out(self.capacities(max_len, rollback), 0)

    def slot(self, group: int, key: int, max_len: int, rollback: int = 0) -> int | None:
        """The arena's slot for a key of a group, None if the group never keeps it."""
        found = slot_map(self.groups[group])
        values = place_names(self.places(max_len, rollback)[group]) | {"j": key}
        slot = evaluate(found.slot, values)
        return None if slot < 0 else slot

    def first_lost(self, length: int, newest: int, max_len: int, rollback: int = 0) -> int | None:
        """The first key that a sequence cut to `length` tokens needs and that has been overwritten by one of `newest`.

        None if it has all that it needs.
        """
        lost = []
        for group, places in zip(self.groups, self.places(max_len, rollback), strict=True):
            for region, (_, slots) in zip(group, places, strict=True):
                if region.reach is not None:
                    oldest = oldest_needed(region)
                    values = {LENGTH.name: length, NEWEST.name: newest, CAPACITY.name: slots}
                    if holds(oldest.lost, values):
                        lost.append(evaluate(oldest.key, values))
        return min(lost, default=None)


def laid_out(
    capacities: Iterable[tuple[_Amount, ...]], first: _Amount
) -> tuple[tuple[tuple[_Amount, _Amount], ...], ...]:
    """(base, capacity) of regions that lie group after group from slot `first` on; amounts are numbers or sums."""
    groups = tuple(capacities)
    bases = accumulate((slots for group in groups for slots in group), add, initial=first)
    return tuple(tuple((next(bases), slots) for slots in group) for group in groups)


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Where the keys of a group lie: expressions in the key j, and in base<n> and capacity<n> of each region n.

    `slot`: the slot of key j, -1 if no region holds it. `kept`: the slot to write key j to when the sequence is about
    to have `stop` tokens, -1 if a later one of them takes it or no region holds it. Either lies within a region
    whatever j is, so no key, not even one past the cache's greatest length, has an address out of bounds.
    """

    slot: Expr
    kept: Expr


def place_names(places: tuple[tuple[_Amount, _Amount], ...]) -> dict[str, _Amount]:
    """The values of the names that a SlotMap reads beside the key and constants."""
    names: dict[str, _Amount] = {}
    for n, (base, slots) in enumerate(places):
        names |= {f"base{n}": base, f"capacity{n}": slots}
    return names


def capacity(region: Region, max_len: int, rollback: int = 0) -> int:
    """The slots that a region needs: the keys it may hold at one time, among the first `max_len`."""
    return evaluate(capacity_expr(region), {MAX_LEN.name: max_len, ROLLBACK.name: rollback})


def capacity_expr(region: Region) -> Expr:
    """`capacity`, in MAX_LEN and ROLLBACK.

    A ring has at least one slot, since its keys' numbers are taken modulo that.
    """
    most = _index_end(region, MAX_LEN)
    if region.reach is None:
        return most
    reach = x.add(ROLLBACK, Int(region.reach))
    if region.residue is not None:
        c = region.residue
        period, run = Int(c.unit * c.period), Int(c.unit * c.width)
        periods, rest = x.floor_div(reach, period, nonneg=True), x.mod(reach, period, nonneg=True)
        reach = x.add(x.mul(periods, run), x.minimum(rest, run))
    return x.maximum(Int(1), x.minimum(reach, most))


def _index_end(region: Region, length: Expr) -> Expr:
    return _end(_numbers(region), x.maximum(Int(region.start), length))


@dataclass(frozen=True, slots=True)
class OldestNeeded:
    """Of a ring: `key`, the first that a query of a sequence cut to LENGTH tokens may ask for, and whether it is among
    those tokens and one of the NEWEST that the sequence has had has its slot, of CAPACITY (`lost`)."""

    key: Expr
    lost: Bool


def oldest_needed(region: Region) -> OldestNeeded:
    assert region.reach is not None
    key = needed_from(region, Int(region.start), x.add(LENGTH, ONE))
    overwritten = x.less(_index(_numbers(region), key), x.sub(_index_end(region, NEWEST), CAPACITY))
    return OldestNeeded(key, x.both(x.less(key, LENGTH), overwritten))


def needed_from(region: Region, first: Expr, stop: Expr) -> Expr:
    """The first key of the region from `first` on that a query at position `stop` - 1 or later may ask for.

    `first`: not before the region's start. A key past the region's end is none of its keys.
    """
    return needed_within(None if region.reach is None else Int(region.reach), region.residue, first, stop)


def needed_within(reach: Expr | None, residue: Congruence | None, first: Expr, stop: Expr) -> Expr:
    """`needed_from`, of a region with this reach and residue."""
    key = first if reach is None else x.maximum(first, x.sub(stop, reach))
    c = residue
    if c is None:
        return key
    unit, block = Int(c.unit), x.floor_div(key, Int(c.unit), nonneg=True)
    into = x.mod(x.sub(block, number_expr(c.phase)), Int(c.period))
    later = x.mul(x.sub(x.add(block, Int(c.period)), into), unit)
    return x.select(x.less(into, Int(c.width)), key, later)


@dataclass(frozen=True, slots=True)
class RegionNumbers:
    """A region whose numbers may vary over a class's groups; `skipped`: the residue's blocks before the first phase."""

    shape: Region
    start: Number
    stop: Number | None
    phase: Number
    skipped: Number


def _numbers(region: Region) -> RegionNumbers:
    c = region.residue
    if c is None:
        return RegionNumbers(region, region.start, region.stop, 0, 0)
    assert isinstance(c.phase, int)
    return RegionNumbers(region, region.start, region.stop, c.phase, max(0, c.phase + c.width - c.period))


def shape_of(group: tuple[Region, ...]) -> tuple[Region, ...]:
    """What groups must have in common to share a SlotMap."""
    return tuple(without_numbers(region) for region in group)


def shared_numbers(
    groups: tuple[tuple[Region, ...], ...],
) -> tuple[tuple[RegionNumbers, ...], tuple[tuple[str, tuple[int, ...]], ...]]:
    """The regions of groups of one shape; numbers that differ are constants s0, s1, ...: (name, one value a group)."""
    names: dict[tuple[int, ...], str] = {}

    def number(values: tuple[int, ...]) -> Number:
        if len(set(values)) == 1:
            return values[0]
        return PerHead(names.setdefault(values, f"s{len(names)}"), min(values), max(values))

    merged = []
    for column in zip(*groups, strict=True):
        own = [_numbers(region) for region in column]
        stops = tuple(int(each.stop) for each in own if isinstance(each.stop, int))
        merged.append(
            RegionNumbers(
                own[0].shape,
                number(tuple(_plain(each.start) for each in own)),
                number(stops) if stops else None,
                number(tuple(_plain(each.phase) for each in own)),
                number(tuple(_plain(each.skipped) for each in own)),
            )
        )
    return tuple(merged), tuple((name, values) for values, name in names.items())


def _plain(number: Number) -> int:
    assert isinstance(number, int)
    return number


def slot_map(group: tuple[Region, ...]) -> SlotMap:
    """The slots of one group, every number a literal."""
    return slot_map_of(tuple(_numbers(region) for region in group))


def slot_map_of(group: tuple[RegionNumbers, ...]) -> SlotMap:
    """The slots of groups that share their numbers' names."""
    slot: Expr = NOWHERE
    kept: Expr = NOWHERE
    for n, region in reversed(list(enumerate(group))):
        base, slots = Var(f"base{n}"), Var(f"capacity{n}")
        index, held = _index(region, KEY), _holds(region)
        if region.shape.reach is None:
            here = x.select(x.less(index, slots), x.add(base, index), NOWHERE)
            slot, kept = x.select(held, here, slot), x.select(held, here, kept)
        else:
            here = x.add(base, x.mod(index, slots, nonneg=True))
            lasting = x.at_most(x.sub(_end(region, STOP), slots), index)
            slot, kept = x.select(held, here, slot), x.select(held, x.select(lasting, here, NOWHERE), kept)
    return SlotMap(slot, kept)


def _holds(region: RegionNumbers) -> Bool:
    test: Bool = TRUE
    if region.start != 0:
        test = x.both(test, x.at_most(number_expr(region.start), KEY))
    if region.stop is not None:
        test = x.both(test, x.less(KEY, number_expr(region.stop)))
    c = region.shape.residue
    if c is not None:
        block = x.sub(x.floor_div(KEY, Int(c.unit), nonneg=True), number_expr(region.phase))
        test = x.both(test, x.less(x.mod(block, Int(c.period)), Int(c.width)))
    return test


def _index(region: RegionNumbers, key: Expr) -> Expr:
    """The key's number among the region's keys; only asked of a key that the region holds."""
    if region.shape.residue is None:
        return x.sub(key, number_expr(region.start))
    return _residue_index(region, key)


def _residue_index(region: RegionNumbers, key: Expr) -> Expr:
    c = region.shape.residue
    assert c is not None
    unit, period, width = Int(c.unit), Int(c.period), Int(c.width)
    block = x.sub(x.floor_div(key, unit, nonneg=True), number_expr(region.phase))
    run = ZERO if c.width == 1 else x.mod(block, period)
    blocks = x.add(x.add(x.mul(x.floor_div(block, period), width), run), number_expr(region.skipped))
    return x.add(x.mul(blocks, unit), x.mod(key, unit, nonneg=True))


def _end(region: RegionNumbers, stop: Expr) -> Expr:
    """One past the largest index among keys below `stop`."""
    if region.stop is not None:
        stop = x.minimum(stop, number_expr(region.stop))
    if region.shape.residue is None:
        return x.sub(stop, number_expr(region.start))
    return _residue_end(region, stop)


def _residue_end(region: RegionNumbers, stop: Expr) -> Expr:
    c = region.shape.residue
    assert c is not None
    unit, period, width = Int(c.unit), Int(c.period), Int(c.width)
    block = x.sub(x.floor_div(stop, unit, nonneg=True), number_expr(region.phase))
    run = x.mod(block, period)
    blocks = x.add(x.mul(x.floor_div(block, period), width), x.minimum(run, width))
    tokens = x.select(x.less(run, width), x.mod(stop, unit, nonneg=True), ZERO)
    return x.add(x.mul(x.add(blocks, number_expr(region.skipped)), unit), tokens)

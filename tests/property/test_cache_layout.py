"""The slot maps of drawn patterns, walked key by key: a key that a later query needs is where `slot` says it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import torch
from cached_patterns import causal_patterns
from hypothesis import example, given, note
from hypothesis import strategies as st
from vacuity import examples, wanted

from sparsec.ir.bands.liveness import EVERYTHING
from sparsec.ir.expr.evaluate import evaluate
from sparsec.pipeline import Lowered
from sparsec.plan.kv.layout import CacheLayout, SlotMap, place_names, slot_map
from sparsec.reference.mask import mask
from sparsec.sema import model as m
from sparsec.sema.model import ResolvedPattern
from sparsec.testing import sparse_text

PATTERNS = wanted(500, at_night=10_000)
STEPS = st.lists(st.sampled_from([1, 1, 2, 5, 30, 100]), min_size=1, max_size=12)


def needed_from(pattern: ResolvedPattern, group: int, length: int) -> torch.Tensor:
    """Bool [t, j]: whether a query at t or later, below `length`, attends to key j in some head of the group."""
    share = pattern.heads // pattern.kv_heads
    seen = mask(pattern, length, length)[group * share : (group + 1) * share].any(dim=0)
    return seen.flip(0).cummax(dim=0).values.flip(0)


@dataclass(eq=False)
class Walk:
    """One group's slots as a dictionary from slot to key, and the slots that belong to the group."""

    layout: CacheLayout
    group: int
    max_len: int
    rollback: int
    held: dict[int, int] = field(default_factory=dict)

    @cached_property
    def slots(self) -> SlotMap:
        return slot_map(self.layout.groups[self.group])

    @cached_property
    def names(self) -> dict[str, int]:
        return place_names(self.layout.places(self.max_len, self.rollback)[self.group])

    @cache  # noqa: B019  # a walk lives as long as an example
    def where(self, key: int) -> int:
        return evaluate(self.slots.slot, {**self.names, "j": key})

    def store(self, start: int, stop: int) -> None:
        """Writes keys start..stop as one call does; no two of them share a slot, and none leaves the group's slots."""
        places = self.layout.places(self.max_len, self.rollback)[self.group]
        written: dict[int, int] = {}
        for key in range(start, stop):
            slot = evaluate(self.slots.kept, {**self.names, "j": key, "stop": stop})
            if slot >= 0:
                assert any(base <= slot < base + slots for base, slots in places), f"key {key} goes to slot {slot}"
                assert slot not in written, f"keys {written[slot]} and {key} both go to slot {slot}"
                written[slot] = key
        self.held |= written

    def lost(self, needed: torch.Tensor) -> list[int]:
        """The needed keys that are not in their slots."""
        return [key for key in needed.nonzero().flatten().tolist() if self.held.get(self.where(key)) != key]


WINDOW_AND_STRIDE = ResolvedPattern(
    2,
    1,
    tuple(
        m.Intersection((m.Causal(), m.Union((m.Window(2, 0, True), m.Stride(4, phase, True), m.Sink(3, False)))))
        for phase in (3, 1)
    ),
    16,
    (),
    m.Documents.NONE,
    m.Score(),
)
STRIDE_IN_A_WINDOW = ResolvedPattern(
    1,
    1,
    (
        m.Union(
            (
                m.Window(20, 0, False),
                m.Intersection((m.Window(100, 0, False), m.Stride(7, 5, False))),
                m.Intersection((m.Causal(), m.Columns(m.Edge(8, False), m.Edge(11, False), False))),
            )
        ),
    ),
    16,
    (),
    m.Documents.NONE,
    m.Score(),
)


RUN_ACROSS_PERIODS = replace(
    STRIDE_IN_A_WINDOW,
    terms=(m.Intersection((m.Causal(), m.Union((m.Stride(4, 3, True), m.Stride(4, 0, True))))),),
)

LATE_COLUMNS = replace(
    STRIDE_IN_A_WINDOW,
    terms=(
        m.Intersection(
            (m.Causal(), m.Union((m.Columns(m.Edge(40, False), None, False), m.Window(9, 0, False), m.Sink(2, False))))
        ),
    ),
)


def test_needed_keys_stay_in_their_slots() -> None:
    seen: set[str] = set()
    evicting = 0

    @examples(PATTERNS * 6 // 5)
    @given(causal_patterns(), STEPS, st.integers(0, 20))
    @example(WINDOW_AND_STRIDE, [30, *[1] * 20, 100], 0)
    @example(STRIDE_IN_A_WINDOW, [1] * 40, 3)
    @example(LATE_COLUMNS, [1] * 90, 2)
    @example(RUN_ACROSS_PERIODS, [1] * 90, 2)
    def check(pattern: ResolvedPattern, steps: list[int], rollback: int) -> None:
        nonlocal evicting
        note(sparse_text(pattern))
        layout, length = Lowered(pattern).layout, min(sum(steps), 120)
        seen.add(sparse_text(pattern))
        assert layout.slots(length, rollback) == sum(sum(group) for group in layout.capacities(length, rollback))
        for group, kept in enumerate(layout.groups):
            evicting += kept not in ((), (EVERYTHING,))
            walk, needed, at = Walk(layout, group, length, rollback), needed_from(pattern, group, length), 0
            for step in steps:
                stop = min(at + step, length)
                walk.store(at, stop)
                at = stop
                if at < length:
                    assert not walk.lost(needed[at, :at]), f"group {group}, after {at} keys"
                    assert layout.first_lost(max(at - rollback - 1, 0), at, length, rollback) is None
                    _check_truncation(walk, needed, at)

    check()
    assert len(seen) >= PATTERNS and evicting >= PATTERNS / 5, (len(seen), evicting)


def _check_truncation(walk: Walk, needed: torch.Tensor, at: int) -> None:
    """Where `first_lost` finds nothing, nothing is lost; where it names a key, no needed one before it is."""
    for cut in (*range(0, at, 23), max(at - walk.rollback - 1, 0)):
        lost = walk.lost(needed[cut, :cut])
        named = walk.layout.first_lost(cut, at, walk.max_len, walk.rollback)
        assert not lost or (named is not None and named <= lost[0]), (cut, at, lost, named)


def test_keys_beyond_the_greatest_length_have_no_slot() -> None:
    late = m.Intersection((m.Window(20, 0, False), m.Columns(m.Edge(50, False), None, False)))
    for pattern in (WINDOW_AND_STRIDE, STRIDE_IN_A_WINDOW, replace(STRIDE_IN_A_WINDOW, terms=(late,))):
        layout = Lowered(pattern).layout
        found = slot_map(layout.groups[0])
        for max_len in (1, 15, 16, 17, 100):
            slots, names = layout.slots(max_len), place_names(layout.places(max_len)[0])
            for key in (*range(2 * max_len + 80), 1 << 29):
                assert -1 <= evaluate(found.slot, {**names, "j": key}) < slots
                assert -1 <= evaluate(found.kept, {**names, "j": key, "stop": key + 3}) < slots

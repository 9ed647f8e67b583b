"""Regions of each KV group -> the pages of a server's memory that no later query can need.

Page p holds the keys p * size .. p * size + size - 1 of one sequence, of all KV groups. Invariant: a page is dead iff
its keys are by `dead` of every region, those that are still to come included; kernels load no keys that are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sparsec.ir.bands.band import Congruence
from sparsec.ir.bands.bounds import Number, PerHead, number_expr
from sparsec.ir.bands.liveness import Region
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.evaluate import evaluate
from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.nodes import TRUE, Bool, Int, Var
from sparsec.plan.kernel import HeadClass
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.kv.layout import KEY, STOP, CacheLayout, needed_from, needed_within

END = Var("end")


def dead(region: Region) -> Bool:
    """Whether no query at position STOP - 1 or later may ask for one of the keys KEY .. END - 1 as the region's."""
    return dead_within(region.start, region.stop, region.reach, region.residue)


def dead_within(start: Number, stop: Number | None, reach: Number | None, residue: Congruence | None) -> Bool:
    """`dead`, of regions that differ in numbers alone."""
    end = END if stop is None else x.minimum(END, number_expr(stop))
    reached = None if reach is None else number_expr(reach)
    return x.at_most(end, needed_within(reached, residue, x.maximum(KEY, number_expr(start)), STOP))


HeadConstants = tuple[tuple[str, tuple[int, ...]], ...]
"""Names, and the values of the heads of a class."""


def with_dead_keys(plan: CachedPlan) -> CachedPlan:
    """The plan with constants of heads that say which keys are dead, in place of those that say where keys lie."""
    classes = []
    for of, slots in zip(plan.attend.classes, plan.slots, strict=True):
        kept = tuple(each for each in of.constants if each[0] not in names_in(slots.slot))
        classes.append(replace(of, constants=(*kept, *dead_of_class(plan, of)[1])))
    return replace(plan, attend=replace(plan.attend, classes=tuple(classes)))


def dead_of_class(plan: CachedPlan, of: HeadClass) -> tuple[Bool, HeadConstants]:
    """`dead_of_heads` of the heads of a class."""
    share = plan.attend.heads // plan.attend.kv_heads
    return dead_of_heads(tuple(plan.layout.groups[head // share] for head in of.heads))


def dead_of_heads(groups: tuple[tuple[Region, ...], ...]) -> tuple[Bool, HeadConstants]:
    """Whether keys are dead for the KV group of a head, of regions of one shape: of each head those of its group.

    Numbers that differ are constants dead0, dead1, ...: (name, one value a head).
    """
    names: dict[tuple[int, ...], str] = {}

    def number(values: Iterable[Number | None]) -> Number | None:
        found = tuple(value for value in values if isinstance(value, int))
        if len(set(found)) > 1:
            return PerHead(names.setdefault(found, f"dead{len(names)}"), min(found), max(found))
        return found[0] if found else None

    tests: dict[Bool, None] = {}
    for column in zip(*groups, strict=True):
        start, stop, reach = (number(getattr(region, name) for region in column) for name in ("start", "stop", "reach"))
        phase = number(region.residue.phase for region in column if region.residue is not None)
        residue = column[0].residue
        assert start is not None
        if residue is not None and phase is not None:
            residue = replace(residue, phase=phase)
        tests[dead_within(start, stop, reach, residue)] = None
    test: Bool = TRUE
    for each in tests:
        test = x.both(test, each)
    return test, tuple((name, values) for values, name in names.items())


def distinct(group: tuple[Region, ...]) -> tuple[Region, ...]:
    """The regions of a group, each once, without what they come from."""
    return tuple(dict.fromkeys(replace(region, origin="") for region in group))


def dead_pages(layout: CacheLayout, seq_len: int, page_size: int) -> list[range]:
    """The pages, of those of a sequence of `seq_len` tokens, that no query at position seq_len - 1 or later can need.

    In ascending order, each range as long as it can be. What it costs follows from the number of ranges, of the pages
    and of those that are not dead where a region has keys and gaps by turns.
    """
    regions = distinct(tuple(region for group in layout.groups for region in group))
    pages, page, found = -(-seq_len // page_size), 0, list[range]()
    while page < pages:
        asked = [(region, _asked(region, page * page_size, seq_len)) for region in regions]
        first = min((key // page_size for _, key in asked if key is not None), default=pages)
        if page < first:
            found.append(range(page, min(first, pages)))
        here = [(region, key) for region, key in asked if key is not None and key // page_size == first]
        page = max((_after(region, key, page_size, pages) for region, key in here), default=pages)
    return found


def _asked(region: Region, first: int, stop: int) -> int | None:
    """The first key of the region from `first` on that a query at position `stop` - 1 or later may ask for."""
    key = evaluate(needed_from(region, Int(max(first, region.start)), Int(stop)), {})
    return key if region.stop is None or key < region.stop else None


def _after(region: Region, key: int, page_size: int, pages: int) -> int:
    """The first page after that of `key`, asked for, that the region does not surely need."""
    c, here = region.residue, key // page_size
    if c is None:
        return pages if region.stop is None else -(-region.stop // page_size)
    if c.unit * (c.period - c.width) < page_size:  # every page has one of the keys, but the one where the region ends
        return pages if region.stop is None else max(here + 1, region.stop // page_size)
    assert isinstance(c.phase, int)
    block = key // c.unit
    end = (block + c.width - (block - c.phase) % c.period) * c.unit
    return -(-(end if region.stop is None else min(end, region.stop)) // page_size)

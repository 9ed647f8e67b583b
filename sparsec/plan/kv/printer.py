"""What a cache keeps -> text that a person reads: regions in words, the layout, the plans over it.

Invariant: equal layouts print equal text.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparsec.ir.bands.liveness import Region
from sparsec.ir.expr.printer import print_expr
from sparsec.plan.kv.cached import CachedPlan, GroupClass, store_classes
from sparsec.plan.kv.layout import CacheLayout, SlotMap, capacity
from sparsec.plan.printer import print_plan
from sparsec.sema.printer import head_ranges

SAMPLE_LENGTHS = (1000, 32_768, 131_072)
"""Lengths at which a printed layout counts its slots."""


def print_region(region: Region) -> str:
    """A region in words: `the latest 512 keys`, `1 of 16 blocks of 64 keys`."""
    c = region.residue
    keys = "every key"
    if c is not None:
        keys = f"{c.width} of every {c.period} {'keys' if c.unit == 1 else f'blocks of {c.unit} keys'}"
    if region.stop is not None:
        limit = f"keys {region.start}..{region.stop}" if region.start else f"the first {_keys(region.stop)}"
        keys = limit if c is None else f"{keys}, of {limit}"
    elif region.start:
        keys = f"{keys} from {region.start}"
    if region.reach is not None:
        keys = f"the latest {_keys(region.reach)}" if keys == "every key" else f"{keys}, of the latest {region.reach}"
    return keys


def _keys(number: int) -> str:
    return "key" if number == 1 else f"{number} keys"


def print_layout(layout: CacheLayout, group: int | None = None) -> str:
    """The regions and slots of KV groups that share a slot map; `group`: of those that share this one's."""
    parts = ["\n".join(_groups(layout, of)) for of in store_classes(layout) if group is None or group in of.groups]
    parts += [f"grows for {growth}" for growth in layout.growth]
    return "\n\n".join(parts) + "\n"


def _groups(layout: CacheLayout, of: GroupClass) -> Iterator[str]:
    yield f"KV groups {head_ranges(of.groups)}"
    yield from _constants(of.constants)
    for n, column in enumerate(zip(*(layout.groups[group] for group in of.groups), strict=True)):
        yield f"    region {n}: {' or '.join(dict.fromkeys(map(print_region, column)))}  # {column[0].origin}"
        yield f"        slots, by tokens: {', '.join(_slots_at(column, length) for length in SAMPLE_LENGTHS)}"
    yield from (_slot(of.slots), _kept(of.slots))


def _slots_at(column: tuple[Region, ...], length: int) -> str:
    counts = dict.fromkeys(capacity(region, length) for region in column)
    return f"{' or '.join(map(str, counts))} at {length}"


def print_cached(plan: CachedPlan, head: int | None = None) -> str:
    """A plan over a cache without its tile programs; `head`: with this head's class and KV group alone."""
    attend = plan.attend
    group = None if head is None else head // (attend.heads // attend.kv_heads)
    lines = [print_plan(attend, head), "# keys of the cache"]
    for of_class, slots in zip(attend.classes, plan.slots, strict=True):
        if head is None or head in of_class.heads:
            lines += [f"heads {head_ranges(of_class.heads)}", _slot(slots)]
    lines += ["", f"# new keys; a group has at most {plan.regions} region{'s' if plan.regions > 1 else ''}"]
    for of in plan.store:
        if group is None or group in of.groups:
            lines += [f"KV groups {head_ranges(of.groups)}", *_constants(of.constants), _kept(of.slots)]
    return "\n".join(lines) + "\n"


def _constants(constants: tuple[tuple[str, tuple[int, ...]], ...]) -> Iterator[str]:
    for name, values in constants:
        yield f"    {name} = [{', '.join(map(str, values))}]"


def _slot(slots: SlotMap) -> str:
    return f"    slot(j) = {print_expr(slots.slot)}"


def _kept(slots: SlotMap) -> str:
    return f"    kept(j, stop) = {print_expr(slots.kept)}"

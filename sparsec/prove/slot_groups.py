"""The plans over a KV cache -> its groups, as the kernels know them: slot maps with their constants, and who asks.

Invariant: every head of every plan belongs to one of them, with the map by which its kernel looks keys up.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.ir.bands.liveness import Region
from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.nodes import Expr
from sparsec.plan.kv.cached import CachedPlan
from sparsec.sema.model import ResolvedPattern, Term

Numbers = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SlotGroups:
    """The KV groups `members`: of equal regions, slot maps and constants, and the terms of their heads.

    `kept`: where keys are stored, for constants `stored`; `slot`: where they are looked up, for constants `read`.
    """

    regions: tuple[Region, ...]
    kept: Expr
    stored: Numbers
    slot: Expr
    read: Numbers
    members: tuple[int, ...]
    terms: tuple[Term, ...]


def slot_groups(pattern: ResolvedPattern, plans: tuple[CachedPlan, ...]) -> tuple[SlotGroups, ...]:
    found: dict[SlotGroups, tuple[dict[int, None], dict[Term, None]]] = {}
    for plan in plans:
        stored = {
            group: (kind.slots.kept, tuple((name, values[n]) for name, values in kind.constants))
            for kind in plan.store
            for n, group in enumerate(kind.groups)
        }
        for head_class, slots in zip(plan.attend.classes, plan.slots, strict=True):
            names = names_in(slots.slot)
            for n, head in enumerate(head_class.heads):
                group = head * pattern.kv_heads // pattern.heads
                read = tuple((name, values[n]) for name, values in head_class.constants if name in names)
                key = SlotGroups(plan.layout.groups[group], *stored[group], slots.slot, read, (), ())
                members, terms = found.setdefault(key, ({}, {}))
                members[group] = None
                terms[pattern.terms[head]] = None
    return tuple(
        SlotGroups(key.regions, key.kept, key.stored, key.slot, key.read, tuple(members), tuple(terms))
        for key, (members, terms) in found.items()
    )

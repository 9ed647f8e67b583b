"""Values for which a claim about a KV cache is said to fail -> whether it does, by the interpreter; and a picture.

Invariant: nothing here reads what the solver was asked; `ir.expr.evaluate` and the layout alone decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.ir.expr.nodes import Tree
from sparsec.plan.kv.layout import CacheLayout, place_names
from sparsec.plan.kv.pages import dead
from sparsec.prove.machine_integers import negative, wide
from sparsec.prove.slot_groups import SlotGroups
from sparsec.prove.supposed import Supposed
from sparsec.prove.tile_counterexample import is_meant

Values = Mapping[str, int]

_TRIED = 1 << 16
"""The most keys that are tried as the one that takes another's slot."""
_COLUMNS = 48


@dataclass(frozen=True, slots=True)
class SizedGroup:
    """A group of a cache of some length: where its keys lie."""

    groups: SlotGroups
    names: Values
    first: int
    end: int

    @staticmethod
    def of(layout: CacheLayout, groups: SlotGroups, values: Values) -> SizedGroup:
        """`values`: max_len, rollback and, where there are several groups, `group`."""
        group = values.get("group", groups.members[0])
        places = layout.places(values["max_len"], values["rollback"])[group]
        first, end = (places[0][0], sum(places[-1])) if places else (0, 0)
        return SizedGroup(groups, place_names(places), first, end)

    def slot(self, key: int) -> int:
        return evaluate(self.groups.slot, {**self.names, **dict(self.groups.read), "j": key})

    def maps(self, key: int, stop: int) -> Iterator[tuple[Tree, Values]]:
        """The expressions of `slot`, `kept` and `dead`, and the values of the names that they read."""
        for tree, numbers in ((self.groups.slot, self.groups.read), (self.groups.kept, self.groups.stored)):
            yield tree, {**self.names, **dict(numbers), "j": key, "stop": stop}
        yield from ((dead(region), {"j": key, "end": stop, "stop": stop}) for region in self.groups.regions)

    def kept(self, key: int, stop: int) -> int:
        return evaluate(self.groups.kept, {**self.names, **dict(self.groups.stored), "j": key, "stop": stop})


def fails(
    layout: CacheLayout, groups: SlotGroups, claim: str, values: Values, supposed: Supposed
) -> dict[str, int] | None:
    """The values at which the claim fails for the first of the groups, near the given ones; None if it holds there."""
    sized = SizedGroup.of(layout, groups, values)
    told = {"group": groups.members[0], **values}
    j, stop = values["j"], values["stop"]
    match claim:
        case "causality":
            return told if values["i"] < j < values["nk"] and _needed(groups, values, supposed) else None
        case "storage":
            asked = _asked(values) and _cut_a_little(values) and _needed(groups, values, supposed)
            return told if asked and not _stored(sized, values) else None
        case "injectivity":
            return _sharing(sized, told, supposed)
        case "truncation":
            return _cut_short(layout, sized, told, supposed)
        case "slots":
            strays = (slot for slot in (sized.slot(j), sized.kept(j, stop)) if slot >= 0)
            return told if any(not sized.first <= slot < sized.end for slot in strays) else None
        case "int32":
            return told if sized.end <= POSITION_LIMIT and any(wide(*each) for each in sized.maps(j, stop)) else None
        case "signs":
            return told if any(negative(*each) for each in sized.maps(j, stop)) else None
        case "pages":
            return told if _freed(groups, values, supposed) else None
        case "regions":
            return told if _overlap(layout, values) else None
    raise AssertionError(f"no claim is called {claim}")


def picture(layout: CacheLayout, slot_groups: tuple[SlotGroups, ...], values: Values, supposed: Supposed) -> str:
    """The keys around key j, `X`: which ones query i sees (`#`), and which have its slot (`=`); and where keys go."""
    groups = next(groups for groups in slot_groups if values["group"] in groups.members)
    sized, j = SizedGroup.of(layout, groups, values), values["j"]
    left = max(0, j - _COLUMNS // 4)
    seen = same = ""
    for key in range(left, left + _COLUMNS):
        mark = "#" if key < values["nk"] and _needed(groups, {**values, "j": key}, supposed) else "."
        seen += "X" if key == j and mark == "#" else mark
        same += "X" if key == j else "=" if sized.slot(key) == sized.slot(j) >= 0 else "."
    lines = [f"query {values['i']:>6}  {seen}", f"slot  {sized.slot(j):>6}  {same}"]
    stop, other = values["stop"], values["other"]
    stored = f"stored with key {stop - 1}, key {j} goes to slot {sized.kept(j, stop)}"
    lines.append(f"keys {left} .. {left + _COLUMNS - 1}; {stored}, key {other} to slot {sized.kept(other, stop)}")
    return "\n".join(lines)


def _needed(groups: SlotGroups, values: Values, supposed: Supposed) -> bool:
    return any(is_meant(values, term, supposed) for term in groups.terms)


def _asked(values: Values) -> bool:
    length, newest = values["length"], values["newest"]
    there = values["j"] < length <= values["i"] < values["nk"] <= values["max_len"]
    return there and length <= newest <= values["max_len"]


def _cut_a_little(values: Values) -> bool:
    return values["newest"] <= values["length"] + values["rollback"] + 1


def _stored(sized: SizedGroup, values: Values) -> bool:
    """Whether key j was stored where it is looked up; so it is said to be if no call stored it."""
    j, stop = values["j"], values["stop"]
    return not j < stop <= values["newest"] or 0 <= sized.slot(j) == sized.kept(j, stop)


def _sharing(sized: SizedGroup, values: dict[str, int], supposed: Supposed) -> dict[str, int] | None:
    """With another key that takes the slot of key j while it is needed, or in one call with it."""
    j, stop = values["j"], values["stop"]
    kept = sized.kept(j, stop)
    if kept >= 0 and stop <= values["max_len"]:
        for other in range(j + 1, min(stop, j + _TRIED)):
            if sized.kept(other, stop) == kept:
                return {**values, "other": other}
    return _overwritten(sized, values, supposed) if _cut_a_little(values) else None


def _overwritten(sized: SizedGroup, values: dict[str, int], supposed: Supposed) -> dict[str, int] | None:
    """With another key that has taken the slot of key j, which is needed."""
    j, slot = values["j"], sized.slot(values["j"])
    if slot >= 0 and _asked(values) and _needed(sized.groups, values, supposed):
        for other in range(j + 1, min(values["newest"], j + _TRIED)):
            if sized.kept(other, other + 1) == slot:
                return {**values, "other": other, "stop": other + 1}
    return None


def _cut_short(
    layout: CacheLayout, sized: SizedGroup, values: dict[str, int], supposed: Supposed
) -> dict[str, int] | None:
    """A needed key is lost and the cut is made, or a cut that is always possible is refused."""
    length, newest, max_len = values["length"], values["newest"], values["max_len"]
    if layout.first_lost(length, newest, max_len, values["rollback"]) is None:
        missed = _asked(values) and _needed(sized.groups, values, supposed) and not _stored(sized, values)
        return values if missed else _overwritten(sized, values, supposed)
    return values if length <= newest <= max_len and _cut_a_little(values) else None


def _freed(groups: SlotGroups, values: Values, supposed: Supposed) -> bool:
    """Whether a page that is dead has a key that a later query needs, or keys that are loaded."""
    if not values["first"] <= values["j"] < values["other"] <= values["end"]:
        return False
    page = all(holds(dead(region), {**values, "j": values["first"]}) for region in groups.regions)
    keys = all(holds(dead(region), {**values, "end": values["other"]}) for region in groups.regions)
    asked = values["stop"] <= values["i"] + 1 <= values["nk"] and _needed(groups, values, supposed)
    return page and (asked or not keys)


def _overlap(layout: CacheLayout, values: Values) -> bool:
    places = list(chain.from_iterable(layout.places(values["max_len"], values["rollback"])))
    taken = sorted((base, base + slots) for base, slots in places if slots)
    ends = [0, *(end for _, end in taken)]
    starts = [*(start for start, _ in taken), layout.slots(values["max_len"], values["rollback"])]
    return any(start < end for end, start in zip(ends, starts, strict=True))

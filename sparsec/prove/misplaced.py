"""Values for which a claim about a KV cache is said to fail -> whether it does, by the interpreter; and a picture.

Invariant: nothing here reads what the solver was asked; `ir.expr.nodes.evaluate` and the layout alone decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.expr.nodes import Expr, evaluate
from sparsec.plan.kv.layout import CacheLayout, place_names
from sparsec.prove.counterexample import is_meant
from sparsec.prove.integers import negative, wide
from sparsec.prove.shelves import Shelf

Values = Mapping[str, int]

_TRIED = 1 << 16
"""The most keys that are tried as the one that takes another's slot."""
_COLUMNS = 48


@dataclass(frozen=True, slots=True)
class Place:
    """A group of a cache of some length: where its keys lie."""

    shelf: Shelf
    names: Values
    first: int
    end: int

    @staticmethod
    def of(layout: CacheLayout, shelf: Shelf, values: Values) -> Place:
        """`values`: max_len, rollback and, where the shelf has several groups, `group`."""
        group = values.get("group", shelf.groups[0])
        places = layout.places(values["max_len"], values["rollback"])[group]
        first, end = (places[0][0], sum(places[-1])) if places else (0, 0)
        return Place(shelf, place_names(places), first, end)

    def slot(self, key: int) -> int:
        return evaluate(self.shelf.slot, {**self.names, **dict(self.shelf.read), "j": key})

    def maps(self, key: int, stop: int) -> Iterator[tuple[Expr, Values]]:
        """The expressions of `slot` and `kept`, and the values of the names that they read."""
        for tree, numbers in ((self.shelf.slot, self.shelf.read), (self.shelf.kept, self.shelf.stored)):
            yield tree, {**self.names, **dict(numbers), "j": key, "stop": stop}

    def kept(self, key: int, stop: int) -> int:
        return evaluate(self.shelf.kept, {**self.names, **dict(self.shelf.stored), "j": key, "stop": stop})


def fails(layout: CacheLayout, shelf: Shelf, claim: str, values: Values, block: int) -> dict[str, int] | None:
    """The values at which the claim fails for the shelf's first group, near the given ones; None if it holds there."""
    place = Place.of(layout, shelf, values)
    told = {"group": shelf.groups[0], **values}
    j, stop = values["j"], values["stop"]
    match claim:
        case "causality":
            return told if values["i"] < j < values["nk"] and _needed(shelf, values, block) else None
        case "storage":
            asked = _asked(values) and _cut_a_little(values) and _needed(shelf, values, block)
            return told if asked and not _stored(place, values) else None
        case "injectivity":
            return _sharing(place, told, block)
        case "truncation":
            return _cut_short(layout, place, told, block)
        case "slots":
            strays = (slot for slot in (place.slot(j), place.kept(j, stop)) if slot >= 0)
            return told if any(not place.first <= slot < place.end for slot in strays) else None
        case "int32":
            return told if place.end <= POSITION_LIMIT and any(wide(*each) for each in place.maps(j, stop)) else None
        case "signs":
            return told if any(negative(*each) for each in place.maps(j, stop)) else None
        case "regions":
            return told if _overlap(layout, values) else None
    raise AssertionError(f"no claim is called {claim}")


def picture(layout: CacheLayout, shelves: tuple[Shelf, ...], values: Values, block: int) -> str:
    """The keys around key j, `X`: which ones query i sees (`#`), and which have its slot (`=`); and where keys go."""
    shelf = next(shelf for shelf in shelves if values["group"] in shelf.groups)
    place, j = Place.of(layout, shelf, values), values["j"]
    left = max(0, j - _COLUMNS // 4)
    seen = same = ""
    for key in range(left, left + _COLUMNS):
        mark = "#" if key < values["nk"] and _needed(shelf, {**values, "j": key}, block) else "."
        seen += "X" if key == j and mark == "#" else mark
        same += "X" if key == j else "=" if place.slot(key) == place.slot(j) >= 0 else "."
    lines = [f"query {values['i']:>6}  {seen}", f"slot  {place.slot(j):>6}  {same}"]
    stop, other = values["stop"], values["other"]
    stored = f"stored with key {stop - 1}, key {j} goes to slot {place.kept(j, stop)}"
    lines.append(f"keys {left} .. {left + _COLUMNS - 1}; {stored}, key {other} to slot {place.kept(other, stop)}")
    return "\n".join(lines)


def _needed(shelf: Shelf, values: Values, block: int) -> bool:
    return any(is_meant(values, term, block) for term in shelf.terms)


def _asked(values: Values) -> bool:
    length, newest = values["length"], values["newest"]
    there = values["j"] < length <= values["i"] < values["nk"] <= values["max_len"]
    return there and length <= newest <= values["max_len"]


def _cut_a_little(values: Values) -> bool:
    return values["newest"] <= values["length"] + values["rollback"] + 1


def _stored(place: Place, values: Values) -> bool:
    """Whether key j was stored where it is looked up; so it is said to be if no call stored it."""
    j, stop = values["j"], values["stop"]
    return not j < stop <= values["newest"] or 0 <= place.slot(j) == place.kept(j, stop)


def _sharing(place: Place, values: dict[str, int], block: int) -> dict[str, int] | None:
    """With another key that takes the slot of key j while it is needed, or in one call with it."""
    j, stop = values["j"], values["stop"]
    kept = place.kept(j, stop)
    if kept >= 0 and stop <= values["max_len"]:
        for other in range(j + 1, min(stop, j + _TRIED)):
            if place.kept(other, stop) == kept:
                return {**values, "other": other}
    return _overwritten(place, values, block) if _cut_a_little(values) else None


def _overwritten(place: Place, values: dict[str, int], block: int) -> dict[str, int] | None:
    """With another key that has taken the slot of key j, which is needed."""
    j, slot = values["j"], place.slot(values["j"])
    if slot >= 0 and _asked(values) and _needed(place.shelf, values, block):
        for other in range(j + 1, min(values["newest"], j + _TRIED)):
            if place.kept(other, other + 1) == slot:
                return {**values, "other": other, "stop": other + 1}
    return None


def _cut_short(layout: CacheLayout, place: Place, values: dict[str, int], block: int) -> dict[str, int] | None:
    """A needed key is lost and the cut is made, or a cut that is always possible is refused."""
    length, newest, max_len = values["length"], values["newest"], values["max_len"]
    if layout.first_lost(length, newest, max_len, values["rollback"]) is None:
        missed = _asked(values) and _needed(place.shelf, values, block) and not _stored(place, values)
        return values if missed else _overwritten(place, values, block)
    return values if length <= newest <= max_len and _cut_a_little(values) else None


def _overlap(layout: CacheLayout, values: Values) -> bool:
    places = [place for group in layout.places(values["max_len"], values["rollback"]) for place in group]
    taken = sorted((base, base + slots) for base, slots in places if slots)
    ends = [0, *(end for _, end in taken)]
    starts = [*(start for start, _ in taken), layout.slots(values["max_len"], values["rollback"])]
    return any(start < end for end, start in zip(ends, starts, strict=True))

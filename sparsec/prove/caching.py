"""The plans over a KV cache -> claims about where keys lie, for all lengths, capacities and rollbacks.

One sequence: calls have stored `newest` tokens, the sequence was then cut to `length` ones (by at most `rollback` + 1,
or by more where `CacheLayout.first_lost` finds no key lost), and of the call at hand, which has nk tokens with its own,
query i asks for key j. Another key that was stored after j is `other`. A capacity is a linear form in max_len and
rollback; how a ring's remainder by it is stated, `linear.Space.wrapped` says. Slots, capacities and what is lost are
read from the trees that kernels and caches use. Invariant: whether a query needs a key is the language's formula of its
term; the layout has no say in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise, product

from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.bands.liveness import Region
from sparsec.ir.expr.nodes import Expr, Select
from sparsec.ir.printer import head_ranges
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.kv.layout import CAPACITY, CacheLayout, capacity_expr, laid_out, oldest_needed, place_names
from sparsec.prove import meaning, misplaced
from sparsec.prove.deciding import Claim, Subject, decide
from sparsec.prove.integers import integers_in, unsigned_in
from sparsec.prove.linear import Condition, Linear, Space, every, never, some
from sparsec.prove.questions import Failure, Question
from sparsec.prove.shelves import Shelf, shelves
from sparsec.prove.solve import Model, Solver
from sparsec.prove.stated import Scope
from sparsec.sema.model import ResolvedPattern

Choices = tuple[tuple[Condition, Linear], ...]

_LIMITS = {
    **dict.fromkeys(("i", "j", "other", "length", "newest", "nk", "stop", "rollback"), (0, POSITION_LIMIT - 1)),
    "max_len": (1, POSITION_LIMIT - 1),
    "base": (0, POSITION_LIMIT),
}


def prove_cache(
    pattern: ResolvedPattern, plans: tuple[CachedPlan, ...], *, timeout_s: float = 10.0
) -> tuple[Claim, ...]:
    """The claims about the cache of `plans`, which are all for one layout."""
    layout = plans[0].layout
    space = Space()
    at = Setting(space, {name: space.unknown(name, *ends) for name, ends in _LIMITS.items()}, pattern.block)
    found = shelves(pattern, plans)
    subject = Subject(
        f"KV cache; groups {head_ranges(tuple(range(pattern.kv_heads)))}",
        Solver(space),
        tuple(at.named.values()),
        lambda claim, model: _confirmed(at, layout, found, claim, model),
        lambda values: misplaced.picture(layout, found, values, pattern.block),
    )
    questions = (
        Question("causality", lambda: _ahead(at, found)),
        Question("storage", lambda: _not_stored(at, found)),
        Question("injectivity", lambda: _shared(at, found)),
        Question("truncation", lambda: _cut_short(at, found)),
        Question("slots", lambda: _outside(at, found)),
        Question("regions", lambda: _overlapping(at, layout)),
        Question("int32", lambda: _wide(at, found)),
        Question("signs", lambda: _negative_quotients(at, found)),
    )
    return tuple(decide(subject, question, timeout_s) for question in questions)


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """The unknowns of the module's docstring, and `stop`, the tokens there were with those of the call that stored."""

    space: Space
    named: dict[str, Linear]
    block: int

    def scope(self, numbers: tuple[tuple[str, int], ...], **more: Linear) -> Scope:
        return Scope(self.space, self.named | {name: Linear(value) for name, value in numbers} | more)

    def places(self, of: tuple[tuple[Region, ...], ...], base: Linear) -> tuple[tuple[tuple[Linear, Linear], ...], ...]:
        """(base, capacity) of the regions of some groups, from slot `base` on."""
        scope = self.scope(())
        return laid_out((tuple(scope.value(capacity_expr(region)) for region in group) for group in of), base)

    def place_names(self, shelf: Shelf) -> dict[str, Linear]:
        return place_names(self.places((shelf.regions,), self.named["base"])[0])

    def end(self, shelf: Shelf) -> Linear:
        """One past the group's last slot, the first being `base`."""
        return sum((slots for _, slots in self.places((shelf.regions,), self.named["base"])[0]), self.named["base"])

    def slot(self, shelf: Shelf) -> Choices:
        """Where kernels look for key j."""
        return _choices(self.scope(shelf.read, **self.place_names(shelf)), shelf.slot)

    def kept(self, shelf: Shelf, key: str) -> Choices:
        """Where the key is stored by a call after which there are `stop` tokens."""
        return _choices(self.scope(shelf.stored, **self.place_names(shelf), j=self.named[key]), shelf.kept)

    def maps(self, shelf: Shelf) -> Iterator[tuple[Expr, Scope]]:
        """The expressions of both, and the names that they read."""
        for tree, numbers in ((shelf.slot, shelf.read), (shelf.kept, shelf.stored)):
            yield tree, self.scope(numbers, **self.place_names(shelf))

    def needed(self, shelf: Shelf) -> Condition:
        """Whether query i of some head asks for key j."""
        i, j, n_keys = (self.named[name] for name in ("i", "j", "nk"))
        pair = meaning.Pair(self.space, i, j, n_keys, self.block, partial(meaning.free, self.space))
        return some(meaning.holds(term, pair) for term in shelf.terms)

    def ordered(self, *names: str) -> Condition:
        """Each number is less than the next."""
        return every(self.space.less(self.named[a], self.named[b]) for a, b in pairwise(names))

    def at_most(self, *names: str) -> Condition:
        return every(self.space.at_least(self.named[b], self.named[a]) for a, b in pairwise(names))

    @property
    def asked(self) -> Condition:
        """Key j is one of the cache's, and query i one of the call's."""
        return every(
            (
                self.ordered("j", "length"),
                self.at_most("length", "i"),
                self.ordered("i", "nk"),
                self.at_most("nk", "max_len"),
                self.at_most("length", "newest", "max_len"),
            )
        )

    @property
    def cut_a_little(self) -> Condition:
        """By at most `rollback` + 1 tokens."""
        return self.space.at_least((self.named["length"] + self.named["rollback"]).plus(1), self.named["newest"])

    def lost(self, shelf: Shelf) -> Condition:
        """Whether some ring has lost a key, as `truncate` asks before it cuts."""
        rings = zip(shelf.regions, self.places((shelf.regions,), self.named["base"])[0], strict=True)
        return some(
            self.scope((), **{CAPACITY.name: slots}).truth(oldest_needed(region).lost)
            for region, (_, slots) in rings
            if region.reach is not None
        )


def _choices(scope: Scope, tree: Expr) -> Choices:
    """(condition, value) of each end of nested choices: easier, one by one, than a value that may be any's."""
    if not isinstance(tree, Select):
        return ((every(()), scope.value(tree)),)
    test = scope.truth(tree.condition)
    branches = (test, _choices(scope, tree.then)), (never(test), _choices(scope, tree.other))
    return tuple((every((taken, more)), value) for taken, ends in branches for more, value in ends)


def _ahead(at: Setting, found: tuple[Shelf, ...]) -> Failure:
    """A query asks for a key after it, which may come in a later call."""
    given = at.ordered("i", "j", "nk")
    return Failure((given,), tuple(at.needed(shelf) for shelf in found))


def _not_stored(at: Setting, found: tuple[Shelf, ...]) -> Failure:
    """A needed key was not stored by the call that it came with, or in another slot than the one that is read."""
    missing = (every((at.needed(shelf), where)) for shelf in found for where in _missed(at, shelf))
    given = (at.asked, at.cut_a_little, at.ordered("j", "stop"), at.at_most("stop", "newest"))
    return Failure(given, tuple(missing))


def _missed(at: Setting, shelf: Shelf) -> Iterator[Condition]:
    """Key j was not stored in the slot in which it is looked up."""
    for (reading, slot), (storing, kept) in product(at.slot(shelf), at.kept(shelf, "j")):
        there = every((at.space.at_least(slot, Linear(0)), at.space.equal(slot, kept)))
        yield every((reading, storing, never(there)))


def _shared(at: Setting, found: tuple[Shelf, ...]) -> Failure:
    """A needed key's slot is given to a later one, or two keys of one call are stored in one slot."""
    common = []
    for shelf in found:
        asked = every((at.asked, at.cut_a_little, at.at_most("stop", "newest"), at.needed(shelf)))
        at_once = at.at_most("stop", "max_len")
        common += [every((asked, taken)) for taken in _taken(at, shelf, at.slot(shelf))]
        common += [every((at_once, taken)) for taken in _taken(at, shelf, at.kept(shelf, "j"))]
    return Failure((at.ordered("j", "other", "stop"),), tuple(common))


def _taken(at: Setting, shelf: Shelf, own: Choices) -> Iterator[Condition]:
    """The slot of `own` is the one in which the other key is stored."""
    for (here, slot), (there, other) in product(own, at.kept(shelf, "other")):
        yield every((here, there, at.space.at_least(slot, Linear(0)), at.space.equal(slot, other)))


def _cut_short(at: Setting, found: tuple[Shelf, ...]) -> Failure:
    """A sequence is cut by more tokens though a key that it needs is lost or was not kept, or cannot be cut by few."""
    wrong = []
    for shelf in found:
        lost, since = at.lost(shelf), at.at_most("stop", "newest")
        unseen = every((at.asked, since, at.needed(shelf), never(lost)))
        came, later = every((unseen, at.ordered("j", "stop"))), every((unseen, at.ordered("j", "other", "stop")))
        wrong += [every((came, missed)) for missed in _missed(at, shelf)]
        wrong += [every((later, taken)) for taken in _taken(at, shelf, at.slot(shelf))]
        wrong.append(every((at.at_most("length", "newest", "max_len"), at.cut_a_little, lost)))
    return Failure((), tuple(wrong))


def _outside(at: Setting, found: tuple[Shelf, ...]) -> Failure:
    """Some key, needed or not, has a slot that is neither negative nor the group's."""
    space, strays = at.space, []
    for shelf in found:
        end = at.end(shelf)
        for chosen, slot in (*at.slot(shelf), *at.kept(shelf, "j")):
            inside = some((space.less(slot, Linear(0)), space.within(slot, at.named["base"], end)))
            strays.append(every((chosen, never(inside))))
    return Failure((), tuple(strays))


def _overlapping(at: Setting, layout: CacheLayout) -> Failure:
    """A region begins before the one before it ends, or has no place among the cache's slots."""
    places = tuple(chain.from_iterable(at.places(layout.groups, Linear(0))))
    total = sum((slots for _, slots in places), Linear(0))
    ends = [Linear(0), *(base + slots for base, slots in places)]
    starts = [*(base for base, _ in places), total]
    wrong = [at.space.less(start, end) for end, start in zip(ends, starts, strict=True)]
    return Failure((), (*wrong, *(at.space.less(slots, Linear(0)) for _, slots in places)))


def _wide(at: Setting, found: tuple[Shelf, ...]) -> Failure:
    """A part of a slot's expression leaves int32, in a cache of at most 2**29 slots."""
    wide = []
    for shelf in found:
        room = at.space.at_least(Linear(POSITION_LIMIT), at.end(shelf))
        for tree, scope in at.maps(shelf):
            for value in dict.fromkeys(scope.value(node) for node in integers_in(tree)):
                low, high = at.space.range_of(value)
                if low < -(2**31) or high >= 2**31:
                    inside = at.space.within(value, Linear(-(2**31)), Linear(2**31))
                    wide.append(every((room, never(inside))))
    return Failure((), tuple(wide))


def _negative_quotients(at: Setting, found: tuple[Shelf, ...]) -> Failure:
    """A division of a slot's expression that is printed for values from 0 on divides a lesser one."""
    below = []
    for tree, scope in chain.from_iterable(map(at.maps, found)):
        for chosen, divided in unsigned_in(tree):
            below.append(every((*map(scope.truth, chosen), at.space.less(scope.value(divided), Linear(0)))))
    return Failure((), tuple(below))


def _confirmed(
    at: Setting, layout: CacheLayout, found: tuple[Shelf, ...], claim: str, model: Model
) -> dict[str, int] | None:
    """The values of the model, for the first group for which the claim fails."""
    values = {name: model.of(value) for name, value in at.named.items() if name != "base"}
    for n in range(len(found)):
        mine = misplaced.fails(layout, found[n], claim, values, at.block)
        if mine is not None:
            return mine
    return None

"""The plans over a KV cache -> obligations about where keys lie, for all lengths, capacities and rollbacks.

One sequence: calls have stored `newest` tokens, the sequence was then cut to `length` ones (by at most `rollback` + 1,
or by more where `CacheLayout.first_lost` finds no key lost), and of the call at hand, which has nk tokens with its own,
query i asks for key j. Another key that was stored after j is `other`. A capacity is a linear form in max_len and
rollback; how a ring's remainder by it is stated, `linear.Space.wrapped` says. Slots, capacities and what is lost are
read from the trees that kernels and caches use. Invariant: whether a query needs a key is the language's formula of its
term; the layout has no say in it.

Of a server's pages, one has the keys first .. end - 1, of which a kernel loads, or leaves out, those from j to other;
queries from position stop - 1 on are to come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise, product

from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.bands.liveness import Region
from sparsec.ir.expr.nodes import Expr, Select, Tree
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.kv.layout import CAPACITY, CacheLayout, capacity_expr, laid_out, oldest_needed, place_names
from sparsec.plan.kv.pages import dead
from sparsec.prove import cache_counterexample, meaning
from sparsec.prove.decide import Claim, Counterexample, ProofSubject, decide
from sparsec.prove.formulas import LinearScope
from sparsec.prove.linear import Condition, Linear, Space, every, never, some
from sparsec.prove.machine_integers import integers_in, unsigned_in
from sparsec.prove.obligations import Obligation, Query
from sparsec.prove.slot_groups import SlotGroups, slot_groups
from sparsec.prove.solve import Assignment, Solver
from sparsec.prove.supposed import Supposed, TiledPair, asks_of, tests_of
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.printer import head_ranges

Choices = tuple[tuple[Condition, Linear], ...]

_LIMITS = {
    **dict.fromkeys(("i", "j", "other", "length", "newest", "nk", "stop", "rollback"), (0, POSITION_LIMIT - 1)),
    "max_len": (1, POSITION_LIMIT - 1),
    **dict.fromkeys(("base", "first", "end"), (0, POSITION_LIMIT)),
}


def prove_cache(
    pattern: ResolvedPattern, plans: tuple[CachedPlan, ...], *, timeout_s: float = 10.0
) -> tuple[Claim, ...]:
    """The claims about the cache of `plans`, which are all for one layout."""
    layout = plans[0].layout
    space = Space()
    at = CacheSetting(space, {name: space.unknown(name, *ends) for name, ends in _LIMITS.items()}, pattern.block)
    found = slot_groups(pattern, plans)
    subject = ProofSubject(
        f"KV cache; groups {head_ranges(tuple(range(pattern.kv_heads)))}",
        Solver(space),
        tuple(at.named.values()),
        lambda claim, assigned: _confirmed(at, layout, found, claim, assigned, pattern),
    )
    obligations = (
        Obligation("causality", lambda: _ahead(at, found)),
        Obligation("storage", lambda: _not_stored(at, found)),
        Obligation("injectivity", lambda: _shared(at, found)),
        Obligation("truncation", lambda: _cut_short(at, found)),
        Obligation("slots", lambda: _outside(at, found)),
        Obligation("regions", lambda: _overlapping(at, layout)),
        Obligation("pages", lambda: _freed(at, found)),
        Obligation("int32", lambda: _wide(at, found)),
        Obligation("signs", lambda: _negative_quotients(at, found)),
    )
    return tuple(decide(subject, obligation, timeout_s) for obligation in obligations)


@dataclass(frozen=True, slots=True, eq=False)
class CacheSetting:
    """The unknowns of the module's docstring, and `stop`, the tokens there were with those of the call that stored."""

    space: Space
    named: dict[str, Linear]
    block: int

    def scope(self, numbers: tuple[tuple[str, int], ...], **more: Linear) -> LinearScope:
        return LinearScope(self.space, self.named | {name: Linear(value) for name, value in numbers} | more)

    def places(self, of: tuple[tuple[Region, ...], ...], base: Linear) -> tuple[tuple[tuple[Linear, Linear], ...], ...]:
        """(base, capacity) of the regions of some groups, from slot `base` on."""
        scope = self.scope(())
        return laid_out((tuple(scope.value(capacity_expr(region)) for region in group) for group in of), base)

    def place_names(self, groups: SlotGroups) -> dict[str, Linear]:
        return place_names(self.places((groups.regions,), self.named["base"])[0])

    def end(self, groups: SlotGroups) -> Linear:
        """One past the group's last slot, the first being `base`."""
        return sum((slots for _, slots in self.places((groups.regions,), self.named["base"])[0]), self.named["base"])

    def slot(self, groups: SlotGroups) -> Choices:
        """Where kernels look for key j."""
        return _choices(self.scope(groups.read, **self.place_names(groups)), groups.slot)

    def kept(self, groups: SlotGroups, key: str) -> Choices:
        """Where the key is stored by a call after which there are `stop` tokens."""
        return _choices(self.scope(groups.stored, **self.place_names(groups), j=self.named[key]), groups.kept)

    def maps(self, groups: SlotGroups) -> Iterator[tuple[Tree, LinearScope]]:
        """The expressions of both, those by which kernels leave keys of pages out, and the names that they read."""
        for tree, numbers in ((groups.slot, groups.read), (groups.kept, groups.stored)):
            yield tree, self.scope(numbers, **self.place_names(groups))
        yield from ((dead(region), self.scope(())) for region in groups.regions)

    def needed(self, groups: SlotGroups) -> Condition:
        """Whether query i of some head asks for key j."""
        i, j, n_keys = (self.named[name] for name in ("i", "j", "nk"))
        says = partial(meaning.free, self.space), partial(meaning.input_says, self.space)
        pair = meaning.Pair(self.space, i, j, n_keys, self.block, *says)
        return some(meaning.holds(term, pair) for term in groups.terms)

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

    def lost(self, groups: SlotGroups) -> Condition:
        """Whether some ring has lost a key, as `truncate` asks before it cuts."""
        rings = zip(groups.regions, self.places((groups.regions,), self.named["base"])[0], strict=True)
        return some(
            self.scope((), **{CAPACITY.name: slots}).truth(oldest_needed(region).lost)
            for region, (_, slots) in rings
            if region.reach is not None
        )


def _choices(scope: LinearScope, tree: Expr) -> Choices:
    """(condition, value) of each end of nested choices: easier, one by one, than a value that may be any's."""
    if not isinstance(tree, Select):
        return ((every(()), scope.value(tree)),)
    test = scope.truth(tree.condition)
    branches = (test, _choices(scope, tree.then)), (never(test), _choices(scope, tree.other))
    return tuple((every((taken, more)), value) for taken, ends in branches for more, value in ends)


def _ahead(at: CacheSetting, found: tuple[SlotGroups, ...]) -> Query:
    """A query asks for a key after it, which may come in a later call."""
    given = at.ordered("i", "j", "nk")
    return Query((given,), tuple(at.needed(groups) for groups in found))


def _not_stored(at: CacheSetting, found: tuple[SlotGroups, ...]) -> Query:
    """A needed key was not stored by the call that it came with, or in another slot than the one that is read."""
    missing = (every((at.needed(groups), where)) for groups in found for where in _missed(at, groups))
    given = (at.asked, at.cut_a_little, at.ordered("j", "stop"), at.at_most("stop", "newest"))
    return Query(given, tuple(missing))


def _missed(at: CacheSetting, groups: SlotGroups) -> Iterator[Condition]:
    """Key j was not stored in the slot in which it is looked up."""
    for (reading, slot), (storing, kept) in product(at.slot(groups), at.kept(groups, "j")):
        there = every((at.space.at_least(slot, Linear(0)), at.space.equal(slot, kept)))
        yield every((reading, storing, never(there)))


def _shared(at: CacheSetting, found: tuple[SlotGroups, ...]) -> Query:
    """A needed key's slot is given to a later one, or two keys of one call are stored in one slot."""
    common = []
    for groups in found:
        asked = every((at.asked, at.cut_a_little, at.at_most("stop", "newest"), at.needed(groups)))
        at_once = at.at_most("stop", "max_len")
        common += [every((asked, taken)) for taken in _taken(at, groups, at.slot(groups))]
        common += [every((at_once, taken)) for taken in _taken(at, groups, at.kept(groups, "j"))]
    return Query((at.ordered("j", "other", "stop"),), tuple(common))


def _taken(at: CacheSetting, groups: SlotGroups, own: Choices) -> Iterator[Condition]:
    """The slot of `own` is the one in which the other key is stored."""
    for (here, slot), (there, other) in product(own, at.kept(groups, "other")):
        yield every((here, there, at.space.at_least(slot, Linear(0)), at.space.equal(slot, other)))


def _cut_short(at: CacheSetting, found: tuple[SlotGroups, ...]) -> Query:
    """A sequence is cut by more tokens though a key that it needs is lost or was not kept, or cannot be cut by few."""
    wrong = []
    for groups in found:
        lost, since = at.lost(groups), at.at_most("stop", "newest")
        unseen = every((at.asked, since, at.needed(groups), never(lost)))
        came, later = every((unseen, at.ordered("j", "stop"))), every((unseen, at.ordered("j", "other", "stop")))
        wrong += [every((came, missed)) for missed in _missed(at, groups)]
        wrong += [every((later, taken)) for taken in _taken(at, groups, at.slot(groups))]
        wrong.append(every((at.at_most("length", "newest", "max_len"), at.cut_a_little, lost)))
    return Query((), tuple(wrong))


def _outside(at: CacheSetting, found: tuple[SlotGroups, ...]) -> Query:
    """Some key, needed or not, has a slot that is neither negative nor the group's."""
    space, strays = at.space, []
    for groups in found:
        end = at.end(groups)
        for chosen, slot in (*at.slot(groups), *at.kept(groups, "j")):
            inside = some((space.less(slot, Linear(0)), space.within(slot, at.named["base"], end)))
            strays.append(every((chosen, never(inside))))
    return Query((), tuple(strays))


def _overlapping(at: CacheSetting, layout: CacheLayout) -> Query:
    """A region begins before the one before it ends, or has no place among the cache's slots."""
    places = tuple(chain.from_iterable(at.places(layout.groups, Linear(0))))
    total = sum((slots for _, slots in places), Linear(0))
    ends = [Linear(0), *(base + slots for base, slots in places)]
    starts = [*(base for base, _ in places), total]
    wrong = [at.space.less(start, end) for end, start in zip(ends, starts, strict=True)]
    return Query((), (*wrong, *(at.space.less(slots, Linear(0)) for _, slots in places)))


def _freed(at: CacheSetting, found: tuple[SlotGroups, ...]) -> Query:
    """A later query asks for a key of a dead page, or a kernel loads some of its keys."""
    wrong = []
    for groups in found:
        page, keys = (
            every(at.scope((), j=at.named[first], end=at.named[end]).truth(dead(region)) for region in groups.regions)
            for first, end in (("first", "end"), ("j", "other"))
        )
        asked = every((at.space.at_least(at.named["i"].plus(1), at.named["stop"]), at.needed(groups)))
        wrong += [every((page, asked)), every((page, never(keys)))]
    given = (at.at_most("first", "j"), at.ordered("j", "other"), at.at_most("other", "end"), at.ordered("i", "nk"))
    return Query(given, tuple(wrong))


def _wide(at: CacheSetting, found: tuple[SlotGroups, ...]) -> Query:
    """A part of a slot's expression leaves int32, in a cache of at most 2**29 slots."""
    wide = []
    for groups in found:
        room = at.space.at_least(Linear(POSITION_LIMIT), at.end(groups))
        for tree, scope in at.maps(groups):
            for value in dict.fromkeys(scope.value(node) for node in integers_in(tree)):
                low, high = at.space.range_of(value)
                if low < -(2**31) or high >= 2**31:
                    inside = at.space.within(value, Linear(-(2**31)), Linear(2**31))
                    wide.append(every((room, never(inside))))
    return Query((), tuple(wide))


def _negative_quotients(at: CacheSetting, found: tuple[SlotGroups, ...]) -> Query:
    """A division of a slot's expression that is printed for values from 0 on divides a lesser one."""
    below = []
    for tree, scope in chain.from_iterable(map(at.maps, found)):
        for chosen, divided in unsigned_in(tree):
            below.append(every((*map(scope.truth, chosen), at.space.less(scope.value(divided), Linear(0)))))
    return Query((), tuple(below))


def _confirmed(
    at: CacheSetting,
    layout: CacheLayout,
    found: tuple[SlotGroups, ...],
    claim: str,
    assigned: Assignment,
    pattern: ResolvedPattern,
) -> Counterexample | None:
    """The values of the assignment, for the first group for which the claim fails."""
    values = {name: assigned.of(value) for name, value in at.named.items() if name != "base"}
    i, j = values["i"], values["j"]
    place = TiledPair(i, j, values["nk"], (i, i + 1), (j, j + 1))
    flags = {
        test: meaning.input_says(at.space, test.ordinal, asks_of(test))
        for ordinal, decl in enumerate(pattern.inputs)
        for test in tests_of(decl, ordinal, pattern.block)
    }
    asked = tuple(test for test, flag in flags.items() if flag.name in assigned.flags)
    supposed = Supposed(pattern.inputs, pattern.block)
    supposed = supposed.told(asked, lambda test, scope: assigned.holds(flags[test]), place)
    for groups in found:
        mine = cache_counterexample.fails(layout, groups, claim, values, supposed)
        if mine is not None:
            picture = cache_counterexample.picture(layout, found, mine, supposed)
            return Counterexample(mine, picture, supposed.lines())
    return None

"""The pairs of one head -> the fewest terms found whose union, within few others, is these pairs.

Invariant: a term that is found gives every pair that matters as it is; where none is found, the terms that explain the
most are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from sparsec.integrations.flex.evidence import PERIODS, Bools, Candidate, Ints, Square, Sums, candidates
from sparsec.sema import model
from sparsec.sema.model import Edge, Term
from sparsec.sema.terms import parts_of

BLOCKS = (64, 128, 32, 16, 256, 512, 1024)
"""Block sizes that are tried, in this order, where terms in tokens do not suffice."""
TERMS = 8
"""Terms of one union at most: more of them list the pairs, and say no rule."""
SIMPLE = 2
"""The cost of a term in tokens beside which no terms in blocks are tried."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Of one head. block: that the term's lengths in blocks count. wrong: bool [n, n], the pairs that it gives
    otherwise."""

    term: Term
    block: int | None
    wrong: Bools

    @property
    def exact(self) -> bool:
        return not self.wrong.any()


def fit_head(square: Square, blocks: tuple[int, ...] = BLOCKS) -> Fit:
    """The best fit; `blocks`: the block sizes to try."""
    seen = square.matters & square.seen
    if not (square.matters & ~square.seen).any():
        return Fit(model.Full(), None, np.zeros_like(seen))
    if not seen.any():
        return Fit(model.Nothing(), None, np.zeros_like(seen))
    offered: dict[int | None, list[Candidate]] = {None: list(candidates(square, None))}
    plain = _union(square, None, offered[None])
    if plain.exact and reading_cost(plain.term) <= SIMPLE:
        return plain
    fits: dict[int | None, Fit] = {None: plain}
    wanted = Sums(seen if plain.exact else plain.wrong)
    for block in (size for size in blocks if size * PERIODS < square.size):
        of_blocks = list(candidates(square, block))
        if any(wanted.within(each) for each in of_blocks):
            offered[block] = [*offered[None], *of_blocks]
            fits[block] = _union(square, block, offered[block])
    exact = [each for each in fits.values() if each.exact]
    if exact:
        return min(exact, key=lambda each: reading_cost(each.term))
    for size in fits:
        for found in _bounded(square, size):
            return found
    return min(fits.values(), key=lambda each: int(each.wrong.sum()))


def reading_cost(term: Term) -> int:
    """How much there is to read: leaves, with ranges that start or stop amid the sequence twice."""
    parts = parts_of(term)
    if parts:
        return sum(map(reading_cost, parts)) + (not isinstance(term, model.Union))
    return 2 if isinstance(term, model.Columns | model.Rows) and term.start is not None else 1


def _bounded(square: Square, block: int | None) -> Iterator[Fit]:
    """Exact fits: unions within bounds of what is seen, one bound at first; all but a union."""
    bounds = list(_bounds(square, block))
    for some in dict.fromkeys(
        (*((each,) for each in range(len(bounds))), *combinations(range(len(bounds)), 2), tuple(range(len(bounds))))
    ):
        if not some:
            continue
        inside = np.logical_and.reduce([bounds[each][1] for each in some])
        within = _union(replace(square, matters=square.matters & inside), block)
        if within.exact:
            parts = (*(bounds[each][0] for each in some), within.term)
            kept = tuple(part for part in parts if not isinstance(part, model.Full))
            yield replace(within, term=kept[0] if len(kept) == 1 else model.Intersection(kept))
    others = _union(replace(square, seen=~square.seen), block)
    if others.exact:
        yield replace(others, term=model.Complement(others.term))


def _union(square: Square, block: int | None, offered: Sequence[Candidate] | None = None) -> Fit:
    """Of the largest terms inside, the one that adds most first; then without those that the others make needless."""
    seen = square.matters & square.seen
    if not (square.matters & ~square.seen).any():
        return Fit(model.Full(), block, np.zeros_like(seen))
    if offered is None:
        offered = [*candidates(square, None), *(() if block is None else candidates(square, block))]
    left, taken = seen.copy(), list[Candidate]()
    while left.any() and len(taken) < TERMS:
        sums = Sums(left)
        gains = [sums.within(each) for each in offered]
        if not gains or max(gains) == 0:
            break
        best = offered[int(np.argmax(gains))]
        taken.append(best)
        left &= ~best.pairs(square)
    chosen = _tight(square, _needed(square, taken), left)
    term = _term_of(chosen)
    return Fit(term, block, left)


def _needed(square: Square, taken: list[Candidate]) -> list[Candidate]:
    """Without those whose pairs the others have, smallest first."""
    kept = list(taken)
    pairs = {id(each): each.pairs(square) & square.matters for each in taken}
    for each in reversed(taken):
        others = [pairs[id(other)] for other in kept if other is not each]
        if others and not (pairs[id(each)] & ~np.logical_or.reduce(others)).any():
            kept = [other for other in kept if other is not each]
    return kept


def _tight(square: Square, taken: list[Candidate], left: Bools) -> list[Candidate]:
    """Each run no longer than what the others leave to it."""
    kept = list(taken)
    for place, each in enumerate(kept):
        if each.run is None or each.of is None:
            continue
        others = [other.pairs(square) for other in kept if other is not each]
        needed = square.matters & square.seen & ~left
        if others:
            needed &= ~np.logical_or.reduce(others)
        places = Sums(needed).along(each.axis, each.unit).nonzero()[0]
        if len(places):
            kept[place] = each.within(int(places[0]), int(places[-1]) + 1)
    return kept


def _term_of(taken: list[Candidate]) -> Term:
    terms = [each.term for each in sorted(taken, key=_order)]
    for sink in [each for each in terms if isinstance(each, model.Sink)]:
        rows = model.Rows(None, Edge(sink.n, False), sink.blocks) if isinstance(sink.n, int) else None
        if rows in terms and isinstance(sink.n, int):
            terms = [each for each in terms if each not in (sink, rows)] + [model.Global(sink.n, sink.blocks)]
    if not terms:
        return model.Nothing()
    return terms[0] if len(terms) == 1 else model.Union(tuple(terms))


def _order(each: Candidate) -> tuple[int, int, int, int]:
    """Prefixes first, then runs, then residues, as people write them."""
    kinds = ("column", "row", "distance", "chunk")
    return each.run is None, kinds.index(each.axis), each.unit, each.phase


def _bounds(square: Square, block: int | None) -> Iterator[tuple[Term, Bools]]:
    """Terms outside of which nothing that matters is seen, and which leave something out."""
    seen = square.matters & square.seen
    here, sums, _ = square.sums
    found: list[Candidate] = []
    for unit in (1, *(() if block is None else (block,))):
        for axis in ("distance", "column", "row"):
            there, along = here.along(axis, unit) > 0, sums.along(axis, unit) > 0
            places, every = along.nonzero()[0], there.nonzero()[0]
            first = int(every[0]) if axis == "distance" else 0
            low = int(places[0]) if places[0] > every[0] else first
            high = int(places[-1]) + 1 if places[-1] < every[-1] else len(along)
            of = np.zeros_like(along)
            of[low:high] = True
            found.append(Candidate(axis, unit, unit > 1, of, (low, high)))
            if axis != "row":
                shift = len(along) // 2 if axis == "distance" else 0
                residue = _only_residue(np.arange(len(along)) - shift, along, (len(along) - shift) // PERIODS)
                if residue is not None:
                    place = np.arange(len(along)) - shift
                    found.append(Candidate(axis, unit, unit > 1, place % residue[0] == residue[1], None, *residue))
    for unit in range(2, square.size // 2 + 1):
        tiles = sums.tiles(unit)
        below = int(np.tril(tiles).sum())
        if below < int(seen.sum()):
            continue
        back = max(each for each in range(len(tiles)) if tiles.trace(-each))
        if (back + 2) * unit < square.size:
            found.append(Candidate("chunk", unit, False, back=back))
    chunks = sorted((each for each in found if each.of is None), key=lambda each: int(here.within(each)))[:1]
    for each in (*(one for one in found if one.of is not None), *chunks):
        pairs = each.pairs(square)
        if (square.matters & ~pairs).any():
            yield each.term, pairs


def _only_residue(place: Ints, along: Bools, most: int) -> tuple[int, int] | None:
    """The largest period of which all places that are seen have one residue."""
    places = place[along]
    if len(places) < 2:
        return None
    period = int(np.gcd.reduce(places - places[0]))
    return (period, int(places[0] % period)) if 2 <= period <= most else None


def below_diagonal(term: Term) -> Term:
    """The term as it reads within `causal`."""
    match term:
        case model.Causal():
            return model.Full()
        case model.Difference(model.Causal(), right):
            return model.Complement(right)
        case model.Union(terms):
            return model.Union(tuple(map(below_diagonal, terms)))
        case model.Intersection(terms):
            return model.Intersection(tuple(map(below_diagonal, terms)))
        case model.Complement(model.Complement(inner)):
            return inner
        case _:
            return term

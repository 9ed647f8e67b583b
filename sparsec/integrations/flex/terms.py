"""Term trees of all heads -> one test of pairs, as a FlexAttention user would write it.

Invariant: a test is built from the terms alone: numbers that differ between heads become tensors indexed by the head;
nothing of the IR or the plan is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sparsec.diagnostics.model import SparsecError
from sparsec.integrations.flex.inputs import CallPlace, input_test, length_number
from sparsec.ir.bands.draws import split_mix
from sparsec.sema import model
from sparsec.sema.model import ResolvedPattern, Term
from sparsec.sema.terms import parts_of

_Number = int | Tensor
WholeTest = Callable[[Tensor, Tensor, Tensor, Tensor, _Number], Tensor]
"""(b, h, i, j, n): whether the query at i of head h, in sequence b, may see the key at j of n."""
_OfHead = Callable[[Tensor, Tensor], _Number]
"""(b, h): a number that a term has in sequence b and head h."""


class FlexUnavailable(SparsecError):
    """FlexAttention does not run this case here; the message is its own reason, in one line."""


@dataclass(frozen=True, slots=True)
class PairPlace:
    """Where a test is for: the call, the device of its tensors, and the inputs with what they hold."""

    call: CallPlace
    device: torch.device
    inputs: tuple[model.InputDecl, ...]
    given: tuple[tuple[Tensor, ...], ...]


def whole_test(pattern: ResolvedPattern, place: PairPlace) -> WholeTest:
    """The test of every head, documents aside."""
    groups: dict[object, list[int]] = {}
    for head, term in enumerate(pattern.terms):
        groups.setdefault(term_shape(term), []).append(head)
    tests: list[WholeTest] = []
    for heads in groups.values():
        # A head of another group borrows this group's first term: its own test decides.
        members = [pattern.terms[head if head in heads else heads[0]] for head in range(pattern.heads)]
        tests.append(_test(members, place))
    if len(tests) == 1:
        return tests[0]
    of_head = torch.zeros(pattern.heads, dtype=torch.int64)
    for ordinal, heads in enumerate(groups.values()):
        of_head[heads] = ordinal
    of_head = of_head.to(place.device)

    def chosen(b: Tensor, h: Tensor, i: Tensor, j: Tensor, n: _Number) -> Tensor:
        group = of_head[h]
        found = (group == 0) & tests[0](b, h, i, j, n)
        for ordinal, test in enumerate(tests[1:], 1):
            found = found | ((group == ordinal) & test(b, h, i, j, n))
        return found

    return chosen


def term_shape(term: Term) -> object:
    """What two terms share if they differ in numbers alone."""
    match term:
        case model.At(inner):
            return term_shape(inner)
        case model.Union(terms) | model.Intersection(terms):
            return (type(term), *map(term_shape, terms))
        case model.Difference(left, right):
            return (type(term), term_shape(left), term_shape(right))
        case model.Complement(inner):
            return (type(term), term_shape(inner))
        case model.Input(ordinal):
            return (type(term), ordinal)
        case _:
            return (type(term), *(_kind(getattr(term, field.name)) for field in fields(term)))


def _kind(value: object) -> object:
    match value:
        case bool():
            return value
        case model.Edge(_, from_end):
            return (model.Edge, from_end)
        case model.RunTimeLength():
            return value
    return type(value)


def _test(terms: Sequence[Term], place: PairPlace) -> WholeTest:
    """The test of one tree shape; `terms` holds one term for each head."""
    terms = [term.term if isinstance(term, model.At) else term for term in terms]
    first = terms[0]
    if any(isinstance(term, model.At) for term in terms):
        return _test(terms, place)

    def number(values: Sequence[int | model.RunTimeLength]) -> _OfHead:
        return _number(values, place)

    def of(name: str) -> _OfHead:
        return number([getattr(term, name) for term in terms])

    unit = place.call.block if getattr(first, "blocks", False) else 1
    match first:
        case model.Full():
            return lambda b, h, i, j, _: j >= 0
        case model.Nothing():
            return lambda b, h, i, j, _: j < 0
        case model.Causal():
            return lambda b, h, i, j, _: j <= i
        case model.Window():
            n, ahead = of("n"), of("ahead")
            if isinstance(first.n, model.RunTimeLength):  # 0 empties it, whatever is ahead
                return lambda b, h, i, j, _: (i - j < n(b, h)) & (j - i <= ahead(b, h)) & (n(b, h) > 0)
            return lambda b, h, i, j, _: (i // unit - j // unit < n(b, h)) & (j // unit - i // unit <= ahead(b, h))
        case model.Sink():
            n = of("n")
            return lambda b, h, i, j, _: j // unit < n(b, h)
        case model.Stride():
            period, phase = of("period"), of("phase")
            return lambda b, h, i, j, _: j // unit % period(b, h) == phase(b, h)
        case model.Dilated():
            period, phase = of("period"), of("phase")
            return lambda b, h, i, j, _: (i // unit - j // unit) % period(b, h) == phase(b, h)
        case model.Chunk():
            n, back, ahead = of("n"), of("back"), of("ahead")
            return lambda b, h, i, j, _: (
                (i // n(b, h) - j // n(b, h) >= -ahead(b, h)) & (i // n(b, h) - j // n(b, h) <= back(b, h))
            )
        case model.Near2d():
            width, up, across = of("width"), of("rows"), of("columns")
            return lambda b, h, i, j, _: (
                (abs(i // width(b, h) - j // width(b, h)) <= up(b, h))
                & (abs(i % width(b, h) - j % width(b, h)) <= across(b, h))
            )
        case model.Columns() | model.Rows():
            start, stop = (
                _end([getattr(term, name) for term in terms], unit, number, default)
                for name, default in (("start", -(1 << 31)), ("stop", 1 << 31))
            )
            rows, last = isinstance(first, model.Rows), first.stop
            if isinstance(last, model.RunTimeLength):  # 0 empties it, wherever it starts
                return lambda b, h, i, j, n: (
                    ((i if rows else j) >= start(b, h, n)) & ((i if rows else j) < stop(b, h, n)) & (stop(b, h, n) > 0)
                )
            return lambda b, h, i, j, n: (
                ((i if rows else j) // unit >= start(b, h, n)) & ((i if rows else j) // unit < stop(b, h, n))
            )
        case model.Global():
            n = of("n")
            return lambda b, h, i, j, _: (i // unit < n(b, h)) | (j // unit < n(b, h))
        case model.Random():
            table = _draws(terms, place)
            return lambda b, h, i, j, _: (
                table[h, (i // place.call.block).clamp(0, table.shape[1] - 1), j // place.call.block] & (i >= 0)
            )
        case model.Union() | model.Intersection():
            parts = [_test(same, place) for same in zip(*(parts_of(term) for term in terms), strict=True)]
            union = isinstance(first, model.Union)

            def combined(b: Tensor, h: Tensor, i: Tensor, j: Tensor, n: _Number) -> Tensor:
                found = parts[0](b, h, i, j, n)
                for part in parts[1:]:
                    found = found | part(b, h, i, j, n) if union else found & part(b, h, i, j, n)
                return found

            return combined
        case model.Difference():
            left, right = (_test(same, place) for same in zip(*(parts_of(term) for term in terms), strict=True))
            return lambda b, h, i, j, n: left(b, h, i, j, n) & ~right(b, h, i, j, n)
        case model.Complement():
            inner = _test([term for part in terms for term in parts_of(part)], place)
            return lambda b, h, i, j, n: ~inner(b, h, i, j, n)
        case model.Input(ordinal):
            listed = input_test(place.inputs[ordinal], place.given[ordinal], place.call)
            return lambda b, h, i, j, _: listed(b, h, i, j)
    raise FlexUnavailable(f"{type(first).__name__.lower()} terms have no test here")


def _number(values: Sequence[int | model.RunTimeLength], place: PairPlace) -> _OfHead:
    """Of heads that have one length in common, or each a number of its own."""
    first = values[0]
    if isinstance(first, model.RunTimeLength):
        return length_number(place.given[first.ordinal], place.call)
    if len(set(values)) == 1:
        return lambda b, h: first
    table = torch.tensor(values, dtype=torch.int64, device=place.device)
    return lambda b, h: table[h]


def _end(
    edges: Sequence[model.Edge | model.RunTimeLength | None],
    unit: int,
    number: Callable[[Sequence[int | model.RunTimeLength]], _OfHead],
    default: int,
) -> Callable[[Tensor, Tensor, _Number], _Number]:
    """Where a range starts or stops, in units, given the sequence, the head and the number of keys."""
    at = number([edge.at if isinstance(edge, model.Edge) else default if edge is None else edge for edge in edges])
    if not isinstance(edges[0], model.Edge) or not edges[0].from_end:
        return lambda b, h, n: at(b, h)
    return lambda b, h, n: at(b, h) + -(-n // unit)


def _draws(terms: Sequence[Term], place: PairPlace) -> Tensor:
    """Bool [heads, query blocks, key blocks]: the blocks that a random term draws."""
    blocks = -(-place.call.n_k // place.call.block)
    table = torch.zeros((len(terms), blocks, blocks), dtype=torch.bool)
    known: dict[Term, int] = {}
    for head, term in enumerate(terms):
        assert isinstance(term, model.Random), "heads of one shape have one kind of term"
        if known.setdefault(term, head) != head:
            table[head] = table[known[term]]
            continue
        for query in range(blocks):
            for t in range(term.k):
                table[head, query, split_mix(term.seed, term.lane, query, t) % (query + 1)] = True
    return table.to(place.device)


def needs_length(pattern: ResolvedPattern) -> bool:
    """Whether a test needs to know how many keys there are: a bound counts back, blocks are drawn, or inputs given."""
    return bool(pattern.inputs) or any(map(_of_length, set(pattern.terms)))


def _of_length(term: Term) -> bool:
    match term:
        case model.Random():
            return True
        case model.Columns(start, stop) | model.Rows(start, stop):
            return any(isinstance(edge, model.Edge) and edge.from_end for edge in (start, stop))
        case _:
            return any(map(_of_length, parts_of(term)))

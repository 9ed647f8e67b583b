"""Checked pattern -> FlexAttention: the same set as a `mask_mod`, its score, and the compiled call over its block mask.

Invariant: the `mask_mod` is built from the terms alone, as a FlexAttention user would write it: numbers that differ
between heads become tensors indexed by the head; nothing of the IR or the plan is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, assert_never

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError, SparsecError
from sparsec.integrations.flex_inputs import CallPlace, input_test, length_number
from sparsec.ir.bands.draws import split_mix
from sparsec.reference.parts import InputTensors
from sparsec.sema import model
from sparsec.sema.inputs import settled
from sparsec.sema.model import Documents, ResolvedPattern, Term
from sparsec.sema.modifiers import Alibi, KeyBias, LearnedSink, Modifier, Softcap
from sparsec.sema.terms import parts_of

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
_Number = int | Tensor
_Test = Callable[[Tensor, Tensor, Tensor, Tensor, _Number], Tensor]
"""(b, h, i, j, n): whether the query at i of head h, in sequence b, may see the key at j of n."""
_OfHead = Callable[[Tensor, Tensor], _Number]
"""(b, h): a number that a term has in sequence b and head h."""


class FlexUnavailable(SparsecError):
    """FlexAttention does not run this case here; the message is its own reason, in one line."""


@dataclass(frozen=True, slots=True)
class Flex:
    """A compiled FlexAttention call, and what makes its block mask once more; the seconds that both took at first."""

    call: Callable[[], Tensor]
    build: Callable[[], object]
    compile_seconds: float


def compile_flex(
    pattern: ResolvedPattern,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block: int = 128,
    inputs: Mapping[str, InputTensors] | None = None,
) -> Flex:
    """FlexAttention under torch.compile on q [B, H, Nq, D] and k, v [B, G, Nk, D]. Raises FlexUnavailable.

    block: of its block mask, in tokens; below its own 128, the forward kernel's tiles are made to fit.
    `documents` are taken to be one that fills the sequence; a learned sink is left out.
    """
    from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

    started = time.perf_counter()
    try:
        tensors = [t for value in (inputs or {}).values() for t in _pair(value)]
        alike = len(set(pattern.terms)) == 1 and all(t.dim() < 3 or t.shape[1] == 1 for t in tensors)
        bounds = None if pattern.documents is Documents.NONE else (0, k.shape[2])

        live = mask_mod(pattern, q.shape[2], k.shape[2], q.device, cu_seqlens=bounds, inputs=inputs)

        def build() -> BlockMask:
            return create_block_mask(
                live,
                max((len(t) for t in tensors), default=1) if tensors else None,
                None if alike else pattern.heads,
                q.shape[2],
                k.shape[2],
                device=str(q.device),
                BLOCK_SIZE=block,
                _compile=True,
            )

        mask = build()
        attend: Any = torch.compile(flex_attention, dynamic=False)
        scale, shared = pattern.score.scale, pattern.kv_heads < pattern.heads
        bend = score_mod(pattern, k.shape[2] - q.shape[2], q.device, inputs=inputs)
        tiles = {"fwd_BLOCK_M": block, "fwd_BLOCK_N": block, "fwd_num_warps": 4} if block < 128 else None

        def call() -> Tensor:
            out: Tensor = attend(
                q, k, v, score_mod=bend, block_mask=mask, scale=scale, enable_gqa=shared, kernel_options=tiles
            )
            return out

        call()
    except Exception as error:  # torch.compile fails in many ways: no compiler, an unsupported shape, its own defects
        raise FlexUnavailable(in_one_line(error)) from error
    return Flex(call, build, time.perf_counter() - started)


def in_one_line(error: BaseException) -> str:
    """Its type and the first line of what it says, at most 200 characters."""
    reason = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {reason}"[:200]


def score_mod(
    pattern: ResolvedPattern, q_offset: int, device: torch.device, *, inputs: Mapping[str, InputTensors] | None = None
) -> ScoreMod | None:
    """What changes the score of a pair, queries starting at q_offset; None if nothing does."""
    given = {decl.name: _pair((inputs or {})[decl.name])[0] for decl in pattern.inputs if inputs}
    made = (_bend(each, pattern, q_offset, device, given) for each in pattern.score.modifiers)
    bends = [bend for bend in made if bend is not None]
    if len(bends) < 2:
        return bends[0] if bends else None
    first, *others = bends

    def bent(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        score = first(score, b, h, q, kv)
        for bend in others:
            score = bend(score, b, h, q, kv)
        return score

    return bent


def _bend(
    modifier: Modifier, pattern: ResolvedPattern, q_offset: int, device: torch.device, given: Mapping[str, Tensor]
) -> ScoreMod | None:
    heads = pattern.heads
    match modifier:
        case Softcap(x):
            return lambda score, b, h, q, kv: x * torch.tanh(score / x)
        case Alibi():
            slopes = torch.tensor(modifier.of_heads(heads), dtype=torch.float32, device=device)
            return lambda score, b, h, q, kv: score - slopes[h] * (q + q_offset - kv).abs()
        case KeyBias(ordinal):
            weights = given[pattern.inputs[ordinal].name]
            batch, of_heads = weights.shape[:2]
            return lambda score, b, h, q, kv: (
                score + weights[b if batch > 1 else 0, h * of_heads // heads if of_heads > 1 else 0, kv]
            )
        case LearnedSink():  # of a row, not of a pair: FlexAttention runs without
            return None
        case _:
            assert_never(modifier)


def mask_mod(
    pattern: ResolvedPattern,
    n_q: int,
    n_k: int,
    device: torch.device,
    *,
    cu_seqlens: Sequence[int] | None = None,
    inputs: Mapping[str, InputTensors] | None = None,
) -> MaskMod:
    """The set of `pattern` for n_q queries, the last of which sees the last of n_k keys.

    cu_seqlens: where the documents start, and n_k last. inputs: on `device`, checked. Raises CallError unless
    cu_seqlens is given for patterns with documents, whose n_q is n_k, and for no others; FlexUnavailable for inputs
    that the pattern lacks, and for those of documents that restart.
    """
    if (cu_seqlens is None) != (pattern.documents is Documents.NONE):
        raise CallError("expected cu_seqlens for patterns with documents and for no others")
    if pattern.inputs and (inputs is None or (pattern.documents is Documents.RESTART and len(cu_seqlens or ()) > 2)):
        raise FlexUnavailable("a set with inputs is known only at run time, and of one document")
    at = CallPlace(pattern.heads, n_k - n_q, n_q, n_k, pattern.block)
    given = tuple(_pair((inputs or {})[decl.name]) for decl in pattern.inputs)
    whole = _whole(pattern, _Place(at, device, settled(pattern.inputs, pattern.block), given))
    if cu_seqlens is None:
        return lambda b, h, q, kv: whole(b, h, q + (n_k - n_q), kv, n_k)
    if n_q != n_k or list(cu_seqlens) != sorted(cu_seqlens) or cu_seqlens[0] != 0 or cu_seqlens[-1] != n_k:
        raise CallError(f"expected n_q = n_k, and cu_seqlens from 0 up to it, got {n_q}, {n_k} and {list(cu_seqlens)}")
    bounds = torch.tensor(cu_seqlens, dtype=torch.int64)
    document = torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff()).to(device)
    if pattern.documents is Documents.SEPARATE:
        return lambda b, h, q, kv: (document[q] == document[kv]) & whole(b, h, q, kv, n_k)
    starts, sizes = bounds[:-1].to(device), bounds.diff().to(device)

    def restarted(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        own, other = document[q], document[kv]
        return (own == other) & whole(b, h, q - starts[own], kv - starts[other], sizes[own])

    return restarted


def _pair(value: InputTensors) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def _whole(pattern: ResolvedPattern, place: _Place) -> _Test:
    """The test of every head, documents aside."""
    groups: dict[object, list[int]] = {}
    for head, term in enumerate(pattern.terms):
        groups.setdefault(_shape(term), []).append(head)
    tests: list[_Test] = []
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


@dataclass(frozen=True, slots=True)
class _Place:
    call: CallPlace
    device: torch.device
    inputs: tuple[model.InputDecl, ...]
    given: tuple[tuple[Tensor, ...], ...]


def _shape(term: Term) -> object:
    """What two terms share if they differ in numbers alone."""
    match term:
        case model.At(inner):
            return _shape(inner)
        case model.Union(terms) | model.Intersection(terms):
            return (type(term), *map(_shape, terms))
        case model.Difference(left, right):
            return (type(term), _shape(left), _shape(right))
        case model.Complement(inner):
            return (type(term), _shape(inner))
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


def _test(terms: Sequence[Term], place: _Place) -> _Test:
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
            n, back = of("n"), of("back")
            return lambda b, h, i, j, _: (
                (i // n(b, h) - j // n(b, h) >= 0) & (i // n(b, h) - j // n(b, h) <= back(b, h))
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


def _number(values: Sequence[int | model.RunTimeLength], place: _Place) -> _OfHead:
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


def _draws(terms: Sequence[Term], place: _Place) -> Tensor:
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

"""Checked pattern -> FlexAttention: the same set as a `mask_mod`, its score, and the compiled call over its block mask.

Invariant: the `mask_mod` is built from the terms alone, as a FlexAttention user would write it: numbers that differ
between heads become tensors indexed by the head; nothing of the IR or the plan is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, assert_never

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError, SparsecError
from sparsec.ir.bands.draws import split_mix
from sparsec.sema import model
from sparsec.sema.model import Documents, ResolvedPattern, Term
from sparsec.sema.modifiers import Alibi, KeyBias, LearnedSink, Modifier, Softcap
from sparsec.sema.terms import parts_of

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
_Number = int | Tensor
_Test = Callable[[Tensor, Tensor, Tensor, _Number], Tensor]
"""(h, i, j, n): whether the query at i of head h may see the key at j of n."""


class FlexUnavailable(SparsecError):
    """FlexAttention does not run this case here; the message is its own reason, in one line."""


@dataclass(frozen=True, slots=True)
class Flex:
    """A compiled FlexAttention call and the seconds that its block mask and its first run took."""

    call: Callable[[], Tensor]
    compile_seconds: float


def compile_flex(pattern: ResolvedPattern, q: Tensor, k: Tensor, v: Tensor, *, block: int = 128) -> Flex:
    """FlexAttention under torch.compile on q [B, H, Nq, D] and k, v [B, G, Nk, D]. Raises FlexUnavailable.

    block: of its block mask, in tokens; below its own 128, the forward kernel's tiles are made to fit.
    `documents` are taken to be one that fills the sequence; a learned sink is left out.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    started = time.perf_counter()
    try:
        alike = len(set(pattern.terms)) == 1
        bounds = None if pattern.documents is Documents.NONE else (0, k.shape[2])
        mask = create_block_mask(
            mask_mod(pattern, q.shape[2], k.shape[2], q.device, cu_seqlens=bounds),
            None,
            None if alike else pattern.heads,
            q.shape[2],
            k.shape[2],
            device=str(q.device),
            BLOCK_SIZE=block,
            _compile=True,
        )
        attend: Any = torch.compile(flex_attention, dynamic=False)
        scale, shared = pattern.score.scale, pattern.kv_heads < pattern.heads
        bend = score_mod(pattern, k.shape[2] - q.shape[2], q.device)
        tiles = {"fwd_BLOCK_M": block, "fwd_BLOCK_N": block, "fwd_num_warps": 4} if block < 128 else None

        def call() -> Tensor:
            out: Tensor = attend(
                q, k, v, score_mod=bend, block_mask=mask, scale=scale, enable_gqa=shared, kernel_options=tiles
            )
            return out

        call()
    except Exception as error:  # torch.compile fails in many ways: no compiler, an unsupported shape, its own defects
        raise FlexUnavailable(in_one_line(error)) from error
    return Flex(call, time.perf_counter() - started)


def in_one_line(error: BaseException) -> str:
    """Its type and the first line of what it says, at most 200 characters."""
    reason = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {reason}"[:200]


def score_mod(pattern: ResolvedPattern, q_offset: int, device: torch.device) -> ScoreMod | None:
    """What changes the score of a pair, queries starting at q_offset; None if nothing does."""
    bends = [bend for each in pattern.score.modifiers if (bend := _bend(each, pattern.heads, q_offset, device))]
    if len(bends) < 2:
        return bends[0] if bends else None
    first, *others = bends

    def bent(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        score = first(score, b, h, q, kv)
        for bend in others:
            score = bend(score, b, h, q, kv)
        return score

    return bent


def _bend(modifier: Modifier, heads: int, q_offset: int, device: torch.device) -> ScoreMod | None:
    match modifier:
        case Softcap(x):
            return lambda score, b, h, q, kv: x * torch.tanh(score / x)
        case Alibi():
            slopes = torch.tensor(modifier.of_heads(heads), dtype=torch.float32, device=device)
            return lambda score, b, h, q, kv: score - slopes[h] * (q + q_offset - kv).abs()
        case KeyBias():
            raise CallError("expected a score without `key_bias` for FlexAttention, got one that has it")
        case LearnedSink():  # of a row, not of a pair: FlexAttention runs without
            return None
        case _:
            assert_never(modifier)


def mask_mod(
    pattern: ResolvedPattern, n_q: int, n_k: int, device: torch.device, *, cu_seqlens: Sequence[int] | None = None
) -> MaskMod:
    """The set of `pattern` for n_q queries, the last of which sees the last of n_k keys.

    cu_seqlens: where the documents start, and n_k last. Raises CallError unless it is given for patterns with
    documents, whose n_q is n_k, and for no others.
    """
    if (cu_seqlens is None) != (pattern.documents is Documents.NONE):
        raise CallError("expected cu_seqlens for patterns with documents and for no others")
    whole = _whole(pattern, _Place(n_k, pattern.block, device))
    if cu_seqlens is None:
        return lambda b, h, q, kv: whole(h, q + (n_k - n_q), kv, n_k)
    if n_q != n_k or list(cu_seqlens) != sorted(cu_seqlens) or cu_seqlens[0] != 0 or cu_seqlens[-1] != n_k:
        raise CallError(f"expected n_q = n_k, and cu_seqlens from 0 up to it, got {n_q}, {n_k} and {list(cu_seqlens)}")
    bounds = torch.tensor(cu_seqlens, dtype=torch.int64)
    document = torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff()).to(device)
    if pattern.documents is Documents.SEPARATE:
        return lambda b, h, q, kv: (document[q] == document[kv]) & whole(h, q, kv, n_k)
    starts, sizes = bounds[:-1].to(device), bounds.diff().to(device)

    def restarted(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        own, other = document[q], document[kv]
        return (own == other) & whole(h, q - starts[own], kv - starts[other], sizes[own])

    return restarted


def _whole(pattern: ResolvedPattern, place: _Place) -> _Test:
    """The test of every head, documents aside."""
    groups: dict[object, list[int]] = {}
    for head, term in enumerate(pattern.terms):
        groups.setdefault(_shape(term), []).append(head)
    tests = []
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

    def chosen(h: Tensor, i: Tensor, j: Tensor, n: _Number) -> Tensor:
        group = of_head[h]
        found = (group == 0) & tests[0](h, i, j, n)
        for ordinal, test in enumerate(tests[1:], 1):
            found = found | ((group == ordinal) & test(h, i, j, n))
        return found

    return chosen


@dataclass(frozen=True, slots=True)
class _Place:
    n_k: int
    block: int
    device: torch.device


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
        case _:
            return (type(term), *(_kind(getattr(term, field.name)) for field in fields(term)))


def _kind(value: object) -> object:
    match value:
        case bool():
            return value
        case model.Edge(_, from_end):
            return (model.Edge, from_end)
    return type(value)


def _test(terms: Sequence[Term], place: _Place) -> _Test:
    """The test of one tree shape; `terms` holds one term for each head."""
    terms = [term.term if isinstance(term, model.At) else term for term in terms]
    first = terms[0]
    if any(isinstance(term, model.At) for term in terms):
        return _test(terms, place)

    def number(values: Sequence[int]) -> Callable[[Tensor], _Number]:
        if len(set(values)) == 1:
            constant = values[0]
            return lambda h: constant
        table = torch.tensor(values, dtype=torch.int64, device=place.device)
        return lambda h: table[h]

    def of(name: str) -> Callable[[Tensor], _Number]:
        return number([getattr(term, name) for term in terms])

    unit = place.block if getattr(first, "blocks", False) else 1
    match first:
        case model.Full():
            return lambda h, i, j, _: j >= 0
        case model.Nothing():
            return lambda h, i, j, _: j < 0
        case model.Causal():
            return lambda h, i, j, _: j <= i
        case model.Window():
            n, ahead = of("n"), of("ahead")
            return lambda h, i, j, _: (i // unit - j // unit < n(h)) & (j // unit - i // unit <= ahead(h))
        case model.Sink():
            n = of("n")
            return lambda h, i, j, _: j // unit < n(h)
        case model.Stride():
            period, phase = of("period"), of("phase")
            return lambda h, i, j, _: j // unit % period(h) == phase(h)
        case model.Dilated():
            period, phase = of("period"), of("phase")
            return lambda h, i, j, _: (i // unit - j // unit) % period(h) == phase(h)
        case model.Chunk():
            n, back = of("n"), of("back")
            return lambda h, i, j, _: (i // n(h) - j // n(h) >= 0) & (i // n(h) - j // n(h) <= back(h))
        case model.Columns() | model.Rows():
            start, stop = (
                _end([getattr(term, name) for term in terms], unit, number, default)
                for name, default in (("start", -(1 << 31)), ("stop", 1 << 31))
            )
            rows = isinstance(first, model.Rows)
            return lambda h, i, j, n: (
                ((i if rows else j) // unit >= start(h, n)) & ((i if rows else j) // unit < stop(h, n))
            )
        case model.Global():
            n = of("n")
            return lambda h, i, j, _: (i // unit < n(h)) | (j // unit < n(h))
        case model.Random():
            table = _draws(terms, place)
            return lambda h, i, j, _: (
                table[h, (i // place.block).clamp(0, table.shape[1] - 1), j // place.block] & (i >= 0)
            )
        case model.Union() | model.Intersection():
            parts = [_test(same, place) for same in zip(*(parts_of(term) for term in terms), strict=True)]
            union = isinstance(first, model.Union)

            def combined(h: Tensor, i: Tensor, j: Tensor, n: _Number) -> Tensor:
                found = parts[0](h, i, j, n)
                for part in parts[1:]:
                    found = found | part(h, i, j, n) if union else found & part(h, i, j, n)
                return found

            return combined
        case model.Difference():
            left, right = (_test(same, place) for same in zip(*(parts_of(term) for term in terms), strict=True))
            return lambda h, i, j, n: left(h, i, j, n) & ~right(h, i, j, n)
        case model.Complement():
            inner = _test([term for part in terms for term in parts_of(part)], place)
            return lambda h, i, j, n: ~inner(h, i, j, n)
        case model.Input():
            raise FlexUnavailable("a set with input terms is known only at run time")
    raise FlexUnavailable(f"{type(first).__name__.lower()} terms have no test here")


def _end(
    edges: Sequence[model.Edge | None],
    unit: int,
    number: Callable[[Sequence[int]], Callable[[Tensor], _Number]],
    default: int,
) -> Callable[[Tensor, _Number], _Number]:
    """Where a range starts or stops, in units, given the head and the number of keys."""
    at = number([default if edge is None else edge.at for edge in edges])
    if edges[0] is None or not edges[0].from_end:
        return lambda h, n: at(h)
    return lambda h, n: at(h) + -(-n // unit)


def _draws(terms: Sequence[Term], place: _Place) -> Tensor:
    """Bool [heads, query blocks, key blocks]: the blocks that a random term draws."""
    blocks = -(-place.n_k // place.block)
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

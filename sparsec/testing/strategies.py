"""Hypothesis strategies for patterns, `.sparse` texts, shapes and attention inputs.

Patterns are drawn as a tree whose leaves may depend on the head; the tree becomes either checked terms (`patterns`) or
text (`sources`). Invariant: every pattern drawn is valid: it parses, resolves for its head counts and holds every
bound of `sema.model`. hypothesis is imported here and nowhere outside `sparsec.testing`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from sparsec.sema import model
from sparsec.sema.builtins import End
from sparsec.sema.model import (
    Documents,
    Edge,
    InputDecl,
    InputKind,
    Leaf,
    ResolvedPattern,
    Score,
)
from sparsec.sema.modifiers import ENTRIES, KINDS, Given, KeyBias, Modifier, Takes, modifier_of
from sparsec.testing.drawn import FORMS, Drawn, HeadLeaf, Operation, Source, Tree, declaration, resolved_of, written

SETS = ("causal", "full", "none")
LEAVES = ("window", "sink", "stride", "dilated", "chunk", "near2d", "columns", "rows", "global", "random")
"""With SETS, the terms that `patterns` and `sources` draw; those with numbers three times as often."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Row r of n_q queries is at absolute position q_offset + r; keys are at 0 .. n_k - 1."""

    n_q: int
    n_k: int
    q_offset: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """q [batch, heads, n_q, head_dim]; k [batch, kv_heads, n_k, head_dim]; v [batch, kv_heads, n_k, value_dim]."""

    q: Tensor
    k: Tensor
    v: Tensor


def patterns(
    *,
    max_heads: int = 4,
    max_operators: int = 3,
    blocks: tuple[int, ...] = (16, 32, 64),
    scored: bool = False,
    inputs: bool = False,
) -> st.SearchStrategy[ResolvedPattern]:
    """Patterns for known head counts, with every term and operator of the language's sections 5 and 6.

    `scored`: some have score modifiers, a learned sink, documents. `inputs`: half of the terms are run-time inputs, and
    with `scored` some have a `key_bias`; `testing.inputs` draws tensors for them.
    """
    return _drawn(max_heads, max_operators, blocks, scored, inputs).map(resolved_of)


def sources(
    *,
    max_heads: int = 4,
    max_operators: int = 3,
    blocks: tuple[int, ...] = (16, 32, 64),
    scored: bool = False,
    inputs: bool = False,
) -> st.SearchStrategy[Source]:
    """Texts of valid patterns, with head arms, `let`, `block`, every term and operator; `scored`, `inputs` as above."""
    return _drawn(max_heads, max_operators, blocks, scored, inputs).map(written)


def sources_with_meaning(
    *,
    max_heads: int = 4,
    max_operators: int = 3,
    blocks: tuple[int, ...] = (16, 32, 64),
    scored: bool = False,
    inputs: bool = False,
) -> st.SearchStrategy[tuple[Source, ResolvedPattern]]:
    """A text and, built without the parser, the pattern that it has to resolve to (origins aside)."""
    return _drawn(max_heads, max_operators, blocks, scored, inputs).map(
        lambda drawn: (written(drawn), resolved_of(drawn))
    )


def key_counts(most: int) -> st.SearchStrategy[int]:
    """How many keys a shape has: any number up to `most`, large ones and those at the edges of blocks more often."""
    usual = st.integers(1, most)
    edges = st.sampled_from([n for n in (0, 1, 15, 16, 17, 63, 64, 65, 128, 129) if n <= most])
    return st.one_of(usual, usual, st.integers(most // 2, most), edges)


@st.composite
def shapes(draw: st.DrawFn, *, max_queries: int = 150, max_keys: int = 300) -> Shape:
    """Lengths and an offset: odd ones, below one block, more queries than keys, no keys, decode, prefill chunks."""
    n_k = draw(key_counts(max_keys))
    n_q = draw(st.one_of(st.integers(1, max_queries), st.just(1), st.just(max(1, min(n_k, max_queries)))))
    aligned = n_k - n_q
    q_offset = draw(st.one_of(st.just(aligned), st.just(aligned), st.just(0), st.integers(0, n_k + 70)))
    return Shape(n_q, n_k, q_offset)


@st.composite
def document_bounds(draw: st.DrawFn, length: int) -> tuple[int, ...]:
    """Values of cu_seqlens for `length` packed tokens: some documents are empty, some have one token."""
    cut = st.one_of(st.integers(0, length), st.sampled_from([n for n in (0, 1, 16, 64, length) if n <= length]))
    cuts = draw(st.lists(cut, max_size=4))
    for start in draw(st.lists(cut, max_size=2)):
        cuts += start, min(start + draw(st.integers(0, 2)), length)
    return (0, *sorted(cuts), length)


@st.composite
def attention_inputs(
    draw: st.DrawFn,
    heads: int,
    kv_heads: int,
    shape: Shape,
    *,
    head_dim: int = 16,
    value_dim: int | None = None,
    dtype: torch.dtype = torch.float32,
    max_batch: int = 2,
) -> Inputs:
    """Normal q, k and v of one shape on the CPU; some draws are views with other strides. value_dim: as head_dim."""
    batch = draw(st.integers(1, max_batch))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    rows_first = draw(st.booleans())

    def tensor(n_heads: int, length: int, dim: int) -> Tensor:
        if rows_first:
            values = torch.randn(batch, length, n_heads, dim, generator=generator).to(dtype)
            return values.transpose(1, 2)
        return torch.randn(batch, n_heads, length, dim, generator=generator).to(dtype)

    q, k = tensor(heads, shape.n_q, head_dim), tensor(kv_heads, shape.n_k, head_dim)
    return Inputs(q, k, tensor(kv_heads, shape.n_k, head_dim if value_dim is None else value_dim))


@st.composite
def _drawn(
    draw: st.DrawFn, max_heads: int, max_operators: int, blocks: tuple[int, ...], scored: bool, inputs: bool
) -> Drawn:
    kv_heads = draw(st.integers(1, max_heads))
    heads = kv_heads * draw(st.integers(1, max_heads // kv_heads))
    block = draw(st.sampled_from(blocks))
    split = draw(st.integers(0, kv_heads - 1))
    declared: list[InputDecl] | None = [] if inputs else None
    first = _tree(draw, draw(st.integers(0, max_operators)), declared)
    second = _tree(draw, draw(st.integers(0, max_operators)), declared) if split else first
    causal = draw(st.sampled_from([False, True, True]))
    documents, score = Documents.NONE, Score()
    if scored:
        documents = draw(st.sampled_from([Documents.NONE, *Documents]))
        score = _score(draw, heads)
    if declared is not None and any(decl.kind is InputKind.TREE for decl in declared):
        documents = Documents.NONE
    if declared is not None and scored and draw(st.booleans()):
        score = replace(score, modifiers=_with_bias(score.modifiers, len(declared)))
        declared.append(declaration(len(declared), InputKind.WEIGHTS))
    return Drawn(heads, kv_heads, block, causal, split, first, second, documents, score, tuple(declared or ()))


def _with_bias(modifiers: tuple[Modifier, ...], ordinal: int) -> tuple[Modifier, ...]:
    return tuple(sorted((*modifiers, KeyBias(ordinal)), key=lambda modifier: KINDS.index(type(modifier))))


def _score(draw: st.DrawFn, heads: int) -> Score:
    modifiers = []
    for keyword, entry in ENTRIES.items():
        if entry.takes is Takes.INPUT:
            continue
        given: list[st.SearchStrategy[Given]] = [st.none()] * (entry.takes is Takes.NOTHING or bool(entry.alone))
        if entry.takes is Takes.NUMBER:
            given.append(st.sampled_from([0.75, 2.0, 50.0]))
        elif entry.takes is Takes.NUMBERS_OF_HEADS:
            numbers = [number for number in (0.0, 0.03125, 0.3, 1.0) if number >= entry.least]
            given.append(st.tuples(*[st.sampled_from(numbers)] * heads))
        if draw(st.booleans()):
            modifiers.append(modifier_of(keyword, draw(st.one_of(given))))
    return Score(draw(st.sampled_from([None, 0.25, 1.5])), tuple(modifiers))


def _tree(draw: st.DrawFn, operators: int, declared: list[InputDecl] | None) -> Tree:
    """`declared` gains the inputs that leaves are; None for a tree without any."""
    if operators == 0:
        return draw(_leaves()) if declared is None or draw(st.booleans()) else _input_leaf(draw, declared)
    symbol = draw(st.sampled_from("||&-~"))
    rest = operators - 1
    if symbol == "~":
        return Operation(symbol, (_tree(draw, rest, declared),))
    left = draw(st.integers(0, rest))
    return Operation(symbol, (_tree(draw, left, declared), _tree(draw, rest - left, declared)))


def _input_leaf(draw: st.DrawFn, declared: list[InputDecl]) -> HeadLeaf:
    """An input as a term, or a term with a run-time length; now and then one of those declared already."""
    again = draw(st.integers(0, 2 * len(declared))) - len(declared) - 1
    if again >= 0:
        ordinal, decl = again, declared[again]
    else:
        ordinal, (kind, unit) = len(declared), draw(st.sampled_from(FORMS))
        tiles = st.none() | st.tuples(*[st.sampled_from((1, 3, 16, 24, 64))] * 2)
        decl = declaration(ordinal, kind, unit, draw(tiles) if kind is InputKind.BLOCKS else None)
        declared.append(decl)
    if decl.kind is not InputKind.LENGTH:
        return HeadLeaf(model.Input(ordinal), 0)
    length = model.RunTimeLength(ordinal)
    low, high = Edge(draw(st.integers(0, 60)), False), Edge(-draw(st.integers(1, 60)), True)
    ends: tuple[tuple[End, End], ...] = ((length, None), (None, length), (low, length), (high, length), (length, high))
    ranges = [built(*pair, False) for built in (model.Columns, model.Rows) for pair in (*ends, (length, length))]
    windows = [model.Window(length, ahead, False) for ahead in (0, 0, 5)]
    return HeadLeaf(draw(st.sampled_from((model.Sink(length, False), model.Sink(length, False), *windows, *ranges))), 0)


@st.composite
def _leaves(draw: st.DrawFn) -> HeadLeaf:
    kind = draw(st.sampled_from(SETS + 3 * LEAVES))
    blocks = draw(st.booleans())
    slope = draw(st.sampled_from([0, 1, 0, 2, -1]))
    length = st.integers(1, 4) if blocks else st.one_of(st.integers(1, 70), st.sampled_from([16, 32, 64]))
    term: Leaf
    match kind:
        case "causal":
            return HeadLeaf(model.Causal(), 0)
        case "full":
            return HeadLeaf(model.Full(), 0)
        case "none":
            return HeadLeaf(model.Nothing(), 0)
        case "window":
            ahead = draw(st.one_of(st.just(0), st.integers(0, 3 if blocks else 70)))
            return HeadLeaf(model.Window(draw(length), ahead, blocks), max(slope, 0))
        case "sink":
            return HeadLeaf(model.Sink(draw(st.one_of(length, st.just(0))), blocks), max(slope, 0))
        case "stride" | "dilated":
            period = draw(length)
            phase = draw(st.integers(0, period - 1))
            built = model.Stride if kind == "stride" else model.Dilated
            return HeadLeaf(built(period, phase, blocks), slope)
        case "chunk":
            term = model.Chunk(draw(st.integers(1, 100)), draw(st.integers(0, 2)), draw(st.sampled_from([0, 0, 1, 2])))
            return HeadLeaf(term, 0)
        case "near2d":
            width = draw(st.one_of(st.integers(1, 40), st.sampled_from([16, 32, 64])))
            return HeadLeaf(model.Near2d(width, draw(st.integers(0, 3)), draw(st.integers(0, width))), 0)
        case "columns" | "rows":
            start, stop = draw(_ranges(4 if blocks else 100))
            return HeadLeaf((model.Columns if kind == "columns" else model.Rows)(start, stop, blocks), 0)
        case "global":
            return HeadLeaf(model.Global(draw(st.one_of(length, st.just(0))), blocks), 0)
        case "random":
            return HeadLeaf(model.Random(draw(st.integers(1, 3)), draw(st.integers(-2, 5)), 0), slope)
        case _:
            raise AssertionError(f"no strategy for {kind}")


@st.composite
def _ranges(draw: st.DrawFn, most: int) -> tuple[Edge | None, Edge | None]:
    """A range with at least one end that is not empty by its ends alone."""
    form = draw(st.sampled_from(["a..b", "a..", "..b", "-a..-b", "-a..", "..-b", "a..-b", "-a..b"]))
    low = draw(st.integers(0, most - 1))
    high = draw(st.integers(low + 1, most))
    match form:
        case "a..b":
            return Edge(low, False), Edge(high, False)
        case "a..":
            return Edge(low, False), None
        case "..b":
            return None, Edge(high, False)
        case "-a..-b":
            return Edge(-high - 1, True), Edge(-low - 1, True)
        case "-a..":
            return Edge(-high, True), None
        case "..-b":
            return None, Edge(-high, True)
        case "a..-b":
            return Edge(low, False), Edge(-high, True)
        case _:
            return Edge(-high, True), Edge(low + 1, False)

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
from sparsec.sema.builtins import printed
from sparsec.sema.model import Documents, Edge, Leaf, ResolvedPattern, Score, Term
from sparsec.sema.modifiers import ENTRIES, Given, Takes, modifier_of
from sparsec.sema.printer import score_lines

SETS = ("causal", "full", "none")
LEAVES = ("window", "sink", "stride", "dilated", "chunk", "columns", "rows", "global", "random")
"""With SETS, the terms that `patterns` and `sources` draw; those with numbers three times as often."""


@dataclass(frozen=True, slots=True)
class HeadLeaf:
    """A leaf whose number (a phase, a sink's or window's length, a lane) grows by `slope` for each head."""

    term: Leaf
    slope: int


@dataclass(frozen=True, slots=True)
class Operation:
    """`|`, `&` and `-` over two or more operands, `~` over one."""

    symbol: str
    operands: tuple[Tree, ...]


Tree = HeadLeaf | Operation


@dataclass(frozen=True, slots=True)
class Drawn:
    """A pattern as drawn: heads of groups below `split` have the set `first`, the others `second`."""

    heads: int
    kv_heads: int
    block: int
    causal: bool
    split: int
    first: Tree
    second: Tree
    documents: Documents
    score: Score


@dataclass(frozen=True, slots=True)
class Source:
    """A `.sparse` text with one pattern, and the head counts to resolve it for (the text leaves them out)."""

    text: str
    heads: int
    kv_heads: int


@dataclass(frozen=True, slots=True)
class Shape:
    """Row r of n_q queries is at absolute position q_offset + r; keys are at 0 .. n_k - 1."""

    n_q: int
    n_k: int
    q_offset: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """q [batch, heads, n_q, head_dim]; k, v [batch, kv_heads, n_k, head_dim]."""

    q: Tensor
    k: Tensor
    v: Tensor


def patterns(
    *, max_heads: int = 4, max_operators: int = 3, blocks: tuple[int, ...] = (16, 32, 64), scored: bool = False
) -> st.SearchStrategy[ResolvedPattern]:
    """Patterns for known head counts, with every term and operator of the language's sections 5 and 6.

    `scored`: some have score modifiers, a learned sink, documents.
    """
    return _drawn(max_heads, max_operators, blocks, scored).map(_resolved)


def sources(
    *, max_heads: int = 4, max_operators: int = 3, blocks: tuple[int, ...] = (16, 32, 64), scored: bool = False
) -> st.SearchStrategy[Source]:
    """Texts of valid patterns, with head arms, `let`, `block`, and every term and operator; `scored` as above."""
    return _drawn(max_heads, max_operators, blocks, scored).map(_written)


def sources_with_meaning(
    *, max_heads: int = 4, max_operators: int = 3, blocks: tuple[int, ...] = (16, 32, 64), scored: bool = False
) -> st.SearchStrategy[tuple[Source, ResolvedPattern]]:
    """A text and, built without the parser, the pattern that it has to resolve to (origins aside)."""
    return _drawn(max_heads, max_operators, blocks, scored).map(lambda drawn: (_written(drawn), _resolved(drawn)))


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
    dtype: torch.dtype = torch.float32,
    max_batch: int = 2,
) -> Inputs:
    """Normal q, k and v of one shape on the CPU; some draws are views with other strides."""
    batch = draw(st.integers(1, max_batch))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    rows_first = draw(st.booleans())

    def tensor(n_heads: int, length: int) -> Tensor:
        if rows_first:
            values = torch.randn(batch, length, n_heads, head_dim, generator=generator).to(dtype)
            return values.transpose(1, 2)
        return torch.randn(batch, n_heads, length, head_dim, generator=generator).to(dtype)

    return Inputs(tensor(heads, shape.n_q), tensor(kv_heads, shape.n_k), tensor(kv_heads, shape.n_k))


@st.composite
def _drawn(draw: st.DrawFn, max_heads: int, max_operators: int, blocks: tuple[int, ...], scored: bool) -> Drawn:
    kv_heads = draw(st.integers(1, max_heads))
    heads = kv_heads * draw(st.integers(1, max_heads // kv_heads))
    block = draw(st.sampled_from(blocks))
    split = draw(st.integers(0, kv_heads - 1))
    first = _tree(draw, draw(st.integers(0, max_operators)))
    second = _tree(draw, draw(st.integers(0, max_operators))) if split else first
    causal = draw(st.sampled_from([False, True, True]))
    documents, score = Documents.NONE, Score()
    if scored:
        documents = draw(st.sampled_from([Documents.NONE, *Documents]))
        score = _score(draw, heads)
    return Drawn(heads, kv_heads, block, causal, split, first, second, documents, score)


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


def _tree(draw: st.DrawFn, operators: int) -> Tree:
    if operators == 0:
        return draw(_leaves())
    symbol = draw(st.sampled_from("||&-~"))
    rest = operators - 1
    if symbol == "~":
        return Operation(symbol, (_tree(draw, rest),))
    left = draw(st.integers(0, rest))
    return Operation(symbol, (_tree(draw, left), _tree(draw, rest - left)))


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
            term = model.Chunk(draw(st.integers(1, 100)), draw(st.integers(0, 2)))
            return HeadLeaf(term, 0)
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


def _resolved(drawn: Drawn) -> ResolvedPattern:
    per_group = drawn.heads // drawn.kv_heads
    made: dict[Term, Term] = {}
    terms = []
    for head in range(drawn.heads):
        term = _at_head(drawn.first if head // per_group < drawn.split or not drawn.split else drawn.second, head)
        if drawn.causal:
            term = _flat(model.Intersection, (term, model.Causal()))
        terms.append(made.setdefault(term, term))
    return ResolvedPattern(drawn.heads, drawn.kv_heads, tuple(terms), drawn.block, (), drawn.documents, drawn.score)


def _at_head(tree: Tree, head: int) -> Term:
    if isinstance(tree, HeadLeaf):
        return _leaf_at(tree, head)
    operands = tuple(_at_head(operand, head) for operand in tree.operands)
    match tree.symbol:
        case "|":
            return _flat(model.Union, operands)
        case "&":
            return _flat(model.Intersection, operands)
        case "-":
            return model.Difference(*operands)
        case _:
            return model.Complement(*operands)


def _flat(kind: type[model.Union] | type[model.Intersection], operands: tuple[Term, ...]) -> Term:
    """Nested unions are one union, and intersections one intersection, as the language's resolver has them."""
    terms: list[Term] = []
    for operand in operands:
        terms += operand.terms if isinstance(operand, kind) else (operand,)
    return kind(tuple(terms))


def _leaf_at(leaf: HeadLeaf, head: int) -> Leaf:
    more = leaf.slope * head
    match leaf.term:
        case model.Window(int(n)) | model.Sink(int(n)):
            return replace(leaf.term, n=n + more)
        case model.Stride(period, phase) | model.Dilated(period, phase):
            return replace(leaf.term, phase=(phase + more) % period)
        case model.Random(_, _, lane):
            return replace(leaf.term, lane=lane + more)
        case _:
            return leaf.term


def _written(drawn: Drawn) -> Source:
    lines = [f"    block {drawn.block}"]
    if drawn.causal:
        lines.append("    causal")
    lines += score_lines(drawn.documents, drawn.score)
    first = _text(drawn.first)
    if drawn.split:
        lines.append(f"    where g < {drawn.split} attend {first}")
        lines.append(f"    otherwise attend {_text(drawn.second)}")
    else:
        lines += [f"    let drawn = {first}", "    attend drawn"]
    return Source("\n".join(["pattern drawn_set {", *lines, "}", ""]), drawn.heads, drawn.kv_heads)


def _text(tree: Tree) -> str:
    """The tree as an expression; every operand in parentheses, so that no precedence is relied on."""
    if isinstance(tree, HeadLeaf):
        return _leaf_written(tree)
    operands = [f"({_text(operand)})" for operand in tree.operands]
    return f"~{operands[0]}" if tree.symbol == "~" else f" {tree.symbol} ".join(operands)


def _leaf_written(leaf: HeadLeaf) -> str:
    term, slope = leaf.term, leaf.slope
    unit = "b" if getattr(term, "blocks", False) else ""
    if not slope:
        return printed(term)
    match term:
        case model.Window(n, ahead):
            return f"window({n}{unit} + {slope}{unit} * h, ahead = {ahead}{unit})"
        case model.Sink(n):
            return f"sink({n}{unit} + {slope}{unit} * h)"
        case model.Stride(period, phase):
            return f"stride({period}{unit}, phase = {phase} + {slope} * h)"
        case model.Dilated(period, phase):
            return f"dilated({period}{unit}, phase = {phase} + {slope} * h)"
        case model.Random(k, seed, lane):
            return f"random({k}, seed = {seed}, lane = {lane} + {slope} * h)"
        case _:
            raise AssertionError(f"a {type(term).__name__} has no number that varies with the head")

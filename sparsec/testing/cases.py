"""One case of a property: plain integers that are drawn and shrunk, and a line of text that gives them back.

Invariant: a pattern, its dimensions, a dtype and a case determine every tensor of a run; `parse_case(str(case))` is
the case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from hypothesis import strategies as st
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.sema.lint.rows import extent
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.sema.terms import leaves
from sparsec.testing.inputs import InputTensors, drawn_inputs
from sparsec.testing.strategies import Inputs, Shape, document_bounds, key_counts, shapes

CHECKS = ("forward", "probes", "gradients", "cache")
SHORT, LONGEST = 300, 12_288
"""Keys drawn for every pattern; and at most, for one with long windows or strides."""
PAIRS, PACKED_PAIRS = 1 << 21, 1 << 23
"""Pairs of a case over all heads and the batch: as many float64 scores are held several times over."""


@dataclass(frozen=True, slots=True)
class Case:
    """Row r of `queries` is at position offset + r, keys are at 0 .. keys - 1; `seed` is that of q, k and v.

    `bounds`: cu_seqlens, for documents. `chunks`: the tokens of each call of a cache walk, in turn.
    """

    check: str
    queries: int
    keys: int
    offset: int
    batch: int = 1
    seed: int = 0
    bounds: tuple[int, ...] = ()
    chunks: tuple[int, ...] = ()

    def __str__(self) -> str:
        whole = ("queries", "keys", "offset") if self.bounds or self.chunks else ()
        numbers = [(f.name, getattr(self, f.name)) for f in fields(self)[1:] if f.name not in whole]
        written = [(name, ":".join(map(str, n)) if isinstance(n, tuple) else str(n)) for name, n in numbers]
        return ",".join([self.check, *(f"{name}={text}" for name, text in written if text)])

    @property
    def described(self) -> str:
        """The same for people."""
        if self.bounds:
            return f"{self.keys} token{'s' * (self.keys > 1)} in documents that start at {list(self.bounds)[:-1]}"
        sequences = f"{self.batch} sequence" + "s" * (self.batch > 1)
        if self.chunks:
            return f"{sequences}, chunks of {list(self.chunks)} tokens"
        queries, keys = "query" if self.queries == 1 else "queries", "key" + "s" * (self.keys != 1)
        return f"{sequences}, {self.queries} {queries} from position {self.offset}, {self.keys} {keys}"

    @property
    def cu_seqlens(self) -> tuple[int, ...] | None:
        return self.bounds or None

    def inputs(self, pattern: ResolvedPattern, head_dim: int, value_dim: int, dtype: torch.dtype) -> Inputs:
        """Normal q, k and v on the CPU; of odd seeds they are views of [batch, length, heads, dimension]."""
        generator = torch.Generator().manual_seed(self.seed)

        def tensor(heads: int, length: int, dim: int) -> Tensor:
            if self.seed % 2:
                rows = torch.randn(self.batch, length, heads, dim, generator=generator)
                return rows.to(dtype).transpose(1, 2)
            return torch.randn(self.batch, heads, length, dim, generator=generator).to(dtype)

        q, k = tensor(pattern.heads, self.queries, head_dim), tensor(pattern.kv_heads, self.keys, head_dim)
        return Inputs(q, k, tensor(pattern.kv_heads, self.keys, value_dim))

    def given(self, pattern: ResolvedPattern) -> dict[str, InputTensors]:
        """The tensors of the pattern's inputs."""
        return drawn_inputs(
            pattern, batch=self.batch, n_q=self.queries, n_k=self.keys, q_offset=self.offset, seed=self.seed
        )


def parse_case(text: str) -> Case:
    """The case that `str` wrote. Raises CallError for anything else."""
    check, *parts = text.split(",")
    known = {f.name: f.type for f in fields(Case)[1:]}
    found: dict[str, int | tuple[int, ...]] = {}
    try:
        if check not in CHECKS:
            raise ValueError
        for part in parts:
            name, _, number = part.partition("=")
            found[name] = tuple(map(int, number.split(":"))) if "tuple" in str(known[name]) else int(number)
        if (check == "cache") != ("chunks" in found):
            raise ValueError
        match found:
            case {"chunks": tuple(chunks)}:
                found |= {"queries": sum(chunks), "keys": sum(chunks), "offset": 0, "bounds": ()}
            case {"bounds": tuple(bounds)}:
                found |= {"queries": bounds[-1], "keys": bounds[-1], "offset": 0}
        case = Case(check, **found)  # type: ignore[arg-type]  # each number was read as its field's type
        if min(case.queries, case.batch, *case.chunks) < 1 or min(case.keys, case.seed, *case.bounds) < 0:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        example = Case("forward", 3, 65, 62)
        raise CallError(f"expected a case as a failure prints it, such as {example}, got {text!r}") from None
    return case


def longest_term(pattern: ResolvedPattern) -> int:
    """The largest length, in tokens, that the pattern's terms name; 0 if they name none."""
    return max((extent(leaf, pattern.block) for term in pattern.terms for leaf in leaves(term)), default=0)


def past_longest(pattern: ResolvedPattern) -> int:
    """Keys that go past the pattern's longest window or period twice; SHORT at least."""
    return max(SHORT, 2 * longest_term(pattern) + pattern.block + 1)


def keys_for(pattern: ResolvedPattern) -> int:
    """How many keys cases have at most: `past_longest`, within what can be held."""
    most = past_longest(pattern)
    if pattern.documents is not Documents.NONE:
        return min(most, math.isqrt(PACKED_PAIRS // pattern.heads))
    return min(most, LONGEST, max(SHORT, 8 * PAIRS // pattern.heads))


_BATCHES, _SEEDS = st.integers(1, 2), st.integers(0, 2**16)


@st.composite
def cases(draw: st.DrawFn, check: str, pattern: ResolvedPattern) -> Case:
    """Half of the cases are short, the others may be long enough for every term to matter."""
    most = keys_for(pattern)
    batch, seed = draw(_BATCHES), draw(_SEEDS)
    if check == "cache":
        return _walk(draw, pattern, batch, seed)
    shape = draw(st.one_of(shapes(max_keys=SHORT), shapes(max_keys=most)))
    if pattern.documents is not Documents.NONE:
        length = max(1, min(shape.n_k, most))
        return Case(check, length, length, 0, seed=seed, bounds=draw(document_bounds(length)))
    fitting = _fitting(shape, pattern.heads * batch)
    return Case(check, fitting.n_q, fitting.n_k, fitting.q_offset, batch, seed)


@st.composite
def aligned_cases(draw: st.DrawFn, pattern: ResolvedPattern, most: int) -> Case:
    """Cases of a call that is given no offset, of `most` keys at most; half have a query for each key.

    Lengths come first, and one choice gives the queries: a failing case shrinks to few keys, then to few queries.
    """
    n_k = max(1, draw(key_counts(most)))
    if pattern.documents is not Documents.NONE:
        return Case("forward", n_k, n_k, 0, bounds=draw(document_bounds(n_k)), seed=draw(_SEEDS))
    n_q = min(n_k, draw(st.integers(1, 2 * n_k)))
    return Case("forward", n_q, n_k, n_k - n_q, draw(_BATCHES), draw(_SEEDS))


def _walk(draw: st.DrawFn, pattern: ResolvedPattern, batch: int, seed: int) -> Case:
    first = draw(st.one_of(st.integers(0, SHORT), st.integers(0, keys_for(pattern))))
    more = draw(st.lists(st.one_of(st.just(1), st.integers(1, 40)), min_size=1, max_size=8))
    chunks = (first, *more) if first else tuple(more)
    return Case("cache", sum(chunks), sum(chunks), 0, batch, seed, chunks=chunks)


def _fitting(shape: Shape, rows: int) -> Shape:
    """The last of the queries, as many as `rows` times their pairs may be held."""
    n_q = min(shape.n_q, max(1, PAIRS // (rows * max(shape.n_k, 1))))
    return Shape(n_q, shape.n_k, shape.q_offset + shape.n_q - n_q)

"""Run-time inputs over a KV cache, against every key and all that was said of it, in any order of calls and changes."""

from __future__ import annotations

from functools import cache

import pytest
from cached_patterns import causal_patterns, cpu_modules, torch_module
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from test_cache_machine import HEAD_DIM, SINK_WINDOW, CacheMachine, run
from vacuity import wanted

from sparsec.runtime.module import SparseAttention
from sparsec.sema import model as m
from sparsec.sema.model import InputKind, InputUnit, ResolvedPattern
from sparsec.sema.modifiers import Alibi
from sparsec.testing.drawn import declaration

RUNS, STEPS = wanted(200, at_night=1_000), 30
KINDS = tuple(
    declaration(n, kind, unit, tile)
    for n, (kind, unit, tile) in enumerate(
        (
            (InputKind.TOKENS, InputUnit.TOKENS, None),
            (InputKind.COLUMNS, InputUnit.TOKENS, None),
            (InputKind.COLUMNS, InputUnit.BLOCKS, None),
            (InputKind.SLASHES, InputUnit.TOKENS, None),
            (InputKind.SLASHES, InputUnit.BLOCKS, None),
            (InputKind.SLASHES, InputUnit.TILES, None),
            (InputKind.ROWS, InputUnit.TOKENS, None),
            (InputKind.ROWS, InputUnit.BLOCKS, None),
            (InputKind.BLOCKS, InputUnit.TOKENS, (24, 16)),
            (InputKind.LABELS, InputUnit.TOKENS, None),
            (InputKind.TREE, InputUnit.TOKENS, None),
            (InputKind.LENGTH, InputUnit.TOKENS, None),
        )
    )
)
TOKENS, COLUMNS, COLUMN_BLOCKS, SLASHES, SLASH_BLOCKS, SLASH_TILES, ROWS, PAGES, BLOCKS, LABELS, TREE = map(
    m.Input, range(11)
)
LENGTH = m.RunTimeLength(11)


def pattern(kv_heads: int, *terms: m.Term, score: m.Score | None = None) -> ResolvedPattern:
    """Causal; every kind of input is given, whether a term asks it or not."""
    cut = tuple(m.Intersection((m.Causal(), term)) for term in terms)
    return ResolvedPattern(len(terms), kv_heads, cut, 16, KINDS, m.Documents.NONE, score or m.Score())


def beside(*terms: m.Term) -> m.Term:
    return m.Union((m.Sink(4, False), m.Window(12, 0, False), *terms))


CHOSEN = (
    pattern(1, beside(TOKENS), beside(TOKENS)),
    pattern(2, beside(COLUMNS, SLASHES), beside(COLUMNS, SLASHES), SINK_WINDOW, beside(SLASH_TILES)),
    pattern(1, m.Union((COLUMN_BLOCKS, SLASH_BLOCKS)), m.Union((COLUMN_BLOCKS, m.Window(7, 0, False)))),
    pattern(2, ROWS, ROWS, beside(ROWS), beside(ROWS)),
    pattern(1, beside(PAGES), m.Union((PAGES, ROWS))),
    pattern(1, m.Intersection((PAGES, m.Window(40, 0, False))), m.Difference(ROWS, m.Window(9, 0, False))),
    pattern(1, beside(BLOCKS), m.Complement(BLOCKS), score=m.Score(None, (Alibi(),))),
    pattern(2, LABELS, m.Intersection((LABELS, m.Window(50, 0, False)))),
    pattern(1, m.Intersection((beside(TOKENS), TREE)), TREE),
    pattern(1, m.Union((m.Sink(LENGTH, False), m.Window(LENGTH, 0, False))), m.Difference(m.Full(), TOKENS)),
)


class TorchMachine(CacheMachine):
    @initialize(drawn=causal_patterns(blocks=(16,), inputs=True), batch=st.integers(1, 2), rollback=st.integers(0, 9))
    def start(self, drawn: ResolvedPattern, batch: int, rollback: int) -> None:
        self.begin(drawn, torch_module(drawn, HEAD_DIM), batch, rollback, grows=False)


@cache
def built() -> list[SparseAttention]:
    return cpu_modules(list(CHOSEN), HEAD_DIM)


class CpuMachine(CacheMachine):
    @initialize(which=st.integers(0, len(CHOSEN) - 1), batch=st.integers(1, 3), rollback=st.integers(0, 9))
    def start(self, which: int, batch: int, rollback: int) -> None:
        self.begin(CHOSEN[which], built()[which], batch, rollback, grows=False)


@pytest.mark.filterwarnings("ignore:the cache keeps every key")
def test_cpu() -> None:
    run(CpuMachine, RUNS, STEPS)


@pytest.mark.filterwarnings("ignore:the cache keeps every key")
def test_torch() -> None:
    run(TorchMachine, RUNS // 2, STEPS)

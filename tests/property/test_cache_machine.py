"""A KV cache against a plain list of every key: append, decode, release, admit, fork, truncate, reorder, reset, in any
order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import torch
from cached_inputs import Marks, marks_of, new_inputs, of_sequence
from cached_patterns import causal_patterns, cpu_modules, torch_module
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from torch import Tensor
from vacuity import wanted

from sparsec.diagnostics.model import CallError
from sparsec.reference.attention import attention
from sparsec.reference.mask import mask
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.module import SparseAttention
from sparsec.sema import model as m
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.modifiers import Alibi, Softcap
from sparsec.testing import sparse_text
from sparsec.testing.inputs import InputTensors

RUNS, STEPS = wanted(500, at_night=2_000), 50
HEAD_DIM, MAX_LEN = 8, 100
TOLERANCE = 2e-5
"""Of float32 attention to at most 100 unit-normal keys; a key missing, or one too many, changes far more."""


def window(n: int, *, blocks: bool = False) -> m.Term:
    return m.Window(n, 0, blocks)


def pattern(kv_heads: int, *terms: m.Term, score: m.Score | None = None) -> ResolvedPattern:
    cut = tuple(m.Intersection((m.Causal(), term)) for term in terms)
    return ResolvedPattern(len(terms), kv_heads, cut, 16, (), m.Documents.NONE, score or m.Score())


def s2(phase: int) -> m.Term:
    return m.Union((window(2, blocks=True), m.Stride(4, phase, True)))


SINK_WINDOW = m.Union((m.Sink(4, False), window(12)))
CHOSEN = (
    pattern(1, m.Full(), m.Full()),
    pattern(1, SINK_WINDOW, SINK_WINDOW),
    pattern(2, m.Full(), m.Full(), SINK_WINDOW, SINK_WINDOW),
    pattern(4, *(s2(phase) for phase in (0, 3, 2, 1))),
    pattern(2, *(s2(phase) for phase in (0, 3, 2, 1))),
    pattern(2, m.Chunk(24, 0), m.Chunk(24, 1), score=m.Score(None, (Softcap(3.0), Alibi()))),
    pattern(1, m.Random(2, 5, 0), m.Random(2, 5, 1)),
    pattern(1, m.Stride(5, 2, False), window(7), score=m.Score(scale=0.25)),
    pattern(1, m.Dilated(3, 0, False)),
    pattern(1, m.Union((window(6), m.Intersection((window(60), m.Stride(4, 1, False)))))),
)


@dataclass(slots=True)
class Tokens:
    """One sequence's keys and values, [kv_heads, length, head_dim], and what run-time inputs say of its keys."""

    k: Tensor
    v: Tensor
    marks: Marks

    def cut(self, length: int) -> Tokens:
        cut = {name: of_keys[:, :length] for name, of_keys in self.marks.items()}
        return Tokens(self.k[:, :length], self.v[:, :length], cut)

    def last(self, count: int) -> Tokens:
        first = self.k.shape[1] - count
        last = {name: of_keys[:, first:] for name, of_keys in self.marks.items()}
        return Tokens(self.k[:, first:], self.v[:, first:], last)

    def followed_by(self, new: Tokens) -> Tokens:
        marks = {name: torch.cat((self.marks.get(name, told[:, :0]), told), 1) for name, told in new.marks.items()}
        return Tokens(torch.cat((self.k, new.k), 1), torch.cat((self.v, new.v), 1), marks)


@dataclass(slots=True)
class Pair:
    """A cache, and what it stands for."""

    cache: KVCache
    rows: list[Tokens]
    released: set[int] = field(default_factory=set)


def expected(pattern: ResolvedPattern, q: Tensor, row: Tokens, given: dict[str, InputTensors] | None) -> Tensor:
    """Attention of the row's last queries, q [heads, n, head_dim], to all of its keys, by the reference."""
    n, length = q.shape[1], row.k.shape[1]
    visible = mask(pattern, n, length, length - n, inputs=given)
    out, _ = attention(q[None], row.k[None], row.v[None], visible, pattern.score)
    return out[0]


class CacheMachine(RuleBasedStateMachine):
    """Subclasses draw a pattern and its module."""

    def begin(self, drawn: ResolvedPattern, module: SparseAttention, batch: int, rollback: int, *, grows: bool) -> None:
        self.pattern, self.module, self.max_len = drawn, module, None if grows else MAX_LEN
        self.generator = torch.Generator().manual_seed(batch + 7 * rollback)
        cache = module.new_cache(batch, self.max_len, rollback=rollback)
        cache.keys.fill_(float("nan"))
        cache.values.fill_(float("nan"))
        self.pairs = [Pair(cache, [self.tokens(0) for _ in range(batch)])]

    def tokens(self, n: int) -> Tokens:
        shape = self.pattern.kv_heads, n, HEAD_DIM
        return Tokens(*(torch.randn(shape, generator=self.generator) for _ in range(2)), {})

    @property
    def pair(self) -> Pair:
        return self.pairs[-1]

    def append(self, n: int, counts: list[int] | None = None) -> None:
        pair = self.pair
        new = [self.tokens(n) for _ in pair.rows]
        q = torch.randn((len(new), self.pattern.heads, n, HEAD_DIM), generator=self.generator)
        k, v = torch.stack([row.k for row in new]), torch.stack([row.v for row in new])
        own, released = counts or [n] * len(new), sorted(pair.released)
        for each in released:
            own[each] = 0
            for tensor in (q, k, v):
                tensor[each] = float("nan")
        before = pair.cache.keys.clone(), pair.cache.lengths
        stops = [row.k.shape[1] + count for row, count in zip(pair.rows, own, strict=True)]
        seed = int(torch.randint(2**20, (), generator=self.generator))
        given = new_inputs(self.pattern, n, stops, seed) if self.pattern.inputs else None
        if max(stops) > MAX_LEN and self.max_len is None:
            return
        if max(stops) > MAX_LEN:
            with pytest.raises(CallError, match="nothing was written"):
                self.module(q, k, v, cache=pair.cache, lengths=counts, inputs=given)
            assert torch.equal(before[0].nan_to_num(7.0), pair.cache.keys.nan_to_num(7.0))
            assert before[1] == pair.cache.lengths
            return
        out = self.module(q, k, v, cache=pair.cache, lengths=counts, inputs=given)
        for b, (old, fresh, count) in enumerate(zip(pair.rows, new, own, strict=True)):
            told = marks_of(self.pattern, given, b) if given else {}
            rows = pair.rows[b] = old.followed_by(Tokens(fresh.k, fresh.v, told).last(count))
            assert not out[b, :, : n - count].any(), "padding has an output"
            if count:
                alone = of_sequence(self.pattern, given, b, rows.marks) if given else None
                wanted = expected(self.pattern, q[b], rows, alone)[:, n - count :]
                error = (out[b, :, n - count :] - wanted).abs().max()
                assert error < TOLERANCE, f"sequence {b} of {rows.k.shape[1]} keys, {count} new ones: off by {error}"
        assert pair.cache.lengths == tuple(row.k.shape[1] for row in pair.rows)

    @rule(n=st.integers(1, 12))
    def append_to_all(self, n: int) -> None:
        self.append(n)

    @rule(times=st.integers(1, 3))
    def decode(self, times: int) -> None:
        for _ in range(times):
            self.append(1)

    @rule(n=st.integers(1, 9), data=st.data())
    def append_unevenly(self, n: int, data: Any) -> None:
        size = len(self.pair.rows)
        self.append(n, data.draw(st.lists(st.integers(0, n), min_size=size, max_size=size)))

    @rule(data=st.data())
    @precondition(lambda self: len(self.pair.released) < len(self.pair.rows))
    def release(self, data: Any) -> None:
        """A row, whose memory may hold anything from then on."""
        pair = self.pair
        row = data.draw(st.sampled_from([n for n in range(len(pair.rows)) if n not in pair.released]))
        pair.cache.release(row)
        pair.cache.keys[row] = pair.cache.values[row] = float("nan")
        for mark in pair.cache.marks:
            mark[row, :, 1:] = 9
        pair.rows[row] = pair.rows[row].cut(0)
        pair.released.add(row)

    @rule(first=st.booleans(), begun=st.booleans(), data=st.data())
    @precondition(lambda self: self.pair.released)
    def admit(self, first: bool, begun: bool, data: Any) -> None:
        """Into the first released row or another, from the start or from where another sequence is."""
        pair = self.pair
        row = min(pair.released) if first else data.draw(st.sampled_from(sorted(pair.released)))
        used = [n for n in range(len(pair.rows)) if n not in pair.released]
        sequence = None
        if begun and used:
            n = data.draw(st.sampled_from(used))
            sequence = pair.cache.fork()
            sequence.reorder([n])
            pair.rows[row] = pair.rows[n]
        assert pair.cache.admit(None if first else row, sequence) == row
        pair.released.remove(row)

    @rule()
    @precondition(lambda self: len(self.pairs) < 3)
    def fork(self) -> None:
        self.pairs.append(Pair(self.pair.cache.fork(), list(self.pair.rows), set(self.pair.released)))

    @rule()
    @precondition(lambda self: len(self.pairs) > 1)
    def drop(self) -> None:
        """Goes back to the older cache, which what happened to its copy must not have changed."""
        self.pairs.pop()

    @rule(back=st.integers(0, 30))
    def truncate(self, back: int) -> None:
        pair = self.pair
        wanted = [max(row.k.shape[1] - back, 0) for row in pair.rows]
        before, most = pair.cache.lengths, pair.cache.state[1].tolist()
        try:
            pair.cache.truncate(wanted)
        except CallError as error:
            assert "has been overwritten" in str(error) and pair.cache.lengths == before
            far = max(newest - length for newest, length in zip(most, wanted, strict=True))
            assert far > pair.cache.rollback + 1, "what rollback promises was refused"
            return
        pair.rows = [row.cut(length) for row, length in zip(pair.rows, wanted, strict=True)]

    @rule(data=st.data())
    def reorder(self, data: Any) -> None:
        pair = self.pair
        index = data.draw(st.lists(st.integers(0, len(pair.rows) - 1), min_size=1, max_size=3))
        pair.cache.reorder(index)
        pair.rows = [pair.rows[n] for n in index]
        pair.released = {row for row, n in enumerate(index) if n in pair.released}

    @rule()
    def save_and_load(self) -> None:
        pair = self.pair
        saved = {name: tensor.clone() for name, tensor in pair.cache.state_dict().items()}
        other = self.module.new_cache(1, self.max_len, rollback=pair.cache.rollback)
        other.load_state_dict(saved)
        pair.cache = other
        assert other.released == tuple(sorted(pair.released))

    @rule()
    @precondition(lambda self: max(row.k.shape[1] for row in self.pair.rows) > 60)
    def reset(self) -> None:
        self.pair.cache.reset()
        self.pair.rows = [row.cut(0) for row in self.pair.rows]
        self.pair.released.clear()


class TorchMachine(CacheMachine):
    @initialize(
        drawn=causal_patterns(blocks=(16,)), batch=st.integers(1, 2), rollback=st.integers(0, 9), grows=st.booleans()
    )
    def start(self, drawn: ResolvedPattern, batch: int, rollback: int, grows: bool) -> None:
        kept = tuple(modifier for modifier in drawn.score.modifiers if not modifier.entry.learned)
        plain = replace(drawn, score=replace(drawn.score, modifiers=kept))
        self.begin(plain, torch_module(plain, HEAD_DIM), batch, rollback, grows=grows)


@cache
def built() -> list[SparseAttention]:
    return cpu_modules(list(CHOSEN), HEAD_DIM)


class CpuMachine(CacheMachine):
    @initialize(
        which=st.integers(0, len(CHOSEN) - 1),
        batch=st.integers(1, 3),
        rollback=st.integers(0, 9),
        grows=st.booleans(),
    )
    def start(self, which: int, batch: int, rollback: int, grows: bool) -> None:
        self.begin(CHOSEN[which], built()[which], batch, rollback, grows=grows)


def run(machine: type[CacheMachine], runs: int, steps: int = STEPS) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # hypothesis leaves it untyped
        machine,
        settings=settings(max_examples=runs, stateful_step_count=steps, deadline=None, suppress_health_check=slow),
    )


@pytest.mark.filterwarnings("ignore:the cache keeps every key")
def test_cpu() -> None:
    run(CpuMachine, RUNS)


@pytest.mark.filterwarnings("ignore:the cache keeps every key")
def test_torch() -> None:
    run(TorchMachine, RUNS // 5)


def test_patterns_evict() -> None:
    """Most of the chosen patterns let keys go: a cache that kept everything would have more slots."""
    assert sum(module.layout.slots(1000) < 1000 * module.kv_heads for module in built()) >= len(CHOSEN) - 4
    assert sparse_text(CHOSEN[3])

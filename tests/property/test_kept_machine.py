"""A KV cache that drops keys (`keep`) against attention to a plain list of every key, with the marks of the moment:
append, decode, keep, merge, release, admit, truncate, fork, reorder, save and load, in any order."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from torch import Tensor
from vacuity import wanted

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.lists import CAPACITY
from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import InputKind

RUNS, STEPS = wanted(200, at_night=2_000), 50
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
compiled = pytest.mark.skipif(INTERPRETED, reason="this process tests interpreted Triton alone")
INTERPRETED_RUNS, INTERPRETED_STEPS = wanted(3, at_night=100), 8
"""A step takes half a second there."""
HEADS, KV_HEADS, HEAD_DIM, VALUE_DIM, MAX_LEN = 4, 2, 8, 5, 100
TOLERANCE = 2e-5
"""As of test_cache_machine.py."""

CHOSEN = (
    "input kept : tokens attend (sink(4) | window(8) | kept) & causal",
    "input kept : tokens attend kept & causal softcap 3.0 alibi learned_sink",
    "input kept : tokens where g == 0 attend (window(6) | kept) & causal "
    "otherwise attend (sink(3) | window(9)) & causal",
    "input a : tokens input b : tokens attend (window(5) | a & ~b | b & window(30)) & causal",
    "input kept : tokens attend (stride(3) | kept & stride(2) | kept & columns(5..20)) & causal alibi",
    "input kept : tokens input drop : tokens attend (window(12) & ~drop | kept) & causal",
    "input kept : tokens input picks : rows attend (window(2) | picks | kept) & causal",
    "input kept : tokens input like : labels where h == 1 attend (like | kept & like) & causal "
    "otherwise attend (window(4) | kept) & causal",
    "input kept : tokens input counts : weights key_bias counts attend (window(6) | kept) & causal alibi",
    "input counts : weights input kept : tokens key_bias counts attend kept & causal",
)
WINDOW = 6
"""Of the patterns with weights, at most."""


@dataclass(slots=True)
class Tokens:
    """One sequence: k and v [kv_heads, length, dim], and what each input of its keys says, [heads, length]."""

    k: Tensor
    v: Tensor
    marks: dict[str, Tensor]

    def cut(self, length: int) -> Tokens:
        marks = {name: each[:, :length] for name, each in self.marks.items()}
        return Tokens(self.k[:, :length], self.v[:, :length], marks)

    def then(self, other: Tokens, first: int) -> Tokens:
        marks = {name: torch.cat([each, other.marks[name][:, first:]], 1) for name, each in self.marks.items()}
        k, v = (torch.cat([old, new[:, first:]], 1) for old, new in ((self.k, other.k), (self.v, other.v)))
        return Tokens(k, v, marks)


@dataclass(slots=True)
class Pair:
    """A cache, and what it stands for."""

    cache: KVCache
    rows: list[Tokens]
    released: set[int] = field(default_factory=set)


@cache
def modules(which: int, target: str) -> tuple[SparseAttention, SparseAttention]:
    """The module of a pattern, and its reference."""
    pattern = sparsec.parse(f"pattern p {{ heads {HEADS} kv {KV_HEADS} {CHOSEN[which]} }}").pattern()
    of, oracle = (
        sparsec.compile(pattern, head_dim=HEAD_DIM, value_dim=VALUE_DIM, target=each, device="cpu")
        for each in (target, "reference")
    )
    if of.sink is not None and oracle.sink is not None:
        for module in (of, oracle):
            torch.nn.init.constant_(module.sink, 0.5)  # type: ignore[arg-type]  # there is one
    return of, oracle


def merged(row: Tokens, labels: Tensor) -> Tokens:
    """The sequence with one marked key in place of those of a label: [kv_heads, length], below 0 for none."""
    k, v = row.k.clone(), row.v.clone()
    marks = {name: each.clone().view(KV_HEADS, HEADS // KV_HEADS, -1) for name, each in row.marks.items()}
    for g, own in enumerate(labels):
        for label in set(own[own >= 0].tolist()):
            of = (own == label).nonzero()[:, 0]
            weights = marks["counts"][g, 0, of]
            k[g, of[-1]], v[g, of[-1]] = ((weights.softmax(0)[:, None] * each[g, of]).sum(0) for each in (row.k, row.v))
            marks["counts"][g, :, of[-1]] = weights.logsumexp(0)
            marks["kept"][g, :, of[:-1]] = False
    return Tokens(k, v, {name: each.view(HEADS, -1) for name, each in marks.items()})


class KeptMachine(RuleBasedStateMachine):
    """Subclasses name a target."""

    target: str

    @initialize(
        which=st.integers(0, len(CHOSEN) - 1),
        batch=st.integers(1, 3),
        rollback=st.integers(0, 9),
        grows=st.booleans(),
    )
    def start(self, which: int, batch: int, rollback: int, grows: bool) -> None:
        self.module, self.oracle = modules(which, self.target)
        self.max_len = None if grows else MAX_LEN
        self.generator = torch.Generator().manual_seed(batch + 7 * rollback)
        self.pairs = [Pair(self.module.new_cache(batch, self.max_len, rollback=rollback), [])]
        self.pair.cache.keys.fill_(float("nan"))
        self.pair.cache.values.fill_(float("nan"))
        self.pair.rows = [self.tokens(0) for _ in range(batch)]

    @property
    def pair(self) -> Pair:
        return self.pairs[-1]

    @property
    def length(self) -> int:
        return max(row.k.shape[1] for row in self.pair.rows)

    def of_kinds(self, *kinds: InputKind) -> list[str]:
        return [input_.name for input_ in self.module.inputs if input_.kind in kinds]

    def random(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)

    def tokens(self, n: int, shared: int = HEADS) -> Tokens:
        """New tokens, whose marks `shared` heads have in common."""
        k, v = (torch.randn((KV_HEADS, n, dim), generator=self.generator) for dim in (HEAD_DIM, VALUE_DIM))
        marks = {name: self.random(HEADS // shared, n) < 0.4 for name in self.of_kinds(InputKind.TOKENS)}
        labels = {
            name: (3 * self.random(HEADS // shared, n)).to(torch.int32) for name in self.of_kinds(InputKind.LABELS)
        }
        weights = {name: self.random(HEADS // shared, n) for name in self.of_kinds(InputKind.WEIGHTS)}
        said = {**marks, **labels, **weights}
        return Tokens(k, v, {name: each.repeat_interleave(shared, 0) for name, each in said.items()})

    def inputs(self, n: int, new: list[Tokens], shared: int, stop: int) -> dict[str, Any]:
        """Those of a call."""
        given: dict[str, Any] = {}
        for input_ in self.module.inputs:
            match input_.kind:
                case InputKind.ROWS:
                    numbers = torch.stack([torch.randperm(stop, generator=self.generator)[:5] for _ in range(n)])
                    given[input_.name] = torch.nn.functional.pad(numbers, (0, 1), value=-1)[None, None]
                case InputKind.LABELS:
                    queries = (3 * self.random(len(new), HEADS, n)).to(torch.int32)
                    given[input_.name] = queries, torch.stack([row.marks[input_.name] for row in new])
                case _:
                    given[input_.name] = torch.stack([row.marks[input_.name] for row in new])[:, ::shared]
        return given

    def append(self, n: int, shared: int, counts: list[int] | None = None) -> None:
        pair = self.pair
        new = [self.tokens(n, shared) for _ in pair.rows]
        own = counts or [n] * len(new)
        for each in pair.released:
            own[each] = 0
            new[each].k[:] = new[each].v[:] = float("nan")
        if max(row.k.shape[1] + count for row, count in zip(pair.rows, own, strict=True)) > MAX_LEN:
            return
        q = torch.randn((len(new), HEADS, n, HEAD_DIM), generator=self.generator)
        k, v = torch.stack([row.k for row in new]), torch.stack([row.v for row in new])
        given = self.inputs(n, new, shared, self.length + n)
        try:
            out = self.module(q, k, v, cache=pair.cache, lengths=counts, inputs=given)
        except CallError as error:
            assert "more marked keys" in str(error) and pair.cache.room is not None
            assert pair.cache.lengths == tuple(row.k.shape[1] for row in pair.rows)
            self.keep(self.of_kinds(InputKind.TOKENS)[0], lambda *shape: torch.ones(shape), 1, None)
            return
        for b, (old, fresh, count) in enumerate(zip(pair.rows, new, own, strict=True)):
            pair.rows[b] = old.then(fresh, n - count)
            assert not out[b, :, : n - count].any(), "padding has an output"
            if count:
                error = (out[b, :, n - count :] - self.expected(b, q[b, :, n - count :], given)).abs().max()
                rows = pair.rows[b].k.shape[1]
                assert error < TOLERANCE, f"sequence {b} of {rows} keys, {count} new ones: off by {error}"
        assert pair.cache.lengths == tuple(row.k.shape[1] for row in pair.rows)

    def expected(self, b: int, q: Tensor, given: dict[str, Any]) -> Tensor:
        """Attention of the last queries of sequence b, q [heads, n, head_dim], to all of its keys, by the reference."""
        row, n, inputs = self.pair.rows[b], q.shape[1], {}
        for input_ in self.module.inputs:
            if input_.kind is InputKind.ROWS:
                inputs[input_.name] = given[input_.name][..., -n:, :]
            elif input_.kind is InputKind.LABELS:
                inputs[input_.name] = given[input_.name][0][b : b + 1, :, -n:], row.marks[input_.name][None]
            else:
                inputs[input_.name] = row.marks[input_.name][None]
        return self.oracle(q[None], row.k[None], row.v[None], inputs=inputs)[0].detach()

    def keep(self, name: str, drawn: Callable[..., Tensor], shared: int, room: int | None) -> None:
        """Takes those marks away that are drawn below a half, alike for `shared` heads."""
        left = drawn(len(self.pair.rows), HEADS // shared, self.length) >= 0.5
        for b, row in enumerate(self.pair.rows):
            length = row.k.shape[1]
            left[b, :, length:] = False
            left[b, :, :length] &= row.marks[name].view(HEADS // shared, shared, length).all(1)
        self.pair.cache.keep(name, left, room=room)
        for b, row in enumerate(self.pair.rows):
            own = left[b, :, : row.k.shape[1]].repeat_interleave(shared, 0)
            self.pair.rows[b] = Tokens(row.k, row.v, {**row.marks, name: row.marks[name] & own})

    @rule(n=st.integers(1, 12), shared=st.sampled_from([1, 2, 4]))
    def append_to_all(self, n: int, shared: int) -> None:
        self.append(n, shared)

    @rule(times=st.integers(1, 3), shared=st.sampled_from([1, 2, 4]))
    def decode(self, times: int, shared: int) -> None:
        for _ in range(times):
            self.append(1, shared)

    @rule(n=st.integers(1, 9), data=st.data())
    def append_unevenly(self, n: int, data: Any) -> None:
        size = len(self.pair.rows)
        self.append(n, 2, data.draw(st.lists(st.integers(0, n), min_size=size, max_size=size)))

    @rule(shared=st.sampled_from([1, 2, 4]), room=st.sampled_from([None, None, 0, 20]), data=st.data())
    def drop_keys(self, shared: int, room: int | None, data: Any) -> None:
        self.keep(data.draw(st.sampled_from(self.of_kinds(InputKind.TOKENS))), self.random, shared, room)

    @rule(most=st.integers(0, 4))
    @precondition(lambda self: self.of_kinds(InputKind.WEIGHTS) == ["counts"])
    def merge(self, most: int) -> None:
        """Makes up to `most` keys of those in each sequence and KV group that later queries see for their marks."""
        labels = torch.full((len(self.pair.rows), KV_HEADS, self.length), -1)
        rows = []
        for b, row in enumerate(self.pair.rows):
            length, shared = row.k.shape[1], (KV_HEADS, HEADS // KV_HEADS, -1)
            counts, kept = row.marks["counts"].view(shared), row.marks["kept"].view(shared)
            alike = kept.all(1) & (counts == counts[:, :1]).all(1) & (torch.arange(length) + WINDOW <= length)
            own = torch.where(alike, (self.random(KV_HEADS, length) * (most + 1)).long() - 1, -1)
            labels[b, :, :length] = own
            rows.append(merged(row, own))
        self.pair.cache.merge("kept", labels)
        self.pair.rows = rows

    @rule(data=st.data())
    @precondition(lambda self: len(self.pair.released) < len(self.pair.rows))
    def release(self, data: Any) -> None:
        """A row, whose memory may hold anything from then on; that of its list is given back."""
        pair = self.pair
        row = data.draw(st.sampled_from([n for n in range(len(pair.rows)) if n not in pair.released]))
        held, kept = pair.cache.nbytes, pair.cache.kept
        of_list = 0 if kept is None or pair.cache.room is not None else int(kept.lists[row, :, CAPACITY].sum())
        pair.cache.release(row)
        pair.cache.keys[row] = pair.cache.values[row] = float("nan")
        for mark in pair.cache.marks:
            mark[row, :, 1:] = 9
        entry = 4 * (HEAD_DIM + VALUE_DIM + 1 + (0 if kept is None else kept.of.words))
        assert pair.cache.nbytes == held - of_list * entry
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
        try:
            assert pair.cache.admit(None if first else row, sequence) == row
        except CallError as error:
            assert "with at most" in str(error) and pair.cache.room is not None
            return
        if sequence is not None:
            pair.rows[row] = pair.rows[n]
        pair.released.remove(row)

    @rule()
    @precondition(lambda self: len(self.pairs) < 3)
    def fork(self) -> None:
        self.pairs.append(Pair(self.pair.cache.fork(), list(self.pair.rows), set(self.pair.released)))

    @rule()
    @precondition(lambda self: len(self.pairs) > 1)
    def go_back(self) -> None:
        """To the older cache, which what happened to its copy must not have changed."""
        self.pairs.pop()

    @rule(back=st.integers(0, 30))
    def truncate(self, back: int) -> None:
        pair = self.pair
        shorter = [max(row.k.shape[1] - back, 0) for row in pair.rows]
        try:
            pair.cache.truncate(shorter)
        except CallError as error:
            assert "has been overwritten" in str(error) or "`keep` dropped" in str(error)
            assert pair.cache.lengths == tuple(row.k.shape[1] for row in pair.rows)
            return
        pair.rows = [row.cut(length) for row, length in zip(pair.rows, shorter, strict=True)]

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
    @precondition(lambda self: self.length > 60)
    def reset(self) -> None:
        self.pair.cache.reset()
        self.pair.rows = [row.cut(0) for row in self.pair.rows]
        self.pair.released.clear()


class TorchMachine(KeptMachine):
    target = "torch"


class CpuMachine(KeptMachine):
    target = "cpu"


class TritonMachine(KeptMachine):
    target = "triton"


def run(machine: type[KeptMachine], runs: int, steps: int) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # hypothesis leaves it untyped
        machine,
        settings=settings(max_examples=runs, stateful_step_count=steps, deadline=None, suppress_health_check=slow),
    )


@compiled
@pytest.mark.filterwarnings("ignore:the cache keeps every key")
@pytest.mark.parametrize(("machine", "runs"), [(CpuMachine, RUNS), (TorchMachine, RUNS // 5)])
def test_kept_keys(machine: type[KeptMachine], runs: int) -> None:
    run(machine, runs, STEPS)


@pytest.mark.skipif(not INTERPRETED, reason="run in a process of its own by test_interpreted_triton")
@pytest.mark.filterwarnings("ignore:the cache keeps every key")
def test_triton() -> None:
    run(TritonMachine, INTERPRETED_RUNS, INTERPRETED_STEPS)


@compiled
def test_interpreted_triton() -> None:
    """Triton reads TRITON_INTERPRET when it is imported, so its interpreter has a process of its own."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-k", "test_triton", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout

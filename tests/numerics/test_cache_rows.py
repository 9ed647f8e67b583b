"""Sequences of a batch that end and begin: each as if it had been alone, whatever lies in rows that are released."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from triton_harness import interpreted, passes_in_the_interpreter

import sparsec
from sparsec.runtime.kv.cache import KVCache

HEADS, GROUPS, DIM, ROWS, MAX_LEN = 4, 2, 16, 3, 60
NAN = float("nan")
PATTERNS = {
    "plain": "attend sink(2) | window(6)",
    "kept": "input kept : tokens attend window(4) | kept",
    "weighed": "input counts : weights key_bias counts alibi attend full",
    "listed": "input picks : rows input like : labels attend window(3) | like & picks",
}
if interpreted():
    PATTERNS = {name: PATTERNS[name] for name in ("plain", "kept")}
TARGETS = ["triton"] if interpreted() else ["cpu", "torch"]
pytestmark = pytest.mark.filterwarnings("ignore:the cache keeps every key")


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


@cache
def module(name: str, target: str) -> sparsec.SparseAttention:
    text = f"pattern p {{ heads {HEADS} kv {GROUPS} causal {PATTERNS[name]} }}"
    return sparsec.compile(text, head_dim=DIM, target=target)


class Batch:
    """A cache, and of each of its rows q, k, v and what inputs say of its tokens; None for a released one."""

    def __init__(self, name: str, target: str) -> None:
        self.attn, self.alone = module(name, target), module(name, "reference")
        self.names = {input_.name for input_ in self.attn.inputs}
        self.generator = torch.Generator().manual_seed(0)
        self.cache = self.attn.new_cache(ROWS, MAX_LEN)
        self.rows: list[dict[str, Tensor] | None] = [self.tokens(0) for _ in range(ROWS)]

    def tokens(self, n: int) -> dict[str, Tensor]:
        drawn = {"q": HEADS, "k": GROUPS, "v": GROUPS}
        found = {name: torch.randn(heads, n, DIM, generator=self.generator) for name, heads in drawn.items()}
        found["kept"] = torch.rand(HEADS, n, generator=self.generator) < 0.5
        found["like"] = torch.randint(2, (HEADS, n), generator=self.generator, dtype=torch.int32)
        found["counts"] = torch.randn(HEADS, n, generator=self.generator)
        found["picks"] = torch.rand(1, n, 30, generator=self.generator).argsort(-1)[..., :12]
        return found

    def inputs(self, each: dict[str, Tensor]) -> dict[str, object]:
        given: dict[str, object] = {name: each[name] for name in self.names}
        return given | ({"like": (each["like"], each["like"])} if "like" in given else {})

    def release(self, row: int) -> None:
        self.cache.release(row)
        self.rows[row] = None
        self.cache.keys[row] = self.cache.values[row] = NAN

    def admit(self, row: int | None = None, sequence: KVCache | None = None) -> int:
        row = self.cache.admit(row, sequence)
        self.rows[row] = self.tokens(0)
        return row

    def step(self, n: int, lengths: list[int] | None = None) -> None:
        new = [self.tokens(n) for _ in range(ROWS)]
        for row, each in zip(self.rows, new, strict=True):
            if row is None:
                each["q"][:], each["k"][:], each["v"][:], each["counts"][:] = NAN, NAN, NAN, NAN
        call = {name: torch.stack([each[name] for each in new]) for name in new[0]}
        given = self.inputs(call) or None
        out, lse = self.attn(
            *(call[name] for name in "qkv"), cache=self.cache, lengths=lengths, inputs=given, return_lse=True
        )
        own = [n] * ROWS if lengths is None else lengths
        for b, (row, count) in enumerate(zip(self.rows, own, strict=True)):
            first = n - count if row is not None else n
            assert not out[b, :, :first].any() and bool((lse[b, :, :first] == -torch.inf).all())
            if row is None or not count:
                continue
            for name, tensor in new[b].items():
                along = -2 if tensor.dim() == 3 else -1
                row[name] = torch.cat([row[name], tensor.narrow(along, first, count)], along)
            self.check(b, out[b, :, first:])
        assert self.cache.lengths == tuple(0 if row is None else row["k"].shape[1] for row in self.rows)

    def check(self, b: int, out: Tensor) -> None:
        row = self.rows[b]
        assert row is not None
        alone = {name: tensor[None] for name, tensor in row.items()}
        whole = self.alone(*(alone[name] for name in "qkv"), inputs=self.inputs(alone) or None)
        torch.testing.assert_close(out, whole[0, :, -out.shape[1] :].to(out), rtol=2e-4, atol=2e-4)

    def keep_half(self) -> None:
        """Takes half of the marks away."""
        if "kept" not in self.names:
            return
        left = torch.zeros(ROWS, HEADS, self.cache.length, dtype=torch.bool)
        for b, row in enumerate(self.rows):
            if row is not None:
                row["kept"] &= torch.rand(row["kept"].shape, generator=self.generator) < 0.5
                left[b, :, : row["kept"].shape[1]] = row["kept"]
        self.cache.keep("kept", left)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PATTERNS)
def test_rows_come_and_go(name: str, target: str) -> None:
    batch = Batch(name, target)
    batch.release(1)
    batch.step(9, [9, 0, 5])
    batch.step(1)
    assert batch.admit() == 1
    batch.step(6, [1, 6, 0])
    batch.keep_half()
    held = batch.cache.nbytes
    batch.release(0)
    assert (batch.cache.nbytes < held) == (batch.cache.kept is not None)
    batch.step(1)
    begun = batch.cache.fork()
    begun.reorder([1])
    batch.admit(0, begun)
    row = batch.rows[1]
    assert row is not None
    batch.rows[0] = dict(row)
    batch.step(2)
    batch.release(2)
    batch.step(20)
    assert batch.admit() == 2
    batch.step(1)

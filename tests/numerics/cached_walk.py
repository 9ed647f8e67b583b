"""Sequences taken through a cache call by call, for the tests of the generated C++."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsec.backends.base import Cached, CachedKernel
from sparsec.backends.torch.cached import TorchCached
from sparsec.pipeline import Compilation, Lowered
from sparsec.reference.mask import mask
from sparsec.runtime.draws import draw_tables
from sparsec.sema import model as m
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap
from sparsec.testing.tolerance import assert_close, expected_attention

HEADS, KV_HEADS = 8, 2


def tokens(n: int) -> m.Term:
    return m.Window(n, 0, blocks=False)


def blocks(n: int) -> m.Term:
    return m.Window(n, 0, blocks=True)


def causal(*terms: m.Term) -> m.Term:
    return m.Intersection((m.Causal(), m.Union(terms)))


def heads(term: Callable[[int, int], m.Term], block: int = 16, score: m.Score | None = None) -> m.ResolvedPattern:
    terms = tuple(term(h, h // (HEADS // KV_HEADS)) for h in range(HEADS))
    return m.ResolvedPattern(HEADS, KV_HEADS, terms, block, (), m.Documents.NONE, score or m.Score())


def duo(h: int, g: int) -> m.Term:
    return m.Causal() if g == 1 else causal(m.Sink(4, False), tokens(70))


PATTERNS = {
    "causal": heads(lambda h, g: m.Causal()),
    "duo": heads(duo),
    "unlike_heads": heads(lambda h, g: duo(h, 1) if h in (1, 5, 7) else duo(h, 0)),  # packs of 1, 3 and 2
    "window_by_group": heads(lambda h, g: causal(m.Sink(5 + g, False), tokens(30 + 9 * g))),
    "windows_beside_dense": heads(lambda h, g: m.Causal() if h == 1 else causal(m.Sink(4, False), tokens(30 + 5 * h))),
    "s2": heads(lambda h, g: causal(blocks(2), m.Stride(4, -g % 4, True))),
    "s2_by_head": heads(lambda h, g: causal(blocks(2), m.Stride(4, -h % 4, True))),
    "token_stride": heads(lambda h, g: causal(tokens(5), m.Stride(37, 3 + h, False))),
    "chunk": heads(lambda h, g: m.Intersection((m.Causal(), m.Chunk(24, False)))),
    "random": heads(lambda h, g: causal(tokens(20), m.Random(2, 7, h)), block=32),
    "late": heads(lambda h, g: m.Intersection((m.Causal(), m.Columns(m.Edge(20 + 4 * g, False), None, False)))),
    "all_scores": heads(duo, score=m.Score(0.3, (Softcap(3.0), Alibi(), LearnedSink()))),
    "alibi": heads(lambda h, g: causal(m.Sink(5, False), blocks(3)), score=m.Score(None, (Alibi(),))),
}


@dataclass
class Arena:
    """A cache full of NaN, which shows where a slot is read that was never written."""

    kernel: CachedKernel
    batch: int
    max_len: int
    head_dim: int
    dtype: torch.dtype
    keys: Tensor = field(init=False)
    values: Tensor = field(init=False)
    places: Tensor = field(init=False)

    def __post_init__(self) -> None:
        layout, regions = self.kernel.plan.layout, self.kernel.plan.regions
        shape = self.batch, layout.slots(self.max_len), self.head_dim
        self.keys, self.values = (torch.full(shape, math.nan, dtype=self.dtype) for _ in range(2))
        table = [[*group, *[(0, 0)] * (regions - len(group))] for group in layout.places(self.max_len)]
        self.places = torch.tensor(table, dtype=torch.int32).view(-1, regions, 2)

    def seen(self, lengths: Sequence[int], counts: Sequence[int]) -> Cached:
        numbers = (torch.tensor(each, dtype=torch.int32) for each in (lengths, counts))
        return Cached(self.keys, self.values, *numbers, self.places)

    def bits(self) -> list[Tensor]:
        return [t.view(torch.int32 if t.dtype == torch.float32 else torch.int16) for t in (self.keys, self.values)]


@dataclass
class Walk:
    """A batch of sequences; `step` attends and stores as a call does, and `check` compares all of it."""

    of: m.ResolvedPattern
    kernel: CachedKernel
    batch: int = 1
    max_len: int = 400
    head_dim: int = 64
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        torch.manual_seed(self.max_len + self.batch)
        each = HEADS, KV_HEADS, KV_HEADS
        self.tensors = [torch.randn(self.batch, h, self.max_len, self.head_dim).to(self.dtype) for h in each]
        self.sink = torch.linspace(-3, 3, HEADS) if self.of.score.learned else None
        self.lists = draw_tables(self.kernel.plan.chunks.lists, self.max_len, 0, torch.device("cpu"))
        self.lengths = [0] * self.batch
        shape = self.batch, self.max_len, self.head_dim, self.dtype
        plain = TorchCached(Compilation(Lowered(self.of), self.head_dim, self.head_dim, "float32", "cpu").chunks)
        self.arena, self.plain = Arena(self.kernel, *shape), Arena(plain, *shape)
        self.out = torch.full_like(self.tensors[0], math.nan)
        self.lse = torch.full(self.out.shape[:3], math.nan)

    def call(self, rows: int, counts: Sequence[int]) -> list[Tensor]:
        """q, k, v of the next `rows` rows: each sequence's own last, and before them padding that is NaN."""
        made = []
        for tensor in self.tensors:
            part = tensor.new_full((*tensor.shape[:2], rows, self.head_dim), math.nan)
            for b, (length, count) in enumerate(zip(self.lengths, counts, strict=True)):
                part[b, :, rows - count :] = tensor[b, :, length : length + count]
            made.append(part)
        return made

    def attend(self, qkv: Sequence[Tensor], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        cache = self.arena.seen(self.lengths, counts)
        return self.kernel.attend(*qkv, cache, scale=None, lists=self.lists, sink=self.sink)

    def step(self, rows: int, counts: Sequence[int] | None = None) -> None:
        counts = [rows] * self.batch if counts is None else counts
        qkv = self.call(rows, counts)
        out, lse = self.attend(qkv, counts)
        assert out.dtype == self.dtype and lse.dtype == torch.float32 and out.is_contiguous()
        for arena in (self.arena, self.plain):
            arena.kernel.store(*qkv[1:], arena.seen(self.lengths, counts))
        assert all(map(torch.equal, self.arena.bits(), self.plain.bits())), "store differs from the torch target's"
        for b, count in enumerate(counts):
            padding = slice(0, rows - count)
            assert not out[b, :, padding].any() and lse[b, :, padding].isneginf().all()
            now = slice(self.lengths[b], self.lengths[b] + count)
            self.out[b, :, now], self.lse[b, :, now] = out[b, :, rows - count :], lse[b, :, rows - count :]
            self.lengths[b] += count

    def check(self) -> None:
        """What came out, row by row, against one dense pass over each whole sequence."""
        for b, length in enumerate(self.lengths):
            q, k, v = (tensor[b : b + 1, :, :length] for tensor in self.tensors)
            want = expected_attention(q, k, v, mask(self.of, length, length), self.of.score, sink=self.sink, q_offset=0)
            assert_close(self.out[b : b + 1, :, :length], self.lse[b : b + 1, :, :length], want)

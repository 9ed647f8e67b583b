"""The Triton kernels over a KV cache, in Triton's interpreter: sequences taken in chunks, against one dense pass.

Arenas start out full of NaN, so a slot that is read before it is written shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import pytest
import torch
from torch import Tensor
from triton_harness import in_interpreter, passes_in_the_interpreter

from sparsec.backends.base import Cached, CachedKernel
from sparsec.backends.torch.cached import TorchCached
from sparsec.backends.triton import cached_entries
from sparsec.backends.triton.cached import TritonCached
from sparsec.backends.triton.kernel import interpreted
from sparsec.pipeline import Lowered
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.target import DECODE_ROWS
from sparsec.reference.mask import mask
from sparsec.runtime.draws import draw_tables
from sparsec.sema import model as m
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap
from sparsec.testing.tolerance import assert_close, expected_attention

MAX_LEN = 160


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    """Triton decides at import whether it interprets."""
    passes_in_the_interpreter(__file__)


def causal_and(*terms: m.Term) -> m.Term:
    return m.Intersection((m.Causal(), m.Union(terms)))


def sink_window(h: int) -> m.Term:
    return causal_and(m.Sink(5, False), m.Window(21, 0, False))


def strided(h: int) -> m.Term:
    return causal_and(m.Sink(16, False), m.Window(2, 0, True), m.Stride(3, h % 3, True))


def by_group(h: int) -> m.Term:
    return strided(h // 2)


def duo(h: int) -> m.Term:
    """Heads of unlike groups, and in group 1 of unlike classes."""
    return m.Causal() if h < 3 else sink_window(h)


def chunked(h: int) -> m.Term:
    return m.Intersection((m.Causal(), m.Chunk(24, False)))


def drawn(h: int) -> m.Term:
    return causal_and(m.Window(1, 0, True), m.Random(2, 7, h))


def late(h: int) -> m.Term:
    """The first rows see no key."""
    return m.Intersection((m.Causal(), m.Columns(m.Edge(20, False), None, False)))


def pattern(
    term: Callable[[int], m.Term], heads: int = 4, kv_heads: int = 2, score: m.Score | None = None
) -> m.ResolvedPattern:
    return m.ResolvedPattern(
        heads, kv_heads, tuple(map(term, range(heads))), 16, (), m.Documents.NONE, score or m.Score()
    )


def planned(of: m.ResolvedPattern, head_dim: int, dtype: torch.dtype, query_tile: int) -> CachedPlan:
    name = str(dtype).removeprefix("torch.")
    return Lowered(of).plan_cached(head_dim=head_dim, dtype=name, query_tile=query_tile, key_tile=32)


@cache
def kernel_of(of: m.ResolvedPattern, head_dim: int = 16, dtype: torch.dtype = torch.float32) -> TritonCached:
    return TritonCached.of(planned(of, head_dim, dtype, 32), planned(of, head_dim, dtype, DECODE_ROWS))


@dataclass
class Arena:
    """A cache, and the kernels that write it."""

    kernel: CachedKernel
    batch: int
    head_dim: int
    dtype: torch.dtype
    keys: Tensor = field(init=False)
    values: Tensor = field(init=False)
    places: Tensor = field(init=False)

    def __post_init__(self) -> None:
        layout = self.kernel.plan.layout
        shape = (self.batch, layout.slots(MAX_LEN), self.head_dim)
        self.keys, self.values = (torch.full(shape, torch.nan, dtype=self.dtype) for _ in range(2))
        regions = self.kernel.plan.regions
        groups = layout.places(MAX_LEN)
        self.places = torch.tensor(
            [[*group, *[(0, 0)] * (regions - len(group))] for group in groups], dtype=torch.int32
        ).view(len(groups), regions, 2)

    def seen(self, lengths: Sequence[int], counts: Sequence[int]) -> Cached:
        numbers = (torch.tensor(each, dtype=torch.int32) for each in (lengths, counts))
        return Cached(self.keys, self.values, *numbers, self.places)

    def bits(self) -> tuple[Tensor, Tensor]:
        as_int = torch.int32 if self.dtype == torch.float32 else torch.int16
        return self.keys.view(as_int), self.values.view(as_int)


@dataclass
class Walk:
    """Sequences of a batch, taken through the cache step by step; `layout` makes each call's tensors."""

    of: m.ResolvedPattern
    batch: int = 1
    head_dim: int = 16
    dtype: torch.dtype = torch.float32
    layout: Callable[[Tensor], Tensor] = Tensor.clone

    def __post_init__(self) -> None:
        torch.manual_seed(self.of.heads + self.batch)
        self.kernel = kernel_of(self.of, self.head_dim, self.dtype)
        heads = self.of.heads, self.of.kv_heads, self.of.kv_heads
        self.tensors = [torch.randn(self.batch, h, MAX_LEN, self.head_dim).to(self.dtype) for h in heads]
        self.sink = torch.randn(self.of.heads) if self.of.score.learned else None
        self.lists = draw_tables(self.kernel.plan.chunks.lists, MAX_LEN, 0, torch.device("cpu"))
        self.lengths = [0] * self.batch
        self.arena = Arena(self.kernel, self.batch, self.head_dim, self.dtype)
        self.plain = Arena(
            TorchCached(planned(self.of, self.head_dim, self.dtype, 32)), self.batch, self.head_dim, self.dtype
        )
        self.out = torch.full_like(self.tensors[0], torch.nan)
        self.lse = torch.full(self.out.shape[:3], torch.nan)

    def call(self, rows: int, counts: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of the next `rows` rows: each sequence's own last, and before them padding that is NaN."""
        made = []
        for tensor in self.tensors:
            part = tensor.new_full((*tensor.shape[:2], rows, self.head_dim), torch.nan)
            for b, (length, count) in enumerate(zip(self.lengths, counts, strict=True)):
                part[b, :, rows - count :] = tensor[b, :, length : length + count]
            made.append(self.layout(part))
        return made[0], made[1], made[2]

    def attend(self, rows: int, counts: Sequence[int], scale: float | None = None) -> tuple[Tensor, Tensor]:
        cache = self.arena.seen(self.lengths, counts)
        return self.kernel.attend(*self.call(rows, counts), cache, scale=scale, lists=self.lists, sink=self.sink)

    def step(self, rows: int, counts: Sequence[int] | None = None, scale: float | None = None) -> None:
        counts = [rows] * self.batch if counts is None else counts
        out, lse = self.attend(rows, counts, scale)
        assert out.dtype == self.dtype and lse.dtype == torch.float32 and out.is_contiguous()
        _, k, v = self.call(rows, counts)
        for arena in (self.arena, self.plain):
            arena.kernel.store(k, v, arena.seen(self.lengths, counts))
        assert all(map(torch.equal, self.arena.bits(), self.plain.bits())), "store differs from the torch target's"
        for b, count in enumerate(counts):
            assert not out[b, :, : rows - count].any() and lse[b, :, : rows - count].isneginf().all()
            now = slice(self.lengths[b], self.lengths[b] + count)
            self.out[b, :, now], self.lse[b, :, now] = out[b, :, rows - count :], lse[b, :, rows - count :]
            self.lengths[b] += count

    def check(self, scale: float | None = None) -> None:
        """What came out, row by row, against one dense pass over each whole sequence."""
        for b, length in enumerate(self.lengths):
            q, k, v = (tensor[b : b + 1, :, :length] for tensor in self.tensors)
            score = self.of.score if scale is None else replace(self.of.score, scale=scale)
            want = expected_attention(q, k, v, mask(self.of, length, length), score, sink=self.sink, q_offset=0)
            assert_close(self.out[b : b + 1, :, :length], self.lse[b : b + 1, :, :length], want)


def walked(of: m.ResolvedPattern, steps: Sequence[int], **how: object) -> Walk:
    walk = Walk(of, **how)  # type: ignore[arg-type]
    for rows in steps:
        walk.step(rows)
    walk.check()
    return walk


@in_interpreter
@pytest.mark.parametrize(
    ("term", "heads", "kv_heads", "steps"),
    [
        (sink_window, 3, 1, (40, 1, 2, 5)),
        (strided, 2, 1, (56, 3)),
        (by_group, 4, 2, (40, 9, 1)),
        (duo, 4, 2, (30, 2)),
        (chunked, 2, 1, (40, 5, 9)),
        (drawn, 2, 1, (40, 5, 8)),
        (late, 1, 1, (5, 18, 3)),
    ],
)
def test_chunks_and_decoding_are_one_dense_pass(
    term: Callable[[int], m.Term], heads: int, kv_heads: int, steps: tuple[int, ...]
) -> None:
    walked(pattern(term, heads, kv_heads), steps)


@in_interpreter
def test_a_long_chunk_after_single_tokens() -> None:
    walked(pattern(strided, 1, 1), (1, 2, 100, 16))


@in_interpreter
@pytest.mark.parametrize(
    "score",
    [
        m.Score(None, (Softcap(3.0), Alibi())),
        m.Score(None, (Alibi((0.7, 0.05)),)),
        m.Score(None, (LearnedSink(),)),
        m.Score(scale=-0.5),
    ],
)
def test_score_modifiers(score: m.Score) -> None:
    walked(pattern(sink_window, 2, 1, score), (35, 3))


@in_interpreter
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_dim", [24, 32])
def test_dtypes_and_head_dims(dtype: torch.dtype, head_dim: int) -> None:
    walked(pattern(sink_window, 2, 1), (30, 4), dtype=dtype, head_dim=head_dim)


@in_interpreter
@pytest.mark.parametrize("score", [m.Score(), m.Score(None, (LearnedSink(),))])
def test_rows_of_other_lengths_and_padding(score: m.Score) -> None:
    walk = Walk(pattern(sink_window, 2, 1, score), batch=3)
    for rows, counts in ((18, [18, 5, 0]), (5, [0, 5, 2]), (1, [1, 0, 1]), (20, [3, 20, 0])):
        walk.step(rows, counts)
    walk.check()


@in_interpreter
@pytest.mark.parametrize(("splits", "merged"), [(1, 16), (2, 16), (17, 16), (2, 1)])
@pytest.mark.parametrize("score", [m.Score(), m.Score(None, (LearnedSink(),))])
def test_any_number_of_splits(splits: int, merged: int, score: m.Score, monkeypatch: pytest.MonkeyPatch) -> None:
    """`merged`: how many are merged at a time; those that come later may have the largest scores."""
    monkeypatch.setattr(cached_entries, "decode_splits", lambda *_: splits)
    monkeypatch.setattr(cached_entries, "MERGED", merged)
    kernel_of.cache_clear()  # kernels keep both
    walk = Walk(pattern(sink_window, 2, 1, score), batch=2)
    walk.tensors[1] *= torch.linspace(0.1, 16.0, MAX_LEN)[:, None]
    for rows, counts in ((40, [40, 27]), (2, [2, 1])):
        walk.step(rows, counts)
    walk.check()


@in_interpreter
def test_more_heads_than_a_program_takes() -> None:
    """5 heads of 13 rows are 65 rows."""
    walked(pattern(sink_window, 5, 1), (13,))


@in_interpreter
def test_a_scale_given_with_the_call() -> None:
    for scale in (0.0, 0.7):
        walk = Walk(pattern(sink_window, 2, 1))
        for rows in (20, 2):
            walk.step(rows, scale=scale)
        walk.check(scale)


@in_interpreter
@pytest.mark.parametrize("layout", ["heads last", "sliced", "reversed columns"])
def test_strides(layout: str) -> None:
    def laid(tensor: Tensor) -> Tensor:
        match layout:
            case "heads last":
                return tensor.transpose(1, 2).contiguous().transpose(1, 2)
            case "sliced":
                return torch.cat((torch.full_like(tensor[..., :1], torch.nan), tensor), 3)[..., 1:]
            case _:
                return tensor.mT.contiguous().mT

    walked(pattern(sink_window, 2, 2), (20, 3), layout=laid)


@in_interpreter
def test_two_runs_are_bit_equal() -> None:
    walk = Walk(pattern(duo))
    walk.step(20)
    for rows in (17, 2):
        first, second = (walk.attend(rows, [rows]) for _ in range(2))
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@in_interpreter
def test_nothing_to_do() -> None:
    walk = Walk(pattern(sink_window), batch=2)
    q, k, v = (tensor[:, :, :0] for tensor in walk.tensors)
    cached = walk.arena.seen([0, 0], [0, 0])
    out, lse = walk.kernel.attend(q, k, v, cached, scale=None)
    walk.kernel.store(k, v, cached)
    assert out.shape == q.shape and lse.shape == q.shape[:3]
    walk.step(3, [0, 0])

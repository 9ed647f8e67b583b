"""Packed documents in Triton's interpreter: outputs and gradients against dense attention, each document by itself.

`separate` keeps the positions of the packed sequence, `restart` counts them within each document.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from dense_gradients import Score
from torch import Tensor
from triton_harness import compare, in_interpreter, inputs, kernel_of, passes_in_the_interpreter, run

from sparsec.backends.triton.kernel import interpreted
from sparsec.backends.triton.packed import document_tiles
from sparsec.sema import model as m
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


KINDS = (m.Documents.SEPARATE, m.Documents.RESTART)
PACKINGS = {
    "one": [0, 50],
    "ends inside tiles": [0, 7, 40, 41, 60],
    "ends on tiles": [0, 16, 48, 64],
    "some empty": [0, 0, 20, 20, 20, 37, 37],
    "many tiny": [*range(0, 20, 2), 21],
}

Formula = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(i, j, number of keys) -> the set, for positions as the pattern counts them."""


def seen_of(formula: Formula, bounds: list[int], kind: m.Documents, heads: int) -> Tensor:
    """bool [heads, N, N]: documents by themselves."""
    n = bounds[-1]
    seen = torch.zeros(n, n, dtype=torch.bool)
    for begin, end in pairwise(bounds):
        restart = kind is m.Documents.RESTART
        at = torch.arange(end - begin) if restart else torch.arange(begin, end)
        seen[begin:end, begin:end] = formula(at[:, None], at[None, :], torch.tensor(end - begin if restart else n))
    return seen.expand(heads, n, n)


def pattern(term: m.Term, kind: m.Documents, heads: int = 2, score: m.Score | None = None) -> m.ResolvedPattern:
    return m.ResolvedPattern(heads, 1, (term,) * heads, 16, (), kind, score or m.Score())


STRIDED = m.Intersection((m.Causal(), m.Union((m.Sink(3, False), m.Window(1, 0, True), m.Stride(2, 1, True)))))


def strided(i: Tensor, j: Tensor, nk: Tensor) -> Tensor:
    return (j <= i) & ((j < 3) | (i // 16 == j // 16) | (j // 16 % 2 == 1))


@in_interpreter
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packing", PACKINGS)
def test_a_strided_pattern(packing: str, kind: m.Documents) -> None:
    bounds = PACKINGS[packing]
    n, heads = bounds[-1], 2 if packing == "ends inside tiles" else 1
    kernel = kernel_of(pattern(STRIDED, kind, heads), tiles=(16, 16))
    seen = seen_of(strided, bounds, kind, heads)
    compare(kernel, inputs(heads, 1, n, n), seen, cu_seqlens=torch.tensor(bounds, dtype=torch.int32))


@in_interpreter
@pytest.mark.parametrize("kind", KINDS)
def test_last_columns_a_window_and_tiles_of_two_sizes(kind: m.Documents) -> None:
    term = m.Union((m.Columns(m.Edge(-9, True), None, False), m.Window(12, 4, False)))

    def formula(i: Tensor, j: Tensor, nk: Tensor) -> Tensor:
        return (j >= nk - 9) | ((i - j < 12) & (j - i <= 4))

    bounds = [0, 21, 22, 61]
    kernel = kernel_of(pattern(term, kind, 1), 24, torch.bfloat16, (32, 16))
    tensors = inputs(1, 1, 61, 61, 24, torch.bfloat16)
    compare(kernel, tensors, seen_of(formula, bounds, kind, 1), cu_seqlens=torch.tensor(bounds, dtype=torch.int32))


@in_interpreter
@pytest.mark.parametrize("kind", KINDS)
def test_random_blocks(kind: m.Documents) -> None:
    term = m.Intersection((m.Causal(), m.Union((m.Window(1, 0, True), m.Random(1, 5, 0)))))
    mask = 2**64 - 1

    def drawn(block: int) -> int:
        z = (5 * 0x9E3779B97F4A7C15 + block * 0x94D049BB133111EB + 1) & mask
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return (z ^ (z >> 31)) % (block + 1)

    def formula(i: Tensor, j: Tensor, nk: Tensor) -> Tensor:
        blocks = torch.tensor([drawn(b) for b in (i[:, 0] // 16).tolist()], dtype=torch.int64)[:, None]
        return (j <= i) & ((i // 16 == j // 16) | (j // 16 == blocks))

    bounds = [0, 9, 80]
    kernel = kernel_of(pattern(term, kind, 1))
    seen = seen_of(formula, bounds, kind, 1)
    assert (seen[0].tril(-32)).any()
    compare(kernel, inputs(1, 1, 80, 80), seen, cu_seqlens=torch.tensor(bounds, dtype=torch.int32))


@in_interpreter
@pytest.mark.parametrize("kind", KINDS)
def test_with_every_score_modifier(kind: m.Documents) -> None:
    score = m.Score(None, (Softcap(2.0), Alibi(), LearnedSink()))
    bounds = [0, 13, 40]
    given = Score(None, 2.0, True, torch.tensor([0.5, -1.0]))
    seen = seen_of(strided, bounds, kind, 2)
    kernel = kernel_of(pattern(STRIDED, kind, 2, score))
    compare(kernel, inputs(2, 1, 40, 40), seen, 0, given, torch.tensor(bounds, dtype=torch.int32))


@in_interpreter
@pytest.mark.parametrize("kind", KINDS)
def test_another_document_does_not_matter(kind: m.Documents) -> None:
    kernel = kernel_of(pattern(STRIDED, kind, 1))
    bounds, tensors = torch.tensor([0, 21, 45], dtype=torch.int32), inputs(1, 1, 45, 45)
    before = run(kernel, tensors, 0, None, bounds)
    other = torch.arange(45) >= 21
    poisoned = tuple(t.masked_fill(other[None, None, :, None], torch.nan) for t in tensors[:4])
    after = run(kernel, (*poisoned, tensors[4]), 0, None, bounds)
    for one, two in zip(before, after, strict=True):
        assert torch.equal(one[:, :, :21], two[:, :, :21])
    assert after[0][:, :, 21:].isnan().all()


@in_interpreter
@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_no_document_are_zero(kind: m.Documents) -> None:
    kernel = kernel_of(pattern(STRIDED, kind, 1))
    for bounds in ([0, 10, 30], [0]):
        out, lse, *gradients = run(kernel, inputs(1, 1, 40, 40), 0, None, torch.tensor(bounds, dtype=torch.int32))
        past = bounds[-1]
        assert lse[:, :, past:].isneginf().all() and not out[:, :, past:].any()
        assert all(not gradient[:, :, past:].any() for gradient in gradients)


@in_interpreter
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("packing", PACKINGS)
def test_every_tile_of_every_document_is_listed_once(packing: str, restart: bool) -> None:
    bounds = PACKINGS[packing]
    table = document_tiles(torch.tensor(bounds, dtype=torch.int32), bounds[-1], 16, restart=restart)
    expected = []
    for begin, end in pairwise(bounds):
        tiles = range(-(-(end - begin) // 16)) if restart else range(begin // 16, -(-end // 16))
        expected += [[tile, begin, end] for tile in tiles if begin < end]
    assert table.dtype == torch.int32 and len(table) == -(-bounds[-1] // 16) + len(bounds) - 1
    assert table[: len(expected)].tolist() == expected and not table[len(expected) :].any()


@in_interpreter
def test_a_thousand_documents() -> None:
    lengths = torch.arange(1_000) % 7
    bounds = torch.cat((torch.zeros(1), lengths.cumsum(0))).to(torch.int32)
    for restart in (False, True):
        table = document_tiles(bounds, int(bounds[-1]), 16, restart=restart)
        assert len(table) <= int(bounds[-1]) // 16 + 1_001
        used = table[table[:, 2] > table[:, 1]].long()
        start = used[:, 0] * 16 + (used[:, 1] if restart else 0)
        rows = torch.minimum(start + 16, used[:, 2]) - torch.maximum(start, used[:, 1])
        assert rows.min() > 0 and rows.sum() == bounds[-1]

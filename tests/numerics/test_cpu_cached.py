"""The generated C++ over a KV cache: chunks and single rows against one dense pass, and what storing leaves."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from cached_walk import HEADS, KV_HEADS, PATTERNS, Walk
from cpu_patterns import DTYPES, layouts
from torch import Tensor

from sparsec.backends.base import Cached
from sparsec.backends.cpu.cached import CpuCached, build_cached
from sparsec.backends.cpu.kernel import has_compiler
from sparsec.diagnostics.model import CallError
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.target import CPU_FEW_ROWS
from sparsec.reference.mask import mask
from sparsec.sema.model import ResolvedPattern

pytestmark = pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")

CHUNKS = (1, 100, 1, 1, 5, 2, 1, 40, 2, 5, 100, 1, 1, 40, 1)
OTHERS = (("alibi", "bfloat16", 64), ("duo", "float16", 64), ("unlike_heads", "float32", 20))
OTHERS += (("random", "float16", 20), ("all_scores", "bfloat16", 72), ("s2", "float32", 300))
OTHERS += (("duo", "float32", 128), ("causal", "bfloat16", 128))  # rows that meet two heads of a pack at a time


def plans_of(of: ResolvedPattern, head_dim: int, dtype: str) -> tuple[CachedPlan, CachedPlan]:
    return Compilation(Lowered(of), head_dim, head_dim, dtype, "cpu").cached


@cache
def kernels() -> dict[str, CpuCached]:
    plans = [plans_of(of, 64, "float32") for of in PATTERNS.values()]
    return dict(zip(PATTERNS, build_cached(plans, optimise=1), strict=True))


@cache
def others() -> dict[tuple[str, str, int], CpuCached]:
    plans = [plans_of(PATTERNS[name], head_dim, dtype) for name, dtype, head_dim in OTHERS]
    return dict(zip(OTHERS, build_cached(plans, optimise=1), strict=True))


def walk_of(name: str, batch: int = 1, max_len: int = 400) -> Walk:
    return Walk(PATTERNS[name], kernels()[name], batch, max_len)


def chunk_rows(name: str) -> int:
    """The fewest rows that the kernel of chunks takes."""
    return kernels()[name].few + 1


def run_at(walk: Walk, length: int) -> Walk:
    """The walk, with all of its sequences `length` tokens long."""
    walk.step(length)
    return walk


@pytest.mark.parametrize("name", PATTERNS)
def test_chunks_and_single_rows_are_one_dense_pass(name: str) -> None:
    walk = walk_of(name)
    for rows in CHUNKS:
        walk.step(rows)
    walk.check()


@pytest.mark.parametrize("name", ["unlike_heads", "s2", "random", "all_scores"])
def test_rows_of_other_lengths_and_padding(name: str) -> None:
    walk = walk_of(name, batch=3)
    for rows, counts in ((40, [40, 17, 0]), (2, [1, 2, 0]), (5, [0, 5, 2]), (1, [1, 0, 1]), (100, [63, 100, 0])):
        walk.step(rows, counts)
    walk.step(1)
    walk.check()


@pytest.mark.parametrize("request_", OTHERS, ids=str)
def test_dtypes_and_head_dims(request_: tuple[str, str, int]) -> None:
    name, dtype, head_dim = request_
    walk = Walk(PATTERNS[name], others()[request_], 2, 200, head_dim, DTYPES[dtype])
    for rows, counts in ((100, [100, 30]), (1, [1, 1]), (2, [2, 1]), (40, [40, 31]), (5, [5, 5]), *[(1, [1, 1])] * 20):
        walk.step(rows, counts)
    walk.check()


@pytest.mark.parametrize(("name", "growth"), [("causal", 0), ("causal", 8), ("s2_by_head", 0), ("s2_by_head", 8)])
def test_a_row_shared_by_several_tasks(name: str, growth: int) -> None:
    walk = walk_of(name, max_len=2500)
    walk.tensors[1] *= 1 + torch.linspace(0, growth, 2500)[:, None]  # the maximum moves from share to share
    for rows in (2200, 1, 2, 1):
        walk.step(rows)
    chunk, rows = walk_of(name, max_len=2500), chunk_rows(name)
    chunk.tensors = walk.tensors
    run_at(chunk, 2204 - rows)
    out, lse = (t[:, :, -4:] for t in chunk.attend(chunk.call(rows, [rows]), [rows]))
    last = slice(2200, 2204)
    torch.testing.assert_close(walk.out[:, :, last], out, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(walk.lse[:, :, last], lse, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["unlike_heads", "s2_by_head", "random", "all_scores"])
def test_each_row_of_a_chunk_is_what_decoding_gives(name: str) -> None:
    chunk, single = (run_at(walk_of(name), 90) for _ in range(2))
    chunk.step(40)
    for _ in range(40):
        single.step(1)
    torch.testing.assert_close(chunk.out[:, :, :130], single.out[:, :, :130], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(chunk.lse[:, :, :130], single.lse[:, :, :130], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [1, CPU_FEW_ROWS, 40])
def test_threads_do_not_change_a_bit(rows: int) -> None:
    walk = run_at(walk_of("unlike_heads", batch=2, max_len=1700), 1600)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(walk.attend(walk.call(rows, [rows, rows - 1]), [rows, rows - 1]))
    finally:
        torch.set_num_threads(before)
    for out, lse in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(lse, results[0][1])


@pytest.mark.parametrize("rows", [1, 2, 40])
@pytest.mark.parametrize("request_", OTHERS[:2], ids=str)
def test_strides(request_: tuple[str, str, int], rows: int) -> None:
    name, dtype, head_dim = request_
    walk = run_at(Walk(PATTERNS[name], others()[request_], 2, 200, head_dim, DTYPES[dtype]), 90)
    qkv = walk.call(rows, [rows, rows])
    want = walk.attend(qkv, [rows, rows])
    cached, before = walk.arena.seen(walk.lengths, [rows, rows]), [bits.clone() for bits in walk.arena.bits()]
    walk.kernel.store(*qkv[1:], cached)
    stored = [bits.clone() for bits in walk.arena.bits()]
    for strided in zip(*(layouts(t) for t in qkv), strict=True):
        for arena, bits in zip(walk.arena.bits(), before, strict=True):
            arena.copy_(bits)
        assert all(map(torch.equal, walk.attend(strided, [rows, rows]), want))
        walk.kernel.store(*strided[1:], cached)
        assert all(map(torch.equal, walk.arena.bits(), stored))


def test_a_visible_nan_shows() -> None:
    walk = walk_of("causal", batch=2)
    walk.tensors[1][0, 0, 30] = math.nan
    for rows in (25, 10, 1):
        walk.step(rows)
    assert walk.out[0, :4, 30:36].isnan().all() and walk.lse[0, :4, 30:36].isnan().all()
    assert not walk.out[0, :, :30].isnan().any() and not walk.out[1, :, :36].isnan().any()


def test_a_count_of_visible_keys() -> None:
    for name, kernel in kernels().items():
        if PATTERNS[name].score.modifiers:
            continue
        walk = Walk(PATTERNS[name], kernel)
        walk.tensors[0].zero_()
        for rows in (100, 1, 30, 2, 1):
            walk.step(rows)
        counts = mask(PATTERNS[name], 134, 134).sum(-1)
        assert torch.equal(walk.lse[0, :, :134].exp().round().long(), counts), name


@pytest.mark.parametrize(("batch", "rows"), [(0, 1), (2, 0), (0, 5)])
def test_nothing_to_do(batch: int, rows: int) -> None:
    walk = walk_of("duo", batch)
    qkv = walk.call(rows, [rows] * batch)
    out, lse = walk.attend(qkv, [rows] * batch)
    walk.kernel.store(*qkv[1:], walk.arena.seen(walk.lengths, [rows] * batch))
    assert out.shape == (batch, HEADS, rows, 64) and lse.shape == (batch, HEADS, rows)


def refused(walk: Walk, qkv: list[Tensor], cached: Cached) -> None:
    """Both calls are, and leave the cache as it was."""
    before = [bits.clone() for bits in walk.arena.bits()]
    with pytest.raises(CallError, match="expected"):
        walk.kernel.attend(*qkv, cached, scale=None, lists=walk.lists)
    with pytest.raises(CallError, match="expected"):
        walk.kernel.store(*qkv[1:], cached)
    assert all(map(torch.equal, walk.arena.bits(), before))


@pytest.mark.parametrize("rows", [1, 5])
def test_calls_with_an_address_out_of_bounds_are_refused(rows: int) -> None:
    walk = run_at(walk_of("random", batch=2), 40)
    qkv, good = walk.call(rows, [rows, rows]), walk.arena.seen(walk.lengths, [rows, rows])
    for counts in ([rows, -1], [rows, rows + 1]):
        refused(walk, qkv, walk.arena.seen(walk.lengths, counts))
    refused(walk, qkv, walk.arena.seen([40, -1], [rows, rows]))
    refused(walk, qkv, replace(good, places=good.places + torch.tensor([0, 1])))
    refused(walk, qkv, replace(good, places=good.places - torch.tensor([1, 0])))
    refused(walk, qkv, replace(good, keys=good.keys[:, :-1]))
    refused(walk, qkv, replace(good, keys=good.keys.half(), values=good.values.half()))
    refused(walk, qkv, replace(good, lengths=good.lengths[:1]))
    refused(walk, qkv, replace(good, counts=good.counts.long()))
    with pytest.raises(CallError, match="at most 416 tokens"):  # the tables of draws end there
        walk.kernel.attend(*qkv, walk.arena.seen([416, 40], [rows, rows]), scale=None, lists=walk.lists)
    for bad in ([qkv[0].double(), *qkv[1:]], [qkv[0][:, :KV_HEADS], *qkv[1:]], [qkv[0], qkv[1][..., :8], qkv[2]]):
        with pytest.raises(CallError, match="expected"):
            walk.kernel.attend(*bad, good, scale=None, lists=walk.lists)

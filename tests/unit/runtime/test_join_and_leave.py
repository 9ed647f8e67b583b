"""`KVCache.release`, `KVCache.admit` and caches that grow: what they take, and what they leave as it was."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.growth import FIRST
from sparsec.runtime.module import SparseAttention

STREAM = "pattern p { heads 4 kv 2  causal  attend sink(4) | window(24) }"
KEPT = "pattern p { heads 4 kv 2  causal  input kept : tokens  attend window(6) | kept }"
pytestmark = pytest.mark.filterwarnings("ignore:the cache keeps every key")


@pytest.fixture(scope="module")
def attn() -> SparseAttention:
    return sparsec.compile(STREAM, head_dim=16, target="torch")


@pytest.fixture(scope="module")
def keeper() -> SparseAttention:
    return sparsec.compile(KEPT, head_dim=16, target="torch")


def tokens(n: int, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn((batch, heads, n, 16), generator=generator) for heads in (4, 2, 2))
    return q, k, v


def part(call: tuple[Tensor, Tensor, Tensor], first: int, last: int) -> list[Tensor]:
    return [t[:, :, first:last] for t in call]


def held(cache: KVCache) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in cache.state_dict().items()}


def test_a_row_is_given_back_and_filled_again(attn: SparseAttention) -> None:
    call, cache = tokens(40), attn.new_cache(2, 50)
    attn(*part(call, 0, 30), cache=cache)
    cache.release(1)
    assert cache.released == (1,) and cache.lengths == (30, 0)
    out, lse, mass = attn(*part(call, 30, 32), cache=cache, return_lse=True, return_mass=True)
    assert not out[1].any() and bool(lse[1].isneginf().all()) and mass.shape[2] == 32 and not mass[1].any()
    torch.testing.assert_close(out[:1], attn(*(t[:1, :, :32] for t in call))[:, :, 30:])
    assert cache.admit() == 1 and cache.released == () and cache.lengths == (32, 0)
    out = attn(*part(call, 32, 33), cache=cache)
    torch.testing.assert_close(out[1:], attn(*(t[1:, :, 32:33] for t in call)))
    cache.release([0, 1])
    assert cache.released == (0, 1) and cache.length == 0
    assert not attn(*part(call, 0, 1), cache=cache).any() and cache.length == 0
    cache.reset()
    assert cache.released == ()


def test_an_admitted_row_goes_on_from_a_sequence(attn: SparseAttention) -> None:
    """Which a cache of its own has read, with another length."""
    call, cache = tokens(60), attn.new_cache(2, 70, rollback=2)
    attn(*part(call, 0, 30), cache=cache)
    for max_len in (50, 100):
        alone = attn.new_cache(1, max_len, rollback=2)
        attn(*(t[1:] for t in part(call, 0, 45)), cache=alone)
        cache.release(1)
        assert cache.admit(1, alone) == 1 and cache.lengths[1] == alone.length == 45
        out = attn(*part(call, 45, 46), cache=cache, lengths=[0, 1])
        torch.testing.assert_close(out[1:], attn(*(t[1:, :, :46] for t in call))[:, :, 45:])
        cache.truncate([30, 44])
        with pytest.raises(CallError, match="has been overwritten"):
            cache.truncate([30, 40])
        assert alone.length == 45
        alone.truncate(43)
        cache.release(1)
        cache.admit(1, alone)
        with pytest.raises(CallError, match="has been overwritten"):  # by what it has had
            cache.truncate([30, 41])
        cache.truncate([30, 42])


def test_refusals(attn: SparseAttention, keeper: SparseAttention) -> None:
    call, cache = tokens(20), attn.new_cache(2, 20, rollback=1)
    attn(*part(call, 0, 10), cache=cache)
    cache.release(0)
    before = held(cache)
    for rows in (0, [1, 0], [1, 1]):
        with pytest.raises(CallError, match=r"expected the row of a sequence in use, got [01], which is released"):
            cache.release(rows)
    for row in (2, -1):
        with pytest.raises(CallError, match=f"expected row between 0 and 1, got {row}"):
            cache.release(row)
    with pytest.raises(
        CallError, match=r"expected no token of sequence 0, which is released, got 1; .* KVCache.admit\(0\)"
    ):
        attn(*part(call, 10, 12), cache=cache, lengths=[1, 2])
    with pytest.raises(CallError, match="expected a released row, got 1, whose sequence is in use"):
        cache.admit(1)
    longer = attn.new_cache(1, 40, rollback=1)
    attn(*tokens(21, 1), cache=longer)
    for sequence, reason in (
        (attn.new_cache(2, 20, rollback=1), "one sequence in use, got 2"),
        (attn.new_cache(1, 20), "rollback 1 on cpu, got rollback 0 on cpu"),
        (keeper.new_cache(1, 20, rollback=1), "another pattern or dtype"),
        (longer, "at most 20 tokens, got 21"),
        (7, "sequence of type KVCache, got int"),
    ):
        with pytest.raises(CallError, match=reason):
            cache.admit(0, sequence)  # type: ignore[arg-type]  # what no caller should give
    assert all(torch.equal(each, before[name]) for name, each in cache.state_dict().items())
    cache.admit()
    with pytest.raises(CallError, match="expected a released row, got a cache whose 2 sequences are all in use"):
        cache.admit()


def test_released_rows_stay_so_in_copies(attn: SparseAttention) -> None:
    call, cache = tokens(20), attn.new_cache(2, 20)
    attn(*part(call, 0, 10), cache=cache)
    cache.release(0)
    fork, loaded = cache.fork(), attn.new_cache(1, 20)
    loaded.load_state_dict(cache.state_dict())
    cache.admit(0)
    for other in (fork, loaded):
        assert other.released == (0,)
        other.reorder([1, 0, 0])
        assert other.released == (1, 2)
        three = [t[[1, 0, 0]] for t in part(call, 10, 11)]
        torch.testing.assert_close(attn(*three, cache=other)[:1], attn(*(t[1:, :, :11] for t in call))[:, :, 10:])
        assert other.lengths == (11, 0, 0)
    wrong = held(loaded)
    wrong["lengths"][1] = 1
    with pytest.raises(CallError, match="expected released sequences without tokens"):
        loaded.load_state_dict(wrong)


def test_the_memory_of_marked_keys_is_given_back(keeper: SparseAttention) -> None:
    every, cache = torch.ones(2, 1, 30, dtype=torch.bool), keeper.new_cache(2, 60)
    keeper(*tokens(30), cache=cache, inputs={"kept": every})
    cache.keep("kept", every)
    sizes = [cache.nbytes]
    cache.release(0)
    sizes.append(cache.nbytes)
    cache.release(1)
    sizes.append(cache.nbytes)
    freed, rest = sizes[0] - sizes[1], sizes[1] - sizes[2]
    assert freed == rest == 2 * (30 + 30 // 16 + 8) * (2 * 16 * 4 + 2 * 4)  # of both groups a list of 39 entries
    cache.admit(1)
    keeper(*tokens(3), cache=cache, inputs={"kept": every[..., :3]})
    assert cache.kept is not None and cache.kept.lists[..., 2].tolist() == [[0, 0], [3, 3]]
    assert cache.kept.lists[0, :, 1].tolist() == [0, 0]


def test_lists_with_a_room_stay_where_they_are(keeper: SparseAttention) -> None:
    """For CUDA graphs, which read them there."""
    every, cache = torch.ones(2, 1, 30, dtype=torch.bool), keeper.new_cache(2, 60)
    keeper(*tokens(30), cache=cache, inputs={"kept": every})
    cache.keep("kept", every & (torch.arange(30) < 4), room=2)
    assert cache.kept is not None
    lists, size, long = cache.kept.lists, cache.nbytes, keeper.new_cache(1, 60)
    cache.release(0)
    assert cache.kept.lists is lists and cache.nbytes == size and not lists[0, :, 2].any()
    keeper(*tokens(20, 1), cache=long, inputs={"kept": every[:1, :, :20]})
    with pytest.raises(CallError, match=r"at most \[6, 6\] marked keys in each KV group, .* got \[20, 20\]"):
        cache.admit(0, long)
    assert cache.released == (0,)
    cache.admit(0)
    keeper(*tokens(6), cache=cache, lengths=[6, 0], inputs={"kept": every[..., :6]})
    with pytest.raises(CallError, match="at most 0 more marked keys"):
        keeper(*tokens(1), cache=cache, lengths=[1, 0], inputs={"kept": every[..., :1]})


@pytest.mark.filterwarnings("ignore")
def test_one_graph_of_the_compiler_serves_rows_that_come_and_go(attn: SparseAttention) -> None:
    call, graphs = tokens(40), []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    cache = attn.new_cache(2, 60)
    step = torch.compile(lambda q, k, v: attn(q, k, v, cache=cache), backend=backend, fullgraph=True)
    with torch.no_grad():
        attn(*part(call, 0, 30), cache=cache)
        for at in range(30, 34):
            out = step(*part(call, at, at + 1))
        torch.testing.assert_close(out, attn(*part(call, 0, 34))[:, :, 33:])
        cache.release(0)
        out = step(*part(call, 34, 35))
        assert not out[0].any()
        cache.admit(0)
        out = step(*part(call, 35, 36))
    torch.testing.assert_close(out[:1], attn(*(t[:1, :, 35:36] for t in call)))
    assert cache.lengths == (1, 36) and len(graphs) == 1


def test_a_cache_without_a_length_grows(attn: SparseAttention) -> None:
    call, cache = tokens(6 * FIRST), attn.new_cache(2)
    whole, room = attn(*call), []
    for first, last in pairwise((0, 9, FIRST, FIRST + 1, 5 * FIRST, 6 * FIRST)):
        out = attn(*part(call, first, last), cache=cache)
        torch.testing.assert_close(out, whole[:, :, first:last])
        room.append(cache.max_len)
    assert room == [FIRST, FIRST, 2 * FIRST, 6 * FIRST, 6 * FIRST]
    assert cache.nbytes == attn.new_cache(2, 40).nbytes, "a window's slots are all there from the start"
    saved, chat = cache.state_dict(), attn.new_cache()
    chat.load_state_dict(saved)
    assert chat.max_len == 6 * FIRST and chat.lengths == (6 * FIRST,) * 2
    with pytest.raises(CallError, match=f"the state of a cache with max_len 9, got {6 * FIRST}"):
        attn.new_cache(2, 9).load_state_dict(saved)
    small = attn.new_cache(1)
    chat.load_state_dict(small.state_dict())
    assert chat.max_len == FIRST and chat.lengths == (0,)


def test_room_is_asked_for_by_what_each_sequence_needs(attn: SparseAttention) -> None:
    call, cache = tokens(FIRST), attn.new_cache(2)
    attn(*part(call, 0, FIRST - 4), cache=cache, lengths=[FIRST - 4, 3])
    attn(*part(call, 0, 8), cache=cache, lengths=[4, 8])
    assert cache.max_len == FIRST and cache.lengths == (FIRST, 11)
    attn(*part(call, 0, 8), cache=cache, lengths=[0, 8])
    assert cache.max_len == FIRST
    attn(*part(call, 0, 8), cache=cache, lengths=[1, 8])
    assert cache.max_len == 2 * FIRST and cache.lengths == (FIRST + 1, 27)
    fixed = attn.new_cache(2, 10)
    with pytest.raises(CallError, match=r"at most 10 tokens .* nothing was written; KVCache.grow makes room for more"):
        attn(*part(call, 0, 11), cache=fixed)
    with pytest.raises(CallError, match="expected max_len between 10 and"):
        fixed.grow(9)
    fixed.grow(11)
    torch.testing.assert_close(attn(*part(call, 0, 11), cache=fixed), attn(*part(call, 0, 11)))

"""`KVCache.keep`: what it takes, gives back and refuses, method by method."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.backends.base import no_kept
from sparsec.diagnostics.model import CallError
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.module import SparseAttention

pytestmark = pytest.mark.filterwarnings("ignore:the cache keeps every key")
TEXT = "pattern p { heads 4 kv 2 causal input kept : tokens attend sink(4) | window(8) | kept }"
FAR = "pattern p { heads 4 kv 2 causal input kept : tokens attend window(8) | kept & window(20) }"
CPU = pytest.param("cpu", marks=pytest.mark.kernels)
BATCH, DIM = 2, 16


def module(text: str = TEXT, target: str = "torch") -> SparseAttention:
    return sparsec.compile(text, head_dim=DIM, target=target, device="cpu")


@pytest.fixture(scope="module", params=["torch", CPU])
def attn(request: pytest.FixtureRequest) -> SparseAttention:
    return module(target=request.param)


def tokens(n: int, seed: int = 0, batch: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn((batch, heads, n, DIM), generator=generator) for heads in (4, 2, 2))
    return q, k, v


def marks(n: int, share: float, heads: int = 2, seed: int = 0) -> Tensor:
    return torch.rand((BATCH, heads, n), generator=torch.Generator().manual_seed(seed)) < share


def filled(attn: SparseAttention, n: int, marked: Tensor, **given: int) -> KVCache:
    cache = attn.new_cache(BATCH, 300, **given)
    attn(*tokens(n), cache=cache, inputs={"kept": marked})
    return cache


def test_memory_is_given_back_by_sequence_and_group(attn: SparseAttention) -> None:
    cache = filled(attn, 200, torch.ones(BATCH, 2, 200, dtype=torch.bool))
    before, left = cache.nbytes, marks(200, 0.5)
    left[0, 1] = False
    cache.keep("kept", left, room=0)
    assert cache.kept is not None
    assert cache.kept.lists[..., 2].tolist() == left.sum(-1).tolist()
    key_bytes = 2 * DIM * 4
    own = int(left.sum()) * key_bytes
    regions = BATCH * 2 * 12 * key_bytes
    assert cache.nbytes - regions <= 1.2 * own + 16 * (key_bytes + 8) < before / 2
    cache.keep("kept", torch.zeros(BATCH, 200, dtype=torch.bool), room=0)
    assert cache.nbytes - regions <= 16 * (key_bytes + 8)


@pytest.mark.kernels
def test_without_a_room_memory_stays_near_that_of_the_kept_keys() -> None:
    attn = module(target="cpu")
    cache = attn.new_cache(BATCH, 4096)
    every = torch.ones(BATCH, 2, 4000, dtype=torch.bool)
    attn(*tokens(4000), cache=cache, inputs={"kept": every})
    left = marks(4000, 0.1)
    cache.keep("kept", left)
    assert cache.nbytes <= 1.2 * int(left.sum()) * 2 * DIM * 4


@pytest.mark.parametrize(("before", "n"), [(90, 3), (250, 3), (250, 20)])
def test_a_step_is_attention_to_what_is_left(attn: SparseAttention, before: int, n: int) -> None:
    """Of lists of less than a tile's keys, and of more; by the kernels of few queries and of many."""
    oracle = module(target="reference")
    marked, left = marks(before, 0.6, 4), marks(before, 0.5 if before < 100 else 0.9, 4, seed=1)
    cache = filled(attn, before, marked)
    cache.keep("kept", marked & left)
    new = marks(n, 0.5, 4, seed=2)
    found, lse = attn(*(each := tokens(n, 1)), cache=cache, inputs={"kept": new}, return_lse=True)
    k, v = (torch.cat([a, b], 2) for a, b in zip(tokens(before)[1:], each[1:], strict=True))
    wanted, of = oracle(each[0], k, v, inputs={"kept": torch.cat([marked & left, new], 2)}, return_lse=True)
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(lse, of, atol=2e-6, rtol=1e-5)


def test_keys_stay_as_long_as_a_window_of_marked_ones_reaches() -> None:
    attn, oracle, every = module(FAR), module(FAR, "reference"), torch.ones(BATCH, 1, 61, dtype=torch.bool)
    cache = filled(attn, 60, every[..., :60])
    cache.keep("kept", every[..., :60])
    assert cache.kept is not None and cache.kept.entries[0, :19].tolist() == list(range(41, 60))
    q, *new = tokens(1, 1)
    k, v = (torch.cat([a, b], 2) for a, b in zip(tokens(60)[1:], new, strict=True))
    found = attn(q, *new, cache=cache, inputs={"kept": every[..., :1]})
    torch.testing.assert_close(found, oracle(q, k, v, inputs={"kept": every}), atol=2e-6, rtol=1e-5)


def test_refusals(attn: SparseAttention) -> None:
    marked = marks(50, 0.5)
    cache = filled(attn, 50, marked)
    held = {name: each.clone() for name, each in cache.state_dict().items()}
    wrong = marked.clone()
    wrong[1, 1, 7] = True
    marked[1, 1, 7] = False
    cache.keep("kept", marked)
    with pytest.raises(CallError, match="got a new one of key 7 for head 2 of sequence 1"):
        cache.keep("kept", wrong)
    other = attn.new_cache(BATCH, 300)
    other.load_state_dict(held)
    for name, given, said in (
        ("other", marked, "of kind tokens \\(kept\\), got 'other'"),
        ("kept", marked[..., 1:], "expected marks bool"),
        ("kept", marked.int(), "expected marks bool"),
        ("kept", torch.ones(BATCH, 50, dtype=torch.bool), "expected marks that were there before"),
    ):
        with pytest.raises(CallError, match=said):
            other.keep(name, given)
    assert all(torch.equal(each, held[name]) for name, each in other.state_dict().items())
    with pytest.raises(CallError, match="there is none"):
        plain = sparsec.compile("pattern p { causal attend full }", heads=4, kv_heads=2, head_dim=DIM, target="torch")
        plain.new_cache(BATCH, 10).keep("kept", marked)


def test_a_room_is_kept_to(attn: SparseAttention) -> None:
    cache = filled(attn, 50, marks(50, 0.5))
    cache.keep("kept", torch.zeros(BATCH, 1, 50, dtype=torch.bool), room=5)
    every = torch.ones(BATCH, 1, 4, dtype=torch.bool)
    attn(*tokens(4, 1), cache=cache, inputs={"kept": every})
    held = {name: each.clone() for name, each in cache.state_dict().items()}
    with pytest.raises(CallError, match="at most 1 more marked keys in a list of kept ones, got 4 in sequence 0"):
        attn(*tokens(4, 2), cache=cache, inputs={"kept": every})
    assert all(torch.equal(each, held[name]) for name, each in cache.state_dict().items())
    attn(*tokens(1, 3), cache=cache, inputs={"kept": every[..., :1]})
    assert cache.lengths == (55, 55)


def test_a_list_grows(attn: SparseAttention) -> None:
    cache = filled(attn, 50, marks(50, 0.5))
    cache.keep("kept", torch.zeros(BATCH, 1, 50, dtype=torch.bool))
    for n in range(100):
        attn(*tokens(1, n), cache=cache, inputs={"kept": torch.ones(BATCH, 1, 1, dtype=torch.bool)})
    assert cache.kept is not None
    assert bool((cache.kept.lists[..., 2] == 100).all()) and bool((cache.kept.lists[..., 1] < 140).all())
    assert cache.kept.entries[0, :100].tolist() == list(range(50, 150))


def test_truncation_is_exact_or_refused() -> None:
    attn, marked = module(FAR), marks(60, 0.7)
    cache = filled(attn, 60, marked, rollback=30)
    cache.keep("kept", marked)
    with pytest.raises(CallError, match="a length of at least 60 for sequence 0, at which `keep` dropped"):
        cache.truncate(59)
    attn(*tokens(3, 1), cache=cache, inputs={"kept": torch.ones(BATCH, 1, 3, dtype=torch.bool)})
    cache.truncate([63, 60])
    assert cache.lengths == (63, 60) and cache.kept is not None
    assert cache.kept.entries[0, cache.kept.lists[0, 0, :2].sum() - 1] <= 63
    near = module()
    cache = filled(near, 60, marked)
    cache.keep("kept", marked)
    with pytest.raises(CallError, match="has been overwritten"):
        cache.truncate(40)
    cache.truncate(59)
    cache.reset()
    assert cache.length == 0 and cache.kept is not None and not cache.kept.lists[..., 2].any()


def test_truncation_knows_what_was_lost_before_keys_were_dropped() -> None:
    """At 57 tokens after 60, with room to roll back 6: what 53 tokens need is there, and not what 52 do."""
    attn = module("pattern p { heads 4 kv 2 causal input kept : tokens attend window(8) | kept & columns(0..4) }")
    marked = marks(60, 0.5)
    cache = filled(attn, 60, marked, rollback=6)
    cache.truncate(57)
    cache.keep("kept", marked[..., :57])
    with pytest.raises(CallError, match="has been overwritten"):
        cache.truncate(52)
    cache.truncate(53)


def test_padding_is_not_kept(attn: SparseAttention) -> None:
    cache = filled(attn, 20, marks(20, 0.5))
    cache.keep("kept", torch.zeros(BATCH, 1, 20, dtype=torch.bool))
    attn(*tokens(4, 1), cache=cache, inputs={"kept": torch.ones(BATCH, 1, 4, dtype=torch.bool)}, lengths=[1, 3])
    assert cache.kept is not None and cache.kept.lists[..., 2].tolist() == [[1, 1], [3, 3]]
    base = int(cache.kept.lists[1, 0, 0])
    assert cache.kept.entries[0, base : base + 3].tolist() == [20, 21, 22]


def test_copies_and_states(attn: SparseAttention) -> None:
    marked = marks(50, 0.5)
    cache = filled(attn, 50, marked)
    cache.keep("kept", marked & marks(50, 0.5, seed=1))
    fork, call = cache.fork(), {"inputs": {"kept": marks(1, 0.5)}}
    wanted = attn(*tokens(1, 5), cache=fork, **call)
    loaded = attn.new_cache(1, 300)
    loaded.load_state_dict(cache.state_dict())
    assert torch.equal(attn(*tokens(1, 5), cache=loaded, **call), wanted)
    bad = {name: each.clone() for name, each in cache.state_dict().items()}
    bad["kept lists"][0, 0, 0] = 10_000
    with pytest.raises(CallError, match="expected lists of kept keys within"):
        attn.new_cache(1, 300).load_state_dict(bad)
    longer = cache.fork()
    longer.grow(400)
    assert torch.equal(attn(*tokens(1, 5), cache=longer, **call), wanted)
    cache.reorder([1, 0, 1])
    q, k, v = (each[[1, 0, 1]] for each in tokens(1, 5))
    swapped = attn(q, k, v, cache=cache, inputs={"kept": call["inputs"]["kept"][[1, 0, 1]]})
    assert torch.equal(swapped, wanted[[1, 0, 1]])


def test_kernels_without_lists_say_so() -> None:
    with pytest.raises(CallError, match="expected a module with kernels for `keep`"):
        no_kept()


def test_inputs_are_checked_after_calls_that_were_right() -> None:
    attn = sparsec.compile(
        "pattern p { heads 2 kv 1 input kept : tokens causal attend kept }", head_dim=8, target="torch", device="cpu"
    )
    q, k = torch.randn(1, 2, 5, 8), torch.randn(1, 1, 5, 8)
    right = torch.ones((1, 1, 5), dtype=torch.bool)
    wanted = attn(q, k, k, inputs={"kept": right})
    for wrong in (right[..., :4], right.to(torch.int32), right.expand(3, -1, -1), (right, right), None):
        with pytest.raises(CallError, match="input"):
            attn(q, k, k, inputs={"kept": wrong})
        assert torch.equal(attn(q, k, k, inputs={"kept": right}), wanted)
    with pytest.raises(CallError, match="input"):
        attn(q, k, k, inputs={"keep": right})
    with pytest.raises(CallError, match="input"):
        attn(q[:, :, :4], k[:, :, :4], k[:, :, :4], inputs={"kept": right})

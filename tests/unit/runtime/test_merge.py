"""`KVCache.merge`: what it makes of keys, gives back and refuses."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.backends.triton.kernel import interpreted
from sparsec.diagnostics.model import CallError
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.module import SparseAttention

pytestmark = pytest.mark.filterwarnings("ignore:the cache keeps every key")
INPUTS = "heads 4 kv 2 causal input kept : tokens input counts : weights key_bias counts"
TEXT = f"pattern p {{ {INPUTS} attend sink(4) | window(8) | kept }}"
CPU = pytest.param("cpu", marks=pytest.mark.kernels)
BATCH, DIM, LENGTH, RECENT = 2, 16, 60, 52


def module(text: str = TEXT, target: str = "torch") -> SparseAttention:
    return sparsec.compile(text, head_dim=DIM, target=target, device="cpu")


@pytest.fixture(scope="module", params=["torch", CPU])
def attn(request: pytest.FixtureRequest) -> SparseAttention:
    return module(target=request.param)


def tokens(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn((BATCH, heads, n, DIM), generator=generator) for heads in (4, 2, 2))
    return q, k, v


def said(n: int) -> dict[str, Tensor]:
    return {"kept": torch.ones(1, n, dtype=torch.bool), "counts": torch.zeros(1, 1, n)}


def filled(attn: SparseAttention, **given: int) -> KVCache:
    cache = attn.new_cache(BATCH, 300, **given)
    attn(*tokens(LENGTH), cache=cache, inputs=said(LENGTH))
    return cache


def labels(most: int, seed: int = 0, first: int = 4) -> Tensor:
    """Of the keys that are seen for their marks alone, some below 0; -1 for the others."""
    found = torch.full((BATCH, 2, LENGTH), -1)
    drawn = torch.randint(-1, most, (BATCH, 2, RECENT - first), generator=torch.Generator().manual_seed(seed))
    found[..., first:RECENT] = drawn
    return found


def state(cache: KVCache) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in cache.state_dict().items()}


def by_hand(q: Tensor, k: Tensor, v: Tensor, own: Tensor) -> Tensor:
    """One query [D] over the keys [N, D] of one KV group, of which the `own` labels [N] make one each."""
    keys, values, weights = [], [], []
    for label in own.unique().tolist():
        of = (own == label).nonzero()[:, 0]
        for members in of.split(1 if label < 0 else len(of)):
            keys.append(k[members].mean(0))
            values.append(v[members].mean(0))
            weights.append(math.log(len(members)))
    scores = torch.stack(keys) @ q / math.sqrt(DIM) + torch.tensor(weights)
    return scores.softmax(0) @ torch.stack(values)


def test_a_step_is_attention_to_centroids_that_weigh_as_many_keys(attn: SparseAttention) -> None:
    cache, own = filled(attn), labels(6)
    before = cache.nbytes
    cache.merge("kept", own, room=1)
    assert cache.nbytes < before / 2
    assert cache.kept is not None
    assert int(cache.kept.lists[..., 2].sum()) == int((own < 0).sum()) + BATCH * 2 * 6
    _, k, v = tokens(LENGTH)
    q, *new = tokens(1, 1)
    found = attn(q, *new, cache=cache, inputs=said(1))
    k, v = (torch.cat([old, fresh], 2) for old, fresh in zip((k, v), new, strict=True))
    own = torch.nn.functional.pad(own, (0, 1), value=-1)
    for b in range(BATCH):
        for head in range(4):
            g = head // 2
            wanted = by_hand(q[b, head, 0], k[b, g], v[b, g], own[b, g])
            torch.testing.assert_close(found[b, head, 0], wanted, atol=2e-6, rtol=1e-5)


def test_merging_again_is_merging_at_once(attn: SparseAttention) -> None:
    at_once, step_by_step, fine = filled(attn), filled(attn), labels(9)
    coarse = torch.where(fine < 0, -1, fine % 3)
    at_once.merge("kept", coarse)
    step_by_step.merge("kept", fine)
    left = torch.full_like(coarse, -1)
    for b in range(BATCH):
        for g in range(2):
            for label in range(9):
                last = int((fine[b, g] == label).nonzero().max())
                left[b, g, last] = label % 3
    step_by_step.merge("kept", left)
    assert at_once.kept is not None and step_by_step.kept is not None
    assert torch.equal(at_once.kept.lists[..., 2], step_by_step.kept.lists[..., 2])
    call = tokens(3, 1)
    a, b = (attn(*call, cache=each, inputs=said(3)) for each in (at_once, step_by_step))
    torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)


def test_keys_of_no_weight_say_nothing(attn: SparseAttention) -> None:
    _, k, v = tokens(LENGTH)
    k[:, :, 10], v[:, :, 10] = math.nan, math.nan
    given = said(LENGTH)
    given["counts"][..., 10:12] = -math.inf
    cache, own = attn.new_cache(BATCH, 300), torch.full((BATCH, LENGTH), -1)
    attn(tokens(LENGTH)[0], k, v, cache=cache, inputs=given)
    other = cache.fork()
    own[:, [10, 20]], own[:, [11, 21]] = 0, 1
    cache.merge("kept", own)
    own[:, [10, 11]], own[:, 20:22] = 5, -1  # together of no weight
    other.merge("kept", own)
    call = tokens(1, 1)
    a, b = (attn(*call, cache=each, inputs=said(1)) for each in (cache, other))
    assert not a.isnan().any()
    torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)


def test_a_merged_key_leaves_a_window_as_its_last_one_does() -> None:
    attn, oracle = (
        module(f"pattern p {{ {INPUTS} attend kept & window(20) }}", each) for each in ("torch", "reference")
    )
    cache, own = filled(attn), torch.full((1, LENGTH), -1)
    own[:, [42, 45, 50]] = 0
    cache.merge("kept", own)
    assert cache.kept is not None and cache.kept.entries[0, :17].tolist() == [41, 43, 44, *range(46, 60)]
    _, k, v = tokens(LENGTH)
    k[:, :, 50], v[:, :, 50] = (each[:, :, [42, 45, 50]].mean(2) for each in (k, v))
    given = said(LENGTH)
    given["kept"][:, [42, 45]], given["counts"][..., 50] = False, math.log(3)
    for n in range(12):
        q, *new = tokens(1, n)
        k, v = (torch.cat([old, fresh], 2) for old, fresh in zip((k, v), new, strict=True))
        given = {name: torch.cat([each, said(1)[name]], -1) for name, each in given.items()}
        found = attn(q, *new, cache=cache, inputs=said(1))
        torch.testing.assert_close(found, oracle(q, k, v, inputs=given), atol=2e-6, rtol=1e-5)


def test_refusals_change_nothing(attn: SparseAttention) -> None:
    cache, own = filled(attn), torch.full((BATCH, 2, LENGTH), -1)
    some = torch.ones(BATCH, 4, LENGTH, dtype=torch.bool)
    some[1, 0, 30] = some[0, :, 20] = False
    cache.keep("kept", some)
    held = state(cache)

    def wrong(b: int, g: int, *keys: int) -> Tensor:
        found = own.clone()
        found[b, g, list(keys)] = 7
        return found

    for name, given, why in (
        ("counts", own, r"of kind tokens \(kept\), got 'counts'"),
        ("kept", own[..., 1:], "expected groups int32 or int64"),
        ("kept", own.float(), "expected groups int32 or int64"),
        (
            "kept",
            wrong(0, 1, 20, 22),
            "that `kept` marks and a later query may see, got another, key 20 for KV group 1 of sequence 0",
        ),
        ("kept", wrong(1, 0, 30, 31), "with others than the last of its group, key 30 for KV group 0 of sequence 1"),
        ("kept", wrong(1, 1, 3, 31), "for their marks alone, got one they see anyway, key 3 "),
        ("kept", wrong(1, 1, 31, 55), "for their marks alone, got one they see anyway, key 55 "),
    ):
        with pytest.raises(CallError, match=why):
            cache.merge(name, given)
    assert all(torch.equal(each, held[name]) for name, each in cache.state_dict().items())


def test_what_the_terms_tell_apart_is_refused() -> None:
    own = torch.full((BATCH, LENGTH), -1)
    own[:, [10, 24]] = 0
    apart = module(f"pattern p {{ {INPUTS} attend kept & columns(0..20) | kept & columns(5..30) & stride(3) }}")
    with pytest.raises(CallError, match="got one that is seen by others, key 10 for KV group 0 of sequence 0"):
        filled(apart).merge("kept", own)
    near = module(f"pattern p {{ {INPUTS} attend kept & window(40) }}")
    with pytest.raises(CallError, match="that `kept` marks and a later query may see, got another, key 10 "):
        filled(near).merge("kept", own)
    dilated = module(f"pattern p {{ {INPUTS} attend kept & dilated(4) }}")
    with pytest.raises(CallError, match=r"sees alike, got `.*dilated\(4\).*`, which tells them apart"):
        filled(dilated).merge("kept", own)
    plain = module("pattern p { heads 4 kv 2 causal input kept : tokens attend kept }")
    cache = plain.new_cache(BATCH, 300)
    plain(*tokens(LENGTH), cache=cache, inputs={"kept": said(LENGTH)["kept"]})
    with pytest.raises(CallError, match="expected a pattern with key_bias"):
        cache.merge("kept", own)
    by_head = module().new_cache(BATCH, 300)
    counts = torch.zeros(1, 4, LENGTH)
    counts[0, 3, 24] = 1
    module()(*tokens(LENGTH), cache=by_head, inputs={**said(LENGTH), "counts": counts})
    with pytest.raises(
        CallError, match="in common, got several, key 24 for KV group 1 of sequence 0; nothing was merged"
    ):
        by_head.merge("kept", own)


def test_copies_states_and_truncation(attn: SparseAttention) -> None:
    cache = filled(attn, rollback=20)
    own = labels(5)
    own[1] = -1
    cache.merge("kept", own)
    attn(*tokens(4, 1), cache=cache, inputs=said(4))
    fork = cache.fork()
    cache.truncate(61)
    with pytest.raises(CallError, match=r"at least 60 for sequence 0, .* or `merge` made some of them one, got 59"):
        cache.truncate(59)
    cache.truncate([60, 50])
    call = tokens(1, 5)
    wanted = attn(*call, cache=fork, inputs=said(1))
    loaded = attn.new_cache(1, 300, rollback=20)
    fork.truncate(64)
    loaded.load_state_dict(state(fork))
    assert torch.equal(attn(*call, cache=loaded, inputs=said(1)), wanted)
    fork.truncate(64)
    fork.reorder([1, 0])
    q, k, v = (each[[1, 0]] for each in call)
    assert torch.equal(attn(q, k, v, cache=fork, inputs=said(1)), wanted[[1, 0]])


@pytest.mark.skipif(not interpreted(), reason="runs in a process of its own")
def test_a_step_by_triton() -> None:
    test_a_step_is_attention_to_centroids_that_weigh_as_many_keys(module(target="triton"))


@pytest.mark.kernels
@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    """Triton decides at import whether it interprets."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-k", "by_triton", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout

"""A cache through the module: what a call returns and refuses, and what becomes of it under torch's compiler."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.runtime.module import SparseAttention

STREAM = "pattern p { heads 4 kv 2  causal  attend sink(4) | window(24) }"


@pytest.fixture(scope="module")
def attn() -> SparseAttention:
    return sparsec.compile(STREAM, head_dim=16, target="torch")


def tokens(n: int, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn((batch, heads, n, 16), generator=generator) for heads in (4, 2, 2))
    return q, k, v


def part(call: tuple[Tensor, Tensor, Tensor], first: int, last: int) -> list[Tensor]:
    return [t[:, :, first:last] for t in call]


def test_chunks_and_tokens_give_what_one_pass_gives(attn: SparseAttention) -> None:
    call = tokens(90)
    out, lse = attn(*call, return_lse=True)
    cache = attn.new_cache(2, 90)
    assert cache.nbytes == 2 * 2 * 2 * 28 * 16 * 4 and cache.length == 0
    bounds = (0, 40, 41, 42, 77, 90)
    found = [attn(*part(call, first, last), cache=cache, return_lse=True) for first, last in pairwise(bounds)]
    assert cache.lengths == (90, 90) and cache.length == 90
    torch.testing.assert_close(torch.cat([part[0] for part in found], 2), out)
    torch.testing.assert_close(torch.cat([part[1] for part in found], 2), lse)


def test_padding(attn: SparseAttention) -> None:
    """Rows of 5 and 9 tokens, right-aligned: as if each had been alone."""
    call = tokens(9)
    cache = attn.new_cache(2, 50)
    out, lse = attn(*call, cache=cache, lengths=[5, 9], return_lse=True)
    assert cache.lengths == (5, 9)
    alone = attn(*(t[:1, :, 4:] for t in call))
    torch.testing.assert_close(out[:1, :, 4:], alone)
    assert not out[0, :, :4].any() and bool(lse[0, :, :4].isneginf().all())
    again = attn(*part(tokens(3, seed=1), 0, 3), cache=cache)
    row = [torch.cat([a[:1, :, 4:], b[:1]], 2) for a, b in zip(call, tokens(3, seed=1), strict=True)]
    torch.testing.assert_close(again[:1], attn(*row)[:, :, 5:])


def test_refusals(attn: SparseAttention) -> None:
    call, cache = tokens(8), attn.new_cache(2, 10)
    q, k, v = call
    attn(*call, cache=cache)
    with pytest.raises(CallError, match="at most 10 tokens in the cache, got 8 \\+ 8 in sequence 0"):
        attn(*call, cache=cache)
    assert cache.lengths == (8, 8)
    with pytest.raises(CallError, match="neither q_offset nor cu_seqlens"):
        attn(*call, cache=cache, q_offset=0)
    with pytest.raises(CallError, match="as many queries as keys"):
        attn(q[:, :, :1], k, v, cache=cache)
    with pytest.raises(CallError, match="no gradients"):
        attn(q.clone().requires_grad_(), k, v, cache=cache)
    with pytest.raises(CallError, match="1 sequences on cpu, got one for 2"):
        attn(q[:1], k[:1], v[:1], cache=cache)
    with pytest.raises(CallError, match="another pattern"):
        other = sparsec.compile("pattern p { causal attend full }", heads=4, kv_heads=2, head_dim=16, target="torch")
        attn(*call, cache=other.new_cache(2, 10))
    with pytest.raises(CallError, match="from 0 to 8"):
        attn(*call, cache=attn.new_cache(2, 20), lengths=[9, 1])
    with pytest.raises(CallError, match="lengths \\[2\\]"):
        attn(*call, cache=attn.new_cache(2, 20), lengths=[1])
    with pytest.raises(CallError, match="with a cache alone"):
        attn(*call, lengths=[1, 1])
    for bad in ({"batch_size": 0}, {"max_len": 0}, {"rollback": -1}, {"max_len": 1 << 29}):
        with pytest.raises(CallError, match="expected"):
            attn.new_cache(**bad)
    dense = sparsec.compile("pattern p { heads 4 kv 4  causal  attend full }", head_dim=8, target="torch")
    with pytest.raises(CallError, match=f"at most {1 << 29} slots, got {1 << 30} for max_len {1 << 28}"):
        dense.new_cache(max_len=1 << 28)


def test_truncate(attn: SparseAttention) -> None:
    call = tokens(60)
    cache = attn.new_cache(2, 80, rollback=5)
    attn(*part(call, 0, 55), cache=cache)
    cache.truncate(50)
    torch.testing.assert_close(attn(*part(call, 50, 60), cache=cache), attn(*call)[:, :, 50:])
    with pytest.raises(CallError, match="key 7 has been overwritten; new_cache\\(rollback=n\\)"):
        cache.truncate(30)
    assert cache.length == 60
    with pytest.raises(CallError, match="or 2 of them"):
        cache.truncate([1, 2, 3])
    for given in (1.5, "3", True, [1, 2.0]):
        with pytest.raises(CallError, match="expected an integer for length, got"):
            cache.truncate(given)  # type: ignore[arg-type]  # what no caller should give
    cache.truncate(0)
    torch.testing.assert_close(attn(*part(call, 0, 9), cache=cache), attn(*part(call, 0, 9)))


def test_what_is_overwritten_stays_so_when_tokens_are_taken_back(attn: SparseAttention) -> None:
    call = tokens(60)
    cache = attn.new_cache(2, 80, rollback=5)
    attn(*part(call, 0, 55), cache=cache)
    for first in (52, 49):  # of the 55 that it had, 5 and one more
        cache.truncate(first)
        with pytest.raises(CallError, match="has been overwritten"):
            cache.truncate(48)
        torch.testing.assert_close(
            attn(*part(call, first, first + 2), cache=cache), attn(*call)[:, :, first : first + 2]
        )


def test_no_cache_for_patterns_that_look_ahead() -> None:
    ahead = sparsec.compile("pattern p { attend window(4, ahead = 4) }", heads=1, head_dim=16, target="torch")
    with pytest.raises(DiagnosticError, match=r"E502.*`line 1: window\(4, ahead=4\)` lets a query attend to a later"):
        ahead.new_cache()
    packed = sparsec.compile("pattern p { causal documents attend full }", heads=1, head_dim=16, target="torch")
    with pytest.raises(DiagnosticError, match="packed"):
        _ = packed.layout
    plain = sparsec.compile(STREAM, head_dim=16, target="reference")
    with pytest.raises(CallError, match="'reference'"):
        plain.new_cache()


def test_growth_is_said() -> None:
    drawn = sparsec.compile("pattern p { causal attend window(1b) | random(2) }", heads=2, head_dim=16, target="torch")
    with pytest.warns(UserWarning, match="a later query may draw any block"):
        drawn.new_cache(1, 100)


def test_growth_for_an_input_has_its_name() -> None:
    text = "pattern p { input picks : rows input heard : tokens causal attend picks | (heard & window(9)) | heard }"
    attn = sparsec.compile(text, heads=2, head_dim=16, target="torch")
    with pytest.warns(UserWarning) as caught:
        attn.new_cache(1, 100)
    assert [str(each.message) for each in caught] == [
        "the cache keeps every key for `line 1: picks & line 1: causal`: an input may name any key",
        "the cache keeps every key for `line 1: heard & line 1: causal`: an input may name any key until "
        "`KVCache.keep` takes its mark away",
    ]


@pytest.mark.parametrize(
    ("terms", "slots"),
    [
        ("columns(500 ..) | (columns(1000 ..) & stride(2b)) | window(9)", 600 + 9),
        ("columns(500 ..) | stride(2b) | window(9)", 1100),
    ],
    ids=["late", "early"],
)
def test_keys_before_all_that_is_asked_for_take_no_slot(terms: str, slots: int) -> None:
    attn = sparsec.compile(f"pattern p {{ heads 1  block 16  causal  attend {terms} }}", head_dim=16, target="torch")
    assert attn.new_cache(1, 1100).keys.shape[1] == slots


def test_state(attn: SparseAttention) -> None:
    call, cache = tokens(30), attn.new_cache(2, 40)
    attn(*part(call, 0, 20), cache=cache)
    copy, state = cache.fork(), {name: t.clone() for name, t in cache.state_dict().items()}
    assert all(t.is_contiguous() for t in state.values())
    expected = attn(*part(call, 20, 30), cache=cache)
    assert copy.lengths == (20, 20) and cache.lengths == (30, 30)
    torch.testing.assert_close(attn(*part(call, 20, 30), cache=copy), expected)
    loaded = attn.new_cache(1, 40)
    loaded.load_state_dict(state)
    torch.testing.assert_close(attn(*part(call, 20, 30), cache=loaded), expected)
    with pytest.raises(CallError, match="expected the tensors"):
        loaded.load_state_dict({"keys": state["keys"]})
    with pytest.raises(CallError, match="expected keys"):
        loaded.load_state_dict({**state, "keys": state["keys"][:, :3]})
    shorter = {**state, "state": torch.stack((state["state"][1], state["state"][1] - 1, state["state"][2]))}
    with pytest.raises(CallError, match="no longer than they have been"):
        loaded.load_state_dict(shorter)
    with pytest.raises(CallError, match="expected lengths of at most 40"):
        loaded.load_state_dict({**state, "lengths": state["lengths"] + 30})
    loaded.load_state_dict({**state, "state": torch.zeros_like(state["state"])})  # as after replays of a graph
    assert loaded.lengths == (20, 20)
    swapped = attn.new_cache(2, 40)
    swapped.load_state_dict(state)
    swapped.reorder([1, 0])
    again = attn(*(t.flip(0) for t in part(call, 20, 30)), cache=swapped)
    torch.testing.assert_close(again.flip(0), expected)
    with pytest.raises(CallError, match=r"indices of sequences from 0 to 1, got \[2\]"):
        swapped.reorder([2])
    swapped.reset()
    assert swapped.length == 0


@pytest.mark.filterwarnings("ignore")
def test_one_graph_serves_every_step(attn: SparseAttention) -> None:
    call, graphs = tokens(40), []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    cache = attn.new_cache(2, 60)
    step = torch.compile(lambda q, k, v: attn(q, k, v, cache=cache), backend=backend, fullgraph=True)
    with torch.no_grad():
        found = [attn(*part(call, 0, 30), cache=cache)]
        found += [step(*part(call, at, at + 1)) for at in range(30, 40)]
    torch.testing.assert_close(torch.cat(found, 2), attn(*call))
    assert cache.length == 40 and len(graphs) == 1


def test_opcheck(attn: SparseAttention) -> None:
    cache, (q, k, v) = attn.new_cache(2, 60), tokens(5)
    counts = torch.tensor([5, 3], dtype=torch.int32)
    state = (cache.keys, cache.values, cache.lengths_tensor, cache.state)
    arguments = (q, k, v, None, *state, counts, cache.places, [], [], [], None, 60, cache.kernel, None)
    torch.library.opcheck(torch.ops.sparsec.attend_cached, arguments)

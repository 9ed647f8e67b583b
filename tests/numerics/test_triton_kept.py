"""Triton's kernels over lists of kept keys, in the interpreter: chunks, few queries, NaNs, and the room of lists."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from triton_harness import in_interpreter, interpreted, passes_in_the_interpreter

import sparsec
from sparsec.backends.triton import cached
from sparsec.backends.triton.replays import Replay
from sparsec.diagnostics.model import CallError
from sparsec.runtime.kv import keep, ops
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.lists import KeptLists, check_append
from sparsec.runtime.module import SparseAttention

pytestmark = pytest.mark.filterwarnings("ignore:the cache keeps every key")
HEADS, GROUPS, DIM, VALUE_DIM = 4, 2, 16, 24
TOKENS = 30
"""Before keys are dropped."""
Steps = tuple[tuple[int, list[int] | None], ...]
BOTH: Steps = ((18, [18, 7]), (2, [1, 2]))
"""A chunk, and few queries."""
PATTERNS = {
    "beside tiles": "input kept : tokens attend sink(4) | window(8) | kept",
    "alone, modified": "softcap 3.0 alibi learned_sink input kept : tokens attend kept",
    "two inputs": "input kept : tokens input b : tokens attend window(5) | kept & ~b | b & window(30)",
    "draws": "block 16 input kept : tokens attend kept & ~random(1) | window(3)",
    "rows": "input kept : tokens input picks : rows attend picks | kept | window(3)",
    "bias": "input kept : tokens input counts : weights key_bias counts attend window(3) | kept",
}


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


def module(name: str, target: str, heads: int = HEADS) -> SparseAttention:
    text = f"pattern p {{ heads {heads} kv {GROUPS} causal {PATTERNS[name]} }}"
    attn = sparsec.compile(text, head_dim=DIM, value_dim=VALUE_DIM, target=target, device="cpu")
    if attn.sink is not None:
        torch.nn.init.constant_(attn.sink, 0.5)
    return attn


def tokens(n: int, seed: int, heads: int = HEADS) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((heads, DIM), (GROUPS, DIM), (GROUPS, VALUE_DIM))
    q, k, v = (torch.randn((2, of, n, dim), generator=generator) for of, dim in shapes)
    return q, k, v


def said(attn: SparseAttention, n: int, stop: int, seed: int, heads: int = HEADS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    marks = {each: torch.rand((2, heads, n), generator=generator) < 0.4 for each in ("kept", "b")}
    picks = torch.rand((2, 1, n, stop), generator=generator).argsort(-1)[..., :3].to(torch.int32)
    weights = torch.rand((2, GROUPS, n), generator=generator)
    every = {**marks, "picks": picks, "counts": weights.masked_fill(weights < 0.2, -math.inf)}
    return {input_.name: every[input_.name] for input_ in attn.inputs}


def dropped(
    name: str, attn: SparseAttention, marks: Tensor, left: Tensor, heads: int, room: int | None = None
) -> KVCache:
    """A cache of `attn` whose keys, TOKENS of `tokens(TOKENS, 0)`, plain torch has stored and dropped."""
    exact, cache = module(name, "torch", heads), attn.new_cache(2, 100)
    given = {**said(exact, TOKENS, TOKENS, 0, heads), "kept": marks}
    other = exact.new_cache(2, 100)
    exact(*tokens(TOKENS, 0, heads), cache=other, inputs=given)
    other.keep("kept", left, room=room)
    cache.load_state_dict(other.state_dict())
    return cache


def results(name: str, target: str, steps: Steps, heads: int = HEADS, room: int | None = None) -> list[Tensor]:
    """Outputs and log-sum-exps of calls of so many tokens and, of each sequence, so many own ones; entries of lists."""
    attn, marks = module(name, target, heads), said(module(name, "torch", heads), TOKENS, TOKENS, 0, heads)["kept"]
    left = marks & (torch.rand(marks.shape, generator=torch.Generator().manual_seed(9)) < 0.6)
    cache, found = dropped(name, attn, marks, left, heads, room), []
    for n, lengths in steps:
        inputs = said(attn, n, max(cache.lengths) + n, n, heads)
        found += attn(*tokens(n, n, heads), cache=cache, inputs=inputs, lengths=lengths, return_lse=True)
    assert cache.kept is not None
    return [*found, cache.kept.lists[..., 2]]


def agree(name: str, steps: Steps, heads: int = HEADS, room: int | None = None) -> None:
    for ours, theirs in zip(
        *(results(name, target, steps, heads, room) for target in ("triton", "torch")), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@in_interpreter
@pytest.mark.parametrize(
    ("name", "steps"), [("alone, modified", BOTH), ("draws", BOTH), ("rows", BOTH[1:]), ("bias", BOTH[1:])]
)
def test_a_module_gives_what_the_torch_target_gives(name: str, steps: Steps) -> None:
    agree(name, steps)


@in_interpreter
@pytest.mark.parametrize("name", ["beside tiles", "alone, modified"])
@pytest.mark.parametrize("n", [2, 18])
def test_calls_from_a_record(name: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed = list[bool]()
    honest = Replay.run

    def noted(self: Replay, *arguments: object) -> object:
        made = honest(self, *arguments)  # type: ignore[arg-type]  # those of `run`
        replayed.append(made is not None)
        return made

    monkeypatch.setattr(Replay, "run", noted)
    agree(name, ((n, None),) * 3, room=60)
    assert replayed == [True], "the first call is run, the second recorded"


@in_interpreter
def test_marks_of_more_heads_than_a_word_has_bits() -> None:
    agree("two inputs", ((1, None),), heads=42)


@in_interpreter
@pytest.mark.parametrize(
    ("name", "n", "value"),
    [("beside tiles", 18, math.nan), ("alone, modified", 18, math.inf), ("beside tiles", 2, math.nan)],
)
def test_what_a_row_does_not_see_leaves_it_as_it_is(name: str, n: int, value: float) -> None:
    """Key 11 is kept for head 0 alone, and of the call's keys the last one is marked."""
    attn, outs = module(name, "triton"), []
    marks = torch.ones(2, HEADS, TOKENS, dtype=torch.bool)
    marks[:, 1:, 11] = False
    last = torch.zeros(2, 1, n, dtype=torch.bool)
    last[..., -1] = True
    for spoilt in (False, True):
        cache, (q, k, v) = dropped(name, attn, marks, marks, HEADS), tokens(n, 3)
        assert cache.kept is not None
        if spoilt:
            k[1, 0, -1] = value
            base = int(cache.kept.lists[1, 0, 0])
            assert int(cache.kept.entries[0, base + 11]) == 11
            cache.kept.values[base + 11, 3:7] = value
        outs.append(attn(q, k, v, cache=cache, inputs={"kept": last}).detach())
    sound, found = outs
    affected = torch.zeros(2, HEADS, n, dtype=torch.bool)
    affected[1, 0] = affected[1, : HEADS // GROUPS, -1] = True
    assert torch.equal(found[~affected], sound[~affected]) and sound.isfinite().all()
    assert not found[1, 0, :, 3:7].isfinite().any()


def bounded(attn: SparseAttention, **room: int) -> KVCache:
    marks = torch.ones(2, 1, TOKENS, dtype=torch.bool)
    cache = dropped("beside tiles", attn, marks, marks, HEADS)
    cache.keep("kept", ~marks, **room)
    return cache


def step(attn: SparseAttention, cache: KVCache, n: int, marked: bool = True) -> Tensor:
    out: Tensor = attn(*tokens(n, n), cache=cache, inputs={"kept": torch.full((2, 1, n), marked)})
    return out


@in_interpreter
def test_a_bounded_list_is_read_back_only_where_it_may_be_full(monkeypatch: pytest.MonkeyPatch) -> None:
    attn, read = module("beside tiles", "triton"), list[int]()

    def noted(kept: KeptLists, new: int, counts: Tensor) -> None:
        read.append(new)
        check_append(kept, new, counts)

    monkeypatch.setattr(cached, "check_append", noted)
    cache = bounded(attn, room=3)
    step(attn, cache, 2)
    step(attn, cache, 1, False)
    assert not read
    step(attn, cache, 1)  # three may be there already
    assert read == [1]
    held = {name: each.clone() for name, each in cache.state_dict().items()}
    with pytest.raises(CallError, match="at most 0 more marked keys in a list of kept ones, got 1 in sequence 0"):
        step(attn, cache, 1)
    assert all(torch.equal(each, held[name]) for name, each in cache.state_dict().items())


@in_interpreter
def test_a_captured_call_reads_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that a graph captures is done here, as by a replay."""
    attn, exact = module("beside tiles", "triton"), module("beside tiles", "torch")
    cache, other = bounded(attn, room=3), bounded(exact, room=3)
    with monkeypatch.context() as patch:
        for of in (cached, ops, keep):
            patch.setattr(of, "captured", lambda device: True)
        patch.setattr(Tensor, "cpu", None)
        outs = [step(attn, cache, 2) for _ in range(2)]
    assert cache.lengths == (TOKENS, TOKENS) and cache.kept is not None
    torch.testing.assert_close(outs[0], step(exact, other, 2), atol=1e-5, rtol=1e-5)
    with pytest.raises(CallError, match="as keep\\(room=n\\) made room for, got 1 beyond them"):
        cache.refresh()
    assert cache.lengths == (TOKENS + 4, TOKENS + 4) and bool((cache.kept.lists[..., 2] == 3).all())
    cache.refresh()
    growing = bounded(attn)
    monkeypatch.setattr(keep, "captured", lambda device: True)
    with pytest.raises(CallError, match="whose lists do not grow in a CUDA graph capture"):
        step(attn, growing, 1)

"""Calls like an earlier one are launched from its record: they compute the same as calls that have none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from triton_harness import in_interpreter, passes_in_the_interpreter

import sparsec
from sparsec.backends.triton import replays
from sparsec.backends.triton.kernel import interpreted
from sparsec.backends.triton.launches import VECTOR_BYTES
from sparsec.backends.triton.replays import Replay
from sparsec.runtime.module import SparseAttention

PLAIN = "causal attend window(9) | sink(2)"
PATTERNS = {
    "random": "block 16 causal learned_sink attend window(9) | random(2, seed = 3)",
    "classes": "causal where g in [0] attend window(9) otherwise attend stride(3)",
}


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Replay]]:
    """The records that calls were launched from."""
    found: list[Replay] = []
    honest = Replay.run

    def noted(self: Replay, *arguments: object) -> object:
        made = honest(self, *arguments)  # type: ignore[arg-type]
        if made is not None:
            found.append(self)
        return made

    monkeypatch.setattr(Replay, "run", noted)
    yield found


def compiled(terms: str, target: str = "triton") -> SparseAttention:
    attn = sparsec.compile(f"pattern p {{ heads 4 kv 2 {terms} }}", head_dim=16, target=target)
    if attn.sink is not None:
        torch.nn.init.constant_(attn.sink, 0.5)
    return attn


def tensors(seed: int, tokens: int, batch: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, heads, tokens, 16, generator=generator) for heads in (4, 2, 2)]


def passes(attn: SparseAttention, seed: int, tokens: int, **given: object) -> tuple[Tensor, ...]:
    """Output, LSE and gradients."""
    q, k, v = (t.requires_grad_() for t in tensors(seed, tokens))
    leaves = (q, k, v) if attn.sink is None else (q, k, v, attn.sink)
    out, lse = attn(q, k, v, return_lse=True, **given)
    g, of_lse = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)), lse.detach().sin()
    return out, lse, *torch.autograd.grad((out, lse), leaves, (g, of_lse))


@in_interpreter
@pytest.mark.parametrize("name", PATTERNS)
def test_passes_from_a_record_are_right(name: str, replayed: list[Replay]) -> None:
    attn, exact = compiled(PATTERNS[name]), compiled(PATTERNS[name], "torch")
    for seed in range(3):
        for found, expected in zip(passes(attn, seed, 25), passes(exact, seed, 25), strict=True):
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
        assert len(replayed) == 2 * max(seed - 1, 0), "the first call is run, the second recorded"
    assert len(set(map(id, replayed))) == 2, "one record a pass"


def integers(seed: int, below: int, *shape: int) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


def bounds(seed: int, tokens: int, documents: int) -> Tensor:
    ends = integers(seed, tokens, documents - 1).sort().values
    return torch.cat((torch.zeros(1), ends, torch.tensor([tokens]))).to(torch.int32)


GIVEN = {
    "documents": ("documents causal attend window(9) | sink(2)", lambda seed: {"cu_seqlens": bounds(seed, 25, 3)}),
    "documents that restart": (
        "documents restart causal attend window(9) | sink(2)",
        lambda seed: {"cu_seqlens": bounds(seed, 25, 3)},
    ),
    "rows": (
        "input kept : rows causal attend window(3) | kept",
        lambda seed: {"inputs": {"kept": integers(seed, 25, 1, 2, 25, 2)}},
    ),
    "columns": (
        "input picked : columns causal attend window(3) | picked",
        lambda seed: {"inputs": {"picked": integers(seed, 25, 1, 4, 3)}},
    ),
    "weights": (
        "input bias : weights causal key_bias bias attend window(9)",
        lambda seed: {"inputs": {"bias": torch.randn(1, 2, 25, generator=torch.Generator().manual_seed(seed))}},
    ),
}


@in_interpreter
@pytest.mark.parametrize("name", GIVEN)
def test_passes_with_more_tensors_from_a_record_are_right(name: str, replayed: list[Replay]) -> None:
    """What these say differs from call to call."""
    terms, given = GIVEN[name]
    attn, exact = compiled(terms), compiled(terms, "torch")
    for seed in range(4):
        more = given(seed)
        for found, expected in zip(passes(attn, seed, 25, **more), passes(exact, seed, 25, **more), strict=True):
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
        assert len(replayed) == 2 * max(seed - 1, 0), "the first call is run, the second recorded"


@in_interpreter
@pytest.mark.parametrize("name", PATTERNS)
@torch.no_grad()
def test_calls_over_a_cache_from_a_record_are_right(name: str, replayed: list[Replay]) -> None:
    attn, exact = compiled(PATTERNS[name]), compiled(PATTERNS[name], "torch")
    for turn in range(2):  # the second is of another cache, by the same records
        caches = [each.new_cache(1, 60) for each in (attn, exact)]
        for seed, new in enumerate((5, 1, 17, 1, 1, 17, 17) if turn == 0 else (1, 17)):
            given = tensors(seed, new)
            ours, plain = (
                each(*given, cache=cache, return_lse=True) for each, cache in zip((attn, exact), caches, strict=True)
            )
            for found, expected in zip(ours, plain, strict=True):
                torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
        assert caches[0].lengths == caches[1].lengths
        assert len(replayed) == (2 if turn == 0 else 4)
    assert len(set(map(id, replayed))) == 2


@in_interpreter
@torch.no_grad()
def test_what_a_record_does_not_fit_is_launched_anew(replayed: list[Replay]) -> None:
    attn, exact = compiled(PLAIN), compiled(PLAIN, "torch")

    def check(q: Tensor, k: Tensor, v: Tensor, **given: int) -> int:
        before = len(replayed)
        torch.testing.assert_close(attn(q, k, v, **given), exact(q, k, v, **given), atol=2e-5, rtol=1e-5)
        return len(replayed) - before

    q, k, v = tensors(0, 20, batch=2)
    assert [check(q, k, v) for _ in range(3)] == [0, 0, 1]
    assert check(q[:1], k[:1], v[:1]) == 0, "another batch"
    assert check(q[:, :, 1:], k, v) == 0, "other lengths"
    assert check(q, k, v, q_offset=3) == 0, "another offset"
    assert check(q.mT.contiguous().mT, k, v) == 0, "other strides"
    shifted = torch.empty(k.numel() + 1)[1:].view(k.shape).copy_(k)
    assert shifted.data_ptr() % VECTOR_BYTES and check(q, shifted, v) == 0, "another alignment"
    assert check(k.repeat(1, 2, 1, 1), k, k) == 1, "one tensor twice"
    assert check(*tensors(1, 20, batch=2)) == 1


@in_interpreter
@torch.no_grad()
def test_tensors_given_twice_are_not_recorded(replayed: list[Replay]) -> None:
    attn, exact = compiled(PLAIN), compiled(PLAIN, "torch")
    for seed in range(2):
        q, k, v = tensors(seed, 21)
        torch.testing.assert_close(attn(q, k, k), exact(q, k, k), atol=2e-5, rtol=1e-5)
    assert not replayed
    for seed in range(3):
        q, k, v = tensors(seed, 21)
        torch.testing.assert_close(attn(q, k, v), exact(q, k, v), atol=2e-5, rtol=1e-5)
    assert len(replayed) == 2


@in_interpreter
@torch.no_grad()
def test_records_are_limited_in_number(monkeypatch: pytest.MonkeyPatch, replayed: list[Replay]) -> None:
    monkeypatch.setattr(replays, "_MOST", 1)
    attn = compiled(PLAIN)
    for tokens in (1, 2, 1):
        for _ in range(3):
            attn(*tensors(tokens, tokens))
    assert len(replayed) == 3

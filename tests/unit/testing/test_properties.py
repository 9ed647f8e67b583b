"""`sparsec.testing.verify` accepts compiled patterns, and finds in each property a mistake that only it can see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

import sparsec
from sparsec.backends.torch.cached import TorchCached
from sparsec.diagnostics.model import CallError
from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import ResolvedPattern
from sparsec.testing.cases import CHECKS, LONGEST, SHORT, Case, cases, keys_for, longest_term, parse_case
from sparsec.testing.verify import Subject, run_case, verify, verify_one

CPU = torch.device("cpu")
WINDOW = "pattern p { heads 2 kv 1  causal  attend window(20) }"
SCORED = "pattern p { heads 4 kv 2  block 16  causal  softcap 2  alibi  learned_sink  attend window(2b) | sink(3) }"
PACKED = "pattern p { heads 2 kv 1  causal  documents restart  attend window(20) | stride(7) }"
BIASED = "pattern p { heads 4 kv 2  causal  softcap 2  input lean : weights  key_bias lean  attend window(20) }"
FULL = "pattern p { heads 2 kv 1  attend full }"


def meaning(text: str) -> ResolvedPattern:
    return sparsec.parse(text).pattern().resolve()


def subject(text: str, compiled: str | None = None, dtype: torch.dtype = torch.float32) -> Subject:
    attn = sparsec.compile(compiled or text, head_dim=16, target="torch", device="cpu", dtype=dtype)
    return Subject.of(meaning(text), attn, CPU)


class Spoiled(nn.Module):
    """A module whose calls without a cache go through `spoil` first."""

    def __init__(self, attn: SparseAttention, spoil: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.attn, self.spoil = attn, spoil

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in ("attn", "spoil") else getattr(self.attn, name)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
        return self.attn(q, k, v, **more) if "cache" in more else self.spoil(self.attn, q, k, v, **more)


def spoiled(spoil: Callable[..., tuple[Tensor, Tensor]], text: str = WINDOW) -> Subject:
    honest = subject(text)
    return replace(honest, attn=Spoiled(honest.attn, spoil))


def failed(of: Subject, examples: int = 12) -> set[str]:
    return {result.check for result in verify(of, examples=examples) if result.failure is not None}


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        (SCORED, torch.bfloat16),
        (SCORED, torch.float32),
        (BIASED, torch.float32),
        (PACKED, torch.float32),
        (FULL, torch.float32),
    ],
)
def test_what_is_right_holds(text: str, dtype: torch.dtype) -> None:
    results = verify(subject(text, dtype=dtype), examples=8)
    assert [result.check for result in results] == list(CHECKS)
    assert [result.failure for result in results] == [None] * len(CHECKS)
    no_cache = text in (PACKED, FULL)
    assert [bool(result.absent) for result in results] == [False, False, False, no_cache]
    assert all(result.absent or (result.examples >= 8 and result.keys > 20) for result in results)
    assert any(result.partial for result in results) == (text != FULL)


def test_a_wrong_window_is_found_at_its_smallest_and_again() -> None:
    wrong = subject(WINDOW, WINDOW.replace("20", "21"))
    results = verify(wrong, examples=12)
    for result in results:
        assert result.failure is not None, result.check
        case = result.failure.case
        assert case.keys == 21 and case.batch == 1, case
        again = run_case(wrong, parse_case(str(case)))
        assert again.failure is not None and again.failure.message == result.failure.message
        assert run_case(subject(WINDOW), case).failure is None
    assert "which sees keys 1..21" in str(results[0].failure)
    assert "keys seen by head 0" in str(results[1].failure)
    assert "error of the" in str(results[3].failure)


def leak(attn: Any, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    out, lse = attn(q, k, v, **more)
    return out + 0 * v.sum(), lse


def slope(attn: Any, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    return attn(q, 2 * k - k.detach(), v, **more)


def one_row(attn: Any, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    """One of the last row's values is off by 1%, unless all of them are integers or their quotients."""
    out, lse = attn(q, k, v, **more)
    off = torch.ones_like(out)
    off[:1, -1:, -1:, :] = 1.01
    return (out * off if bool(q[:1].any()) else out), lse


@pytest.mark.parametrize(
    ("spoil", "wrong"), [(leak, {"probes"}), (slope, {"gradients"}), (one_row, {"forward", "gradients"})]
)
def test_each_property_sees_its_own_mistake(spoil: Callable[..., tuple[Tensor, Tensor]], wrong: set[str]) -> None:
    assert failed(spoiled(spoil)) == wrong


def test_the_gradient_of_weights_is_seen() -> None:
    def slope_of_weights(attn: Any, *qkv: Tensor, inputs: dict[str, Tensor], **more: Any) -> tuple[Tensor, Tensor]:
        weights = inputs["lean"].clone()
        if weights.requires_grad:
            weights.register_hook(lambda gradient: 1.5 * gradient)  # type: ignore[no-untyped-call]  # torch's own
        return attn(*qkv, inputs={"lean": weights}, **more)

    result = verify_one(spoiled(slope_of_weights, BIASED), "gradients", examples=8)
    assert result.failure is not None and "of the dbias" in result.failure.message


def test_the_cache_walk_sees_a_key_that_was_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = TorchCached.store

    def forgetful(self: TorchCached, k: Tensor, v: Tensor, cache: Any) -> None:
        honest(self, k, torch.cat([v[:, :, :-1], 2 * v[:, :, -1:]], dim=2), cache)

    monkeypatch.setattr(TorchCached, "store", forgetful)
    assert failed(subject(WINDOW)) == {"cache"}


def test_an_exception_is_a_failure() -> None:
    def refuse(attn: Any, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        if k.shape[2] > 30:
            raise RuntimeError("no room")
        return attn(q, k, v, **more)  # type: ignore[no-any-return]

    result = verify_one(spoiled(refuse), "forward", examples=12)
    assert result.failure is not None
    assert (result.failure.case.keys, result.failure.message) == (31, "RuntimeError: no room")


def test_what_differs_between_runs_is_said_to() -> None:
    calls: list[int] = []

    def moody(attn: Any, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        calls.append(1)
        out, lse = attn(q, k, v, **more)
        return (out + 1 if len(calls) == 3 else out), lse

    result = verify_one(spoiled(moody), "forward", examples=12)
    assert result.failure is not None
    assert result.failure.message.endswith("another run of it did not fail")


def test_a_seed_draws_the_same_cases() -> None:
    def drawn(seed: int) -> tuple[int, int]:
        result = verify_one(subject(WINDOW), "forward", examples=5, seed=seed)
        return result.examples, result.keys

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(3)}) > 1


@given(*(cases(check, meaning(text)) for check, text in (("forward", SCORED), ("cache", WINDOW), ("probes", PACKED))))
def test_a_case_is_read_back(forward: Case, cache: Case, packed: Case) -> None:
    for case in (forward, cache, packed):
        assert parse_case(str(case)) == case


@pytest.mark.parametrize(
    "text",
    [
        *("", "forward", "nothing,queries=1,keys=1,offset=0", "forward,queries=1,keys=1,offset=0,frob=1"),
        *(
            "forward,queries=0,keys=1,offset=0",
            "forward,queries=1,keys=-1,offset=0",
            "forward,queries=1,keys=x,offset=0",
        ),
        *(
            "cache,queries=1,keys=1,offset=0",
            "forward,chunks=1:2",
            "cache,chunks=0:1",
            "cache,chunks=",
            "probes,bounds=",
        ),
    ],
)
def test_no_case(text: str) -> None:
    with pytest.raises(CallError, match="expected a case as a failure prints it, such as forward,queries=3"):
        parse_case(text)


def test_a_case_of_another_pattern() -> None:
    with pytest.raises(CallError, match="no bounds"):
        run_case(subject(WINDOW), parse_case("forward,bounds=0:5"))
    with pytest.raises(CallError, match="with bounds"):
        run_case(subject(PACKED), parse_case("forward,queries=1,keys=1,offset=0"))
    with pytest.raises(CallError, match=r"cu_seqlens from 0"):
        run_case(subject(PACKED), parse_case("forward,bounds=3:2:5"))
    with pytest.raises(CallError, match="got cache"):
        run_case(subject(FULL), parse_case("cache,chunks=1:2"))


@pytest.mark.parametrize(
    ("attend", "length"),
    [
        *(
            ("full", 0),
            ("window(9, ahead = 3)", 12),
            ("window(2b) | stride(5b, phase = 1)", 80),
            ("chunk(10, back = 2)", 30),
            ("chunk(10, back = 2, ahead = 1)", 40),
            ("near2d(width = 10, rows = 2, columns = 3)", 30),
        ),
        *(("sink(70) - dilated(33)", 70), ("columns(..-90)", 90), ("~global(3b) & rows(1..99)", 99), ("random(3)", 64)),
    ],
)
def test_cases_reach_past_the_longest_term(attend: str, length: int) -> None:
    pattern = meaning(f"pattern p {{ heads 1  block 16  attend {attend} }}")
    assert longest_term(pattern) == length
    assert keys_for(pattern) == SHORT


def test_cases_grow_with_the_pattern_up_to_what_can_be_held() -> None:
    def most(attend: str, more: str = "") -> int:
        return keys_for(meaning(f"pattern p {{ heads 8  {more}  causal  attend {attend} }}"))

    assert most("window(1000)") == 2065
    assert most("window(100000)") == LONGEST
    assert most("window(1000)", "documents") == 1024

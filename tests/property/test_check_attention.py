"""`check_attention` accepts attention that is right and shows the smallest case of one that is not."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.sema.model import ResolvedPattern
from sparsec.testing import check_attention

TEXTS = (
    "pattern p { heads 4 kv 2  block 16  causal  attend window(2b) | stride(3b, phase = -g) }",
    "pattern p { heads 4 kv 2  causal  softcap 2  learned_sink  attend window(20) }",
    "pattern p { heads 4 kv 2  causal  alibi  documents restart  attend window(20) | sink(3) }",
)


def resolved(text: str) -> ResolvedPattern:
    return sparsec.parse(text).pattern().resolve()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("probes", [False, True])
def test_a_compiled_pattern_is_what_it_means(text: str, probes: bool) -> None:
    attn = sparsec.compile(text, head_dim=16, target="torch")
    check_attention(attn, sparsec.parse(text).pattern(), probes=probes, examples=20)


WITH_INPUTS = (
    "pattern p { heads 4 kv 2  block 16  causal  input picks : rows  attend picks | window(5) }",
    "pattern p { heads 4 kv 2  block 16  input a : blocks(8, 24)  input b : labels  attend a - b | sink(2) }",
    "pattern p { heads 2  block 16  input n : length  input d : tree  causal  attend window(n) | d & ~sink(n) }",
)


@pytest.mark.parametrize("text", WITH_INPUTS)
@pytest.mark.parametrize("probes", [False, True])
def test_a_pattern_with_inputs_is_what_it_means(text: str, probes: bool) -> None:
    """The callable is given the tensors by name."""
    attn = sparsec.compile(text, head_dim=16, target="torch")
    check_attention(attn, sparsec.parse(text).pattern(), probes=probes, examples=20)


def test_a_list_that_is_not_asked_is_found() -> None:
    attn = sparsec.compile("pattern p { heads 2  block 16  causal  attend window(5) }", head_dim=8, target="torch")

    def deaf(q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool, inputs: Any) -> Any:
        return attn(q, k, v, return_lse=return_lse)

    with pytest.raises(AssertionError, match=r"(?s)sequence 0, head .*input picks : columns"):
        meaning = resolved(WITH_INPUTS[0].replace("rows", "columns").replace("heads 4 kv 2", "heads 2"))
        check_attention(deaf, meaning, head_dim=8)


def test_a_wrong_window_is_found_at_its_smallest() -> None:
    attn = sparsec.compile("pattern p { heads 2 causal attend window(21) }", head_dim=8, target="torch")
    with pytest.raises(
        AssertionError, match=r"(?s)sees keys 1\.\.21.*1 sequence, 1 query from position 20, 21 keys.*window\(20\)"
    ) as raised:
        check_attention(attn, resolved("pattern p { heads 2 causal attend window(20) }"))
    assert not hasattr(raised.value, "__notes__") and "tensor" not in str(raised.value)


def dense(q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool) -> tuple[Tensor, Tensor]:
    """Causal, with a KV head for each head."""
    ahead = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1 + k.shape[2] - q.shape[2])
    scores = (q @ k.mT / q.shape[3] ** 0.5).masked_fill(ahead, -torch.inf)
    lse = scores.logsumexp(-1)
    return scores.softmax(-1) @ v, lse.double() if q.dtype == torch.float64 else lse.float()


CAUSAL = resolved("pattern p { heads 2 causal attend full }")


def test_any_callable_is_checked() -> None:
    for dtype in (torch.bfloat16, torch.float64):
        check_attention(dense, CAUSAL, dtype=dtype, examples=20)
    with pytest.raises(AssertionError):
        check_attention(dense, resolved("pattern p { heads 2 causal attend ~sink(1) }"))


def test_float64_is_probed() -> None:
    attn = sparsec.compile(TEXTS[0], head_dim=16, target="torch", dtype=torch.float64)
    check_attention(attn, resolved(TEXTS[0]), dtype=torch.float64, probes=True, examples=5)


def out_alone(out: Tensor, lse: Tensor) -> object:
    return out


@pytest.mark.parametrize(
    ("spoil", "dtype", "given"),
    [
        (out_alone, torch.float32, "torch.float32 [1, 2, 1, 8]"),
        (lambda out, lse: None, torch.float32, "None"),
        (lambda out, lse: (out, None), torch.float32, "(torch.float32 [1, 2, 1, 8], None)"),
        (lambda out, lse: (out, lse, out), torch.float32, "[1, 2, 1], torch.float32 [1, 2, 1, 8])"),
        (lambda out, lse: (out.numpy(), lse.numpy()), torch.float32, "(numpy.ndarray, numpy.ndarray)"),
        (lambda out, lse: (out.mT, lse), torch.float32, "(torch.float32 [1, 2, 8, 1], torch.float32 [1, 2, 1])"),
        (lambda out, lse: (out, lse[..., None]), torch.float32, "torch.float32 [1, 2, 1, 1])"),
        (lambda out, lse: (lse, out), torch.float32, "(torch.float32 [1, 2, 1], torch.float32 [1, 2, 1, 8])"),
        (lambda out, lse: (out[0], lse[0]), torch.float32, "(torch.float32 [2, 1, 8], torch.float32 [2, 1])"),
        (lambda out, lse: (out[:1], lse[:1]), torch.float32, "(torch.float32 [1, 2, 1, 8], torch.float32 [1, 2, 1])"),
        (lambda out, lse: (out.double(), lse), torch.float32, "(torch.float64 [1, 2, 1, 8], torch.float32 [1, 2, 1])"),
        (lambda out, lse: (out, lse.double()), torch.float32, "torch.float64 [1, 2, 1])"),
        (lambda out, lse: (out.float(), lse), torch.bfloat16, "(torch.float32 [1, 2, 1, 8], torch.float32 [1, 2, 1])"),
        (lambda out, lse: (out, lse.to(out.dtype)), torch.bfloat16, "torch.bfloat16 [1, 2, 1])"),
        (lambda out, lse: (out, lse.float()), torch.float64, "torch.float32 [1, 2, 1])"),
    ],
)
def test_what_is_returned_is_like_q(spoil: Callable[..., Any], dtype: torch.dtype, given: str) -> None:
    def spoiled(q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool) -> Any:
        return spoil(*dense(q, k, v, return_lse=True))

    for probes in (False, True):
        with pytest.raises(AssertionError) as raised:
            check_attention(spoiled, CAUSAL, head_dim=8, dtype=dtype, probes=probes, examples=5)
        first, case, pattern, *_ = str(raised.value).splitlines()
        assert first.startswith(f"expected (out, LSE) of ({dtype} ["), first
        assert probes or first.endswith(given), first
        assert "1 query from position 0, 1 key, head_dim 8" in case and pattern.startswith("pattern")


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError])
def test_an_exception_comes_through_with_a_note_of_the_case(kind: type[Exception]) -> None:
    def broken(q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool) -> tuple[Tensor, Tensor]:
        if k.shape[2] > 37:
            raise kind("my kernel broke")
        return dense(q, k, v, return_lse=return_lse)

    with pytest.raises(kind, match="my kernel broke") as raised:
        check_attention(broken, CAUSAL, head_dim=8)
    (note,) = raised.value.__notes__
    assert raised.value.args == ("my kernel broke",)
    case = "1 sequence, 1 query from position 37, 38 keys, head_dim 8, value_dim 8, torch.float32"
    assert note.startswith(f"{case}\npattern")
    shown = "".join(traceback.format_exception(raised.value))
    assert "in broken" in shown and "tensor(" not in shown and len(shown.splitlines()) < 80


def test_what_differs_between_runs_is_said_to() -> None:
    calls: list[int] = []

    def moody(q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool) -> tuple[Tensor, Tensor]:
        calls.append(1)
        out, lse = dense(q, k, v, return_lse=return_lse)
        return (out + 1 if len(calls) == 3 else out), lse

    with pytest.raises(AssertionError, match="another run of it did not fail"):
        check_attention(moody, CAUSAL, head_dim=8)


def test_the_probe_with_nan_says_what_it_did() -> None:
    pattern = resolved("pattern p { heads 2 causal attend full - sink(1) }")

    def masked(q: Tensor, k: Tensor, v: Tensor, *, selects: bool) -> tuple[Tensor, Tensor]:
        seen = pattern_mask(q, k)
        scores = (q @ k.mT / q.shape[3] ** 0.5).masked_fill(~seen, -torch.inf)
        lse = scores.logsumexp(-1)
        weights = torch.where(seen.any(-1)[:, None], scores.softmax(-1), 0)
        return weights @ (v.masked_fill(~seen.any(0)[:, None], 0) if selects else v), lse

    def pattern_mask(q: Tensor, k: Tensor) -> Tensor:
        i, j = torch.arange(k.shape[2] - q.shape[2], k.shape[2])[:, None], torch.arange(k.shape[2])
        return (j <= i) & (j >= 1)

    check_attention(lambda q, k, v, *, return_lse: masked(q, k, v, selects=True), pattern, probes=True, examples=20)
    with pytest.raises(AssertionError, match=r"NaN was put into the keys.* \(dense masked attention has to select"):
        check_attention(lambda q, k, v, *, return_lse: masked(q, k, v, selects=False), pattern, probes=True)


@pytest.mark.parametrize(
    ("attn", "pattern", "more", "message"),
    [
        (3, CAUSAL, {}, "a callable, got 3"),
        (dense, "one.sparse", {}, r"expected a Pattern.*got 'one\.sparse'"),
        (dense, Path("one.sparse"), {}, r"expected a Pattern.*one\.sparse"),
        (dense, sparsec.parse(TEXTS[0]), {}, r"expected a Pattern, as Program\.pattern\(\) gives it.*got Program"),
        (dense, CAUSAL, {"dtype": "bf16"}, "expected dtype .*, got 'bf16'"),
        (dense, CAUSAL, {"dtype": torch.int32}, r"expected dtype .*, got torch\.int32"),
        (dense, CAUSAL, {"examples": 0}, "examples of at least 1, got 0"),
        (dense, CAUSAL, {"max_keys": 0}, "max_keys of at least 1, got 0"),
        (dense, CAUSAL, {"head_dim": 0}, "head_dim of at least 1, got 0"),
        (dense, CAUSAL, {"device": "cuda:99"}, "expected a device that is available, got 'cuda:99'"),
        (dense, CAUSAL, {"device": "cardboard"}, "expected a device that is available, got 'cardboard'"),
        (dense, resolved(TEXTS[1]), {}, r"sink= as a tensor \[4\].*, got None"),
        (dense, resolved(TEXTS[1]), {"sink": torch.zeros(3)}, r"sink= as a tensor \[4\].*, got \[3\]"),
    ],
)
def test_bad_arguments(attn: Any, pattern: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(CallError, match=message):
        check_attention(attn, pattern, **more)


def test_a_long_term_is_drawn_past_its_end() -> None:
    attn = sparsec.compile("pattern p { heads 2 causal attend window(401) }", head_dim=8, target="torch")
    with pytest.raises(AssertionError, match=r"(?s)error of the output.* 401 keys.*window\(400\)"):
        check_attention(attn, resolved("pattern p { heads 2 causal attend window(400) }"))


def test_a_term_too_long_to_show_is_named() -> None:
    text = "pattern p { heads 2 causal attend window(2000) }"
    attn = sparsec.compile(text, head_dim=8, target="torch")
    with pytest.warns(UserWarning, match="2000 tokens long: up to 60 keys do not show where it ends"):
        check_attention(attn, resolved(text), max_keys=60, examples=3)

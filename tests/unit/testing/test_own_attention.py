"""`check_attention` of attention without an LSE, of its gradients, over dtypes and seeds: right ones pass, wrong ones
are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.testing import check_attention, for_patterns

PATTERN = sparsec.parse("pattern near { heads 2 kv 1 causal attend window(20) | sink(2) }").pattern()


def live(q: Tensor, k: Tensor, window: int) -> Tensor:
    rows = torch.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2]
    keys = torch.arange(k.shape[2])[None, :]
    return (keys <= rows) & ((rows - keys < window) | (keys < 2))


def output(q: Tensor, k: Tensor, v: Tensor, *, window: int = 20) -> Tensor:
    """No LSE, and no keyword for one."""
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=live(q, k, window))


def with_lse(q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool) -> tuple[Tensor, Tensor]:
    assert return_lse
    keys = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = (q @ keys.mT / q.shape[3] ** 0.5).masked_fill(~live(q, keys, 20), -torch.inf)
    return output(q, k, v), scores.logsumexp(-1).float()


class WrongBackward(torch.autograd.Function):
    """Twice the gradient of the values."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        return v.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2


def test_an_output_alone() -> None:
    check_attention(output, PATTERN, head_dim=8, max_keys=70, lse=False, examples=8)
    with pytest.raises(AssertionError, match=r"(?s)error of the output is .*query 20, which sees .*near|failing"):
        check_attention(
            lambda q, k, v: output(q, k, v, window=21), PATTERN, head_dim=8, lse=False, examples=20, max_keys=60
        )
    with pytest.raises(AssertionError, match="expected the output alone, for lse=False"):
        check_attention(lambda q, k, v: (q, q), PATTERN, head_dim=8, max_keys=70, lse=False, examples=2)
    with pytest.raises(AssertionError, match=r"expected \(out, LSE\) of .*got \(torch.float32 \[\d+, 1"):
        check_attention(lambda q, k, v: q[:, :1], PATTERN, head_dim=8, max_keys=70, lse=False, examples=2)
    with pytest.raises(TypeError, match="return_lse"):
        check_attention(output, PATTERN, head_dim=8, max_keys=70, examples=2)


def test_probes_of_an_output_alone() -> None:
    """Masked attention that selects before it multiplies passes, one that multiplies NaN by 0 does not."""
    attn = sparsec.compile(PATTERN, head_dim=16, target="torch", device="cpu")
    check_attention(
        lambda q, k, v: attn(q, k, v), PATTERN, head_dim=16, max_keys=70, lse=False, probes=True, examples=4
    )
    with pytest.raises(AssertionError, match=r"NaN was put into|not 0|differs"):
        check_attention(output, PATTERN, head_dim=16, max_keys=70, lse=False, probes=True, examples=20)


@pytest.mark.parametrize(("attn", "lse"), [(output, False), (with_lse, True)])
def test_gradients(attn: Callable[..., Any], lse: bool) -> None:
    check_attention(attn, PATTERN, head_dim=8, max_keys=70, lse=lse, gradients=True, examples=6)

    def wrong(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Any:
        return attn(q, k, WrongBackward.apply(v), **options)

    with pytest.raises(AssertionError, match=r"(?s)error of the dv is .*1 sequence"):
        check_attention(wrong, PATTERN, head_dim=8, max_keys=70, lse=lse, gradients=True, examples=6)
    check_attention(wrong, PATTERN, head_dim=8, max_keys=70, lse=lse, examples=3)


def test_gradients_of_a_sink_and_of_weights() -> None:
    text = "pattern p { heads 2 kv 1 input w : weights key_bias w learned_sink causal attend full }"
    pattern, sink = sparsec.parse(text).pattern(), torch.randn(2, requires_grad=True)
    attn = sparsec.compile(pattern, head_dim=8, target="torch", device="cpu")
    attn.sink = torch.nn.Parameter(sink.detach())
    check_attention(attn, pattern, gradients=True, max_keys=70, examples=4, sink=attn.sink)
    with pytest.raises(CallError, match="the leaf that the attention reads"):
        check_attention(attn, pattern, gradients=True, max_keys=70, examples=4, sink=sink.detach())

    def halved(*tensors: Tensor, **options: Any) -> Any:
        attn.sink.grad = None
        weights = options["inputs"]["w"]
        halved_in = weights.detach() + (weights - weights.detach()) * 0.5
        return attn(*tensors, **{**options, "inputs": {"w": halved_in}})

    with pytest.raises(AssertionError, match=r"error of the dbias is"):
        check_attention(halved, pattern, head_dim=8, max_keys=70, gradients=True, examples=8, sink=attn.sink)


def test_dtypes_and_seeds() -> None:
    seen: set[tuple[torch.dtype, float]] = set()

    def noted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.add((q.dtype, float(q.flatten()[0])))
        return output(q, k, v)

    dtypes = (torch.bfloat16, torch.float32)
    check_attention(noted, PATTERN, head_dim=8, max_keys=70, lse=False, dtype=dtypes, seeds=range(2), examples=2)
    assert {dtype for dtype, _ in seen} == set(dtypes) and len(seen) > 4

    def in_float32_alone(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return output(q, k, v, window=20 if q.dtype == torch.float32 else 7)

    with pytest.raises(AssertionError, match=r"torch\.bfloat16, seed 3"):
        check_attention(
            in_float32_alone, PATTERN, head_dim=8, max_keys=70, lse=False, dtype=dtypes[::-1], seeds=[3], examples=9
        )
    for bad in ([], "float32", [torch.int8]):
        with pytest.raises(CallError, match=r"expected dtype"):
            check_attention(output, PATTERN, dtype=bad, lse=False)  # type: ignore[arg-type]
    with pytest.raises(CallError, match="expected seeds of at least 0, got -1"):
        check_attention(output, PATTERN, seeds=[0, -1], lse=False)


@for_patterns(PATTERN, head_dim=8, max_keys=70, lse=False, gradients=True, seeds=range(2), examples=2)
def test_the_decorator_passes_them_on(pattern: Any) -> Callable[..., Tensor]:
    return output


def test_attention_without_an_lse_that_is_asked_for_one_says_how_to_check_it() -> None:
    with pytest.raises(TypeError, match="return_lse") as caught:
        check_attention(output, PATTERN, head_dim=8, max_keys=40, examples=1)  # type: ignore[arg-type]  # the mistake
    assert any("lse=False checks" in note for note in caught.value.__notes__)

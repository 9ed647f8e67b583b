"""Calls of a CPU kernel like one before, which are checked no more; one that is unlike it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import sparsec
from sparsec.backends.cpu import kernel as cpu

pytestmark = [pytest.mark.kernels, pytest.mark.skipif(not cpu.has_compiler(), reason="needs a C++ compiler")]

HEADS, HEAD_DIM = 2, 16


@pytest.fixture(scope="module")
def kernel() -> cpu.CpuKernel:
    attn = sparsec.compile(
        "pattern p { causal  attend full }", heads=HEADS, head_dim=HEAD_DIM, dtype=torch.float32, target="cpu"
    )
    plan = attn.plan
    assert plan is not None
    return cpu.CpuKernel.of(plan)


def drawn(n: int, seed: int, batch: int = 1) -> list[Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(batch, HEADS, n, HEAD_DIM) for _ in range(3)]


def attend(kernel: cpu.CpuKernel, tensors: list[Tensor], q_offset: int = 0, scale: float | None = None) -> Tensor:
    out, lse = kernel.forward(*tensors, q_offset=q_offset, scale=scale, lists=())
    assert out.is_contiguous() and lse.shape == out.shape[:3] and lse.is_contiguous()
    return out


def dense(tensors: list[Tensor], scale: float | None = None) -> Tensor:
    return scaled_dot_product_attention(*tensors, is_causal=True, scale=scale)


def test_what_differs_is_not_taken_for_a_call_before(kernel: cpu.CpuKernel) -> None:
    """In lengths, batch, scale, strides and threads; in numbers and addresses alone it is."""
    threads = torch.get_num_threads()
    cases = [(drawn(20, 0), None), (drawn(20, 1), None), (drawn(20, 2), 0.5), (drawn(33, 3), None)]
    cases += [(drawn(20, 4, batch=3), None)]
    across = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in drawn(20, 5)]
    assert across[0].shape == cases[0][0][0].shape and across[0].stride() != cases[0][0][0].stride()
    cases += [(across, None), (drawn(20, 6), None)]
    try:
        for count in (threads, 1, threads):
            torch.set_num_threads(count)
            for tensors, scale in cases:
                torch.testing.assert_close(attend(kernel, tensors, scale=scale), dense(tensors, scale))
    finally:
        torch.set_num_threads(threads)
    kinds = len(kernel.checked)
    attend(kernel, drawn(20, 7))
    assert len(kernel.checked) == kinds
    q, k, v = drawn(20, 8)
    for at in (19, 7, 0):
        row = attend(kernel, [q[:, :, at : at + 1], k, v], q_offset=at)
        torch.testing.assert_close(row, dense([q, k, v])[:, :, at : at + 1])


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.double(), "expected torch.float32 tensors on the CPU"),
        (lambda t: t.to("meta"), "expected torch.float32 tensors on the CPU"),
        (lambda t: t[:, :1], "expected q, k of shapes"),
        (lambda t: t[..., :8], "expected q, k of shapes"),
    ],
    ids=["dtype", "device", "heads", "head dim"],
)
def test_a_mistake_after_a_good_call(
    kernel: cpu.CpuKernel, which: int, change: Callable[[Tensor], Tensor], said: str
) -> None:
    tensors = drawn(20, 0)
    attend(kernel, tensors)
    tensors[which] = change(tensors[which])
    with pytest.raises(sparsec.CallError, match=said if which < 2 else "expected v torch.float32"):
        attend(kernel, tensors)


def test_a_call_of_more_is_checked_after_one_of_less(kernel: cpu.CpuKernel) -> None:
    attend(kernel, drawn(20, 0))
    with pytest.raises(sparsec.CallError, match="positions below"):
        attend(kernel, drawn(20, 0), q_offset=1 << 29)
    with pytest.raises(sparsec.CallError, match="expected no sink"):
        kernel.forward(*drawn(20, 0), q_offset=0, scale=None, lists=(), sink=torch.zeros(HEADS))


def test_few_kinds_of_calls_are_remembered(kernel: cpu.CpuKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_MOST_CHECKED", 5)
    kernel.checked.clear()
    for n in range(1, 40):
        tensors = drawn(n, n)
        torch.testing.assert_close(attend(kernel, tensors), dense(tensors))
        assert 1 <= len(kernel.checked) <= 5

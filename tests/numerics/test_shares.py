"""Gradients whose key tiles are shared out: sums of dq come together in the order of the shares, whoever is first."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from cpu_patterns import HEADS, KV_HEADS, PATTERNS, inputs
from dense_formula import Formula, assert_close
from torch import Tensor

from sparsec.backends.cpu.backward import CpuBackward
from sparsec.backends.cpu.emit import emit_cpp_backward
from sparsec.backends.cpu.kernel import build_kernels, compile_shared, has_compiler, open_library
from sparsec.plan.launch import BackwardLaunch

pytestmark = [pytest.mark.kernels, pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")]
SHAPE, TOKENS = (500, 620, 120), 620
COUNT = """
extern "C" int count_of(int batch, int tiles) {
  sparsec_backward_call call = {};
  call.batch = batch, call.threads = 3;
  return int(sparsec_gradients::Shares(call, tiles, nullptr, nullptr).count);
}
"""


@cache
def library(tiles_of_share: int, megabytes: int = 1024) -> object:
    """The gradients' kernel with so many key tiles in a share at least, and so much memory for sums that wait."""
    source, found = re.subn(r"TASKS = 256, TILES = 8;", f"TASKS = 256, TILES = {tiles_of_share};", emitted())
    source, also = re.subn(r"SUMS_BYTES = int64_t\(1\) << 30;", f"SUMS_BYTES = int64_t({megabytes}) << 20;", source)
    assert found == also == 1
    return open_library(compile_shared(source + COUNT, optimise=1))


def emitted() -> str:
    return emit_cpp_backward(PATTERNS["two_classes"].backward_plan(64, "float32"))


@cache
def case() -> tuple[list[Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """q, k and v; out and LSE; gradients of these."""
    qkv = inputs(*SHAPE[:2], 64)
    kernel = build_kernels([PATTERNS["two_classes"].plan(64, "float32")], optimise=1)[0]
    out, lse = kernel.forward(*qkv, q_offset=SHAPE[2], scale=None, lists=())
    torch.manual_seed(1)
    return qkv, (out, lse), (torch.randn(out.shape), torch.randn(lse.shape))


def gradients(tiles_of_share: int, threads: int, megabytes: int = 1024) -> list[Tensor]:
    qkv, forward, grads = case()
    launch = BackwardLaunch.of(PATTERNS["two_classes"].backward_plan(64, "float32"))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        kernel = CpuBackward(launch, lambda: library(tiles_of_share, megabytes).sparsec_backward)  # type: ignore[attr-defined]
        return list(kernel.backward(*grads, *qkv, *forward, q_offset=SHAPE[2], scale=None, lists=())[:3])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("tiles_of_share", [1, 3])
def test_threads_and_shares(tiles_of_share: int) -> None:
    """Many threads take few cores' turns, so that shares are done in any order; again and again the bits are equal."""
    qkv, forward, grads = case()
    first = gradients(tiles_of_share, 1)
    assert_close([*forward, *first], Formula(PATTERNS["two_classes"].mask(*SHAPE)), qkv, grads)
    for threads in (2, 3, 8, 8, 8, 8):
        assert all(torch.equal(a, b) for a, b in zip(gradients(tiles_of_share, threads), first, strict=True))


@pytest.mark.parametrize("megabytes", [1, 0])
def test_shares_wait_where_all_memory_is_taken(megabytes: int) -> None:
    """A megabyte holds the sums of four shares, of the twenty that two key heads have."""
    first = gradients(1, 1)
    for threads in (4, 8, 8, 8, 8):
        assert all(torch.equal(a, b) for a, b in zip(gradients(1, threads, megabytes), first, strict=True))


@pytest.mark.parametrize(
    ("batch", "tokens", "count"),
    [(1, 64, 1), (1, 1024, 2), (1, 8192, 16), (1, 1 << 17, 128), (64, 8192, 2), (256, 8192, 1)],
)
def test_the_number_of_shares_comes_from_the_shapes_alone(batch: int, tokens: int, count: int) -> None:
    """Enough for 128 threads from 8,192 tokens and 8 key heads on, and none where a call has as many key heads."""
    assert KV_HEADS == 2 and HEADS == 4
    assert library(8).count_of(batch, tokens // 64) == count  # type: ignore[attr-defined]

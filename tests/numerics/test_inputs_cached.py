"""Patterns with inputs over a cache: chunks and single rows, of sequences of two lengths, against dense attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from cached_walk import Arena
from input_patterns import BATCH, HEADS, KV_HEADS, TERMS, Call, Tensors, pattern, visible
from test_inputs import dense
from torch import Tensor

from sparsec.backends.base import CachedKernel, Lookup
from sparsec.backends.cpu.cached import build_cached
from sparsec.backends.torch.cached import TorchCached
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.kv.cached import NoCache
from sparsec.runtime.draws import draw_tables
from sparsec.runtime.inputs.prepare import CallShape, by_input, prepared

DIM, MAX_LEN, APART = 8, 240, 48
STEPS = ((37, 0), (1, 1), (70, 2), (1, 3), (2, 4), (1, 5))
"""(tokens of a call, seed of its inputs); the second sequence is APART tokens longer, so that cells start alike."""


def cached(name: str, target: str) -> Compilation:
    return Compilation(Lowered(pattern(name)), DIM, DIM, "float32", target)


def has_cache(name: str) -> bool:
    try:
        assert Lowered(pattern(name)).layout
    except NoCache:
        return False
    return True


def kernel_of(name: str, target: str) -> CachedKernel:
    of = cached(name, target)
    return TorchCached(of.chunks) if target == "torch" else build_cached([of.cached], optimise=1)[0]


def lookups(kernel: CachedKernel, given: Tensors, stop: int) -> tuple[Lookup, ...]:
    """Those of a call, for sequences of up to `stop` tokens."""
    plan = kernel.plan.chunks
    flat = [each for value in given.values() for each in (value if isinstance(value, tuple) else (value,))]
    shapes = CallShape(stop, stop, 0)
    return prepared(plan.inputs, by_input(plan.declared, flat, Tensor.dim), shapes, plan.ordered)


@pytest.mark.parametrize("target", ["torch", pytest.param("cpu", marks=pytest.mark.kernels)])
@pytest.mark.parametrize("name", tuple(filter(has_cache, TERMS)))
@pytest.mark.parametrize("per_head", [False, True], ids=["by group", "by head"])
def test_calls_are_dense_attention(name: str, target: str, per_head: bool) -> None:
    walk(kernel_of(name, target), name, STEPS, per_head=per_head)


def walk(kernel: CachedKernel, name: str, steps: Sequence[tuple[int, int]], *, per_head: bool) -> None:
    """Takes two sequences through a cache full of NaN, call by call."""
    lengths = [0, APART]
    torch.manual_seed(5)
    q, k, v = (torch.randn(BATCH, heads, MAX_LEN, DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
    arena = Arena(kernel, BATCH, MAX_LEN, DIM, torch.float32)
    tables = draw_tables(kernel.plan.chunks.lists, MAX_LEN, 0, torch.device("cpu"))
    kernel.store(k[:, :, :APART], v[:, :, :APART], arena.seen([0, 0], [0, APART]))
    for rows, seed in steps:
        stops = [length + rows for length in lengths]
        given = Call(rows, stops[1], stops[1] - rows, seed).tensors(heads=HEADS if per_head else KV_HEADS)
        new = [torch.stack([t[b, :, length : length + rows] for b, length in enumerate(lengths)]) for t in (q, k, v)]
        found = kernel.attend(
            *new,
            replace(arena.seen(lengths, [rows] * BATCH), reach=stops[1]),
            scale=None,
            lists=tables,
            store=True,
            inputs=lookups(kernel, given, stops[1]),
        )
        for b, stop in enumerate(stops):
            seen = visible(name, Call(rows, stop, stop - rows, seed), given)[b : b + 1]
            expected = dense(new[0][b : b + 1], k[b : b + 1, :, :stop], v[b : b + 1, :, :stop], seen)
            for mine, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(mine[b : b + 1].double(), theirs, atol=2e-5, rtol=1e-5)
        lengths = stops

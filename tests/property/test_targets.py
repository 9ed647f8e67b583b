"""Forward attention and LSE of drawn patterns on every target: the tolerance policy and the exact probes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from vacuity import Coverage, examples, wanted

import sparsec
from sparsec.plan.build import plan_kernels
from sparsec.plan.target import tile_sizes
from sparsec.reference.mask import mask
from sparsec.runtime import cpu
from sparsec.runtime.draws import draw_tables, plan_lists
from sparsec.sema.model import Heads
from sparsec.testing import attention_inputs, shapes
from sparsec.testing.probes import Attend, check_forward
from sparsec.testing.strategies import Inputs, Shape, Source, sources_with_meaning

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
compiled = pytest.mark.skipif(INTERPRETED, reason="this process tests interpreted Triton alone")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ON_TORCH, ON_CPU, ON_TRITON = 500, 150, 40
IN_ONE_LIBRARY = 10


@dataclass(frozen=True, slots=True)
class Call:
    source: Source
    pattern: Heads
    shape: Shape
    inputs: Inputs


@st.composite
def calls(
    draw: st.DrawFn,
    max_queries: int,
    max_keys: int,
    head_dims: tuple[int, ...],
    dtypes: tuple[str, ...],
    *,
    blocks: tuple[int, ...] = (16, 32, 64),
    max_batch: int = 2,
) -> Call:
    source, pattern = draw(sources_with_meaning(blocks=blocks))
    shape = draw(shapes(max_queries=max_queries, max_keys=max_keys))
    dtype, head_dim = DTYPES[draw(st.sampled_from(dtypes))], draw(st.sampled_from(head_dims))
    counts = pattern.heads, pattern.kv_heads
    inputs = draw(attention_inputs(*counts, shape, head_dim=head_dim, dtype=dtype, max_batch=max_batch))
    return Call(source, pattern, shape, inputs)


def check_call(attend: Attend, call: Call, coverage: Coverage) -> None:
    visible = mask(call.pattern, call.shape.n_q, call.shape.n_k, call.shape.q_offset)
    check_forward(attend, call.inputs.q, call.inputs.k, call.inputs.v, visible)
    coverage.note(call.source.text, visible)


def described(call: Call) -> str:
    q = call.inputs.q
    counts = (
        f"heads {call.source.heads} kv {call.source.kv_heads}, head_dim {q.shape[3]}, {q.dtype}, batch {q.shape[0]}"
    )
    return f"{call.source.text}{counts}, {call.shape}"


def through_compile(call: Call, target: str) -> Attend:
    """Through the front door: the text is parsed, and the mask comes from a pattern that no parser has seen."""
    attend = sparsec.compile(
        call.source.text,
        heads=call.source.heads,
        kv_heads=call.source.kv_heads,
        head_dim=call.inputs.q.shape[3],
        dtype=call.inputs.q.dtype,
        target=target,
        device="cpu",
    )
    return lambda q, k, v: attend(q, k, v, q_offset=call.shape.q_offset, return_lse=True)


@compiled
def test_torch() -> None:
    coverage = Coverage()

    @examples(ON_TORCH)
    @given(calls(100, 200, (8, 16), ("float32", "float32", "bfloat16", "float16")))
    def check(call: Call) -> None:
        note(described(call))
        check_call(through_compile(call, "torch"), call, coverage)

    check()
    coverage.check(ON_TORCH)


def chosen_calls(strategy: st.SearchStrategy[Call], count: int) -> list[Call]:
    """`count` calls of different patterns, drawn before any runs; at least four in five with rows that see a part.

    For targets where a kernel costs seconds: what hypothesis repeats costs nothing, and a failing call is not shrunk.
    """
    telling: dict[str, Call] = {}
    others: dict[str, Call] = {}

    @settings(max_examples=4 * wanted(count))
    @given(strategy)
    def draw(call: Call) -> None:
        seen = mask(call.pattern, call.shape.n_q, call.shape.n_k, call.shape.q_offset).double().mean(dim=-1)
        part = ((seen > 0) & (seen < 1)).double().mean()
        (telling if part > 0.3 else others).setdefault(call.source.text, call)

    draw()
    mixed = [*list(telling.values())[: wanted(count) * 4 // 5], *others.values(), *telling.values()]
    return list({call.source.text: call for call in mixed}.values())[: wanted(count)]


def check_named(attend: Attend, call: Call, coverage: Coverage) -> None:
    try:
        check_call(attend, call, coverage)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{described(call)}") from error


@compiled
def test_cpu() -> None:
    """Ten patterns a library, built with little optimisation: what is tested is the text, not the compiler."""
    coverage = Coverage()
    tiles = tile_sizes("cpu", 16, "float32")[:2]
    chosen = chosen_calls(calls(130, 250, (16,), ("float32",)), ON_CPU)
    for start in range(0, len(chosen), IN_ONE_LIBRARY):
        part = chosen[start : start + IN_ONE_LIBRARY]
        plans = [
            plan_kernels(call.pattern, head_dim=16, dtype="float32", query_tile=tiles[0], key_tile=tiles[1])
            for call in part
        ]
        for call, kernel in zip(part, cpu.build_kernels(plans, optimise=1), strict=True):
            check_named(_attend(kernel, call.shape.q_offset), call, coverage)
    coverage.check(ON_CPU)


def _attend(kernel: cpu.CpuKernel, q_offset: int) -> Attend:
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lists = draw_tables(plan_lists(kernel.plan), q.shape[2], q_offset, q.device)
        return kernel.forward(q, k, v, q_offset=q_offset, scale=None, lists=lists)

    return attend


@compiled
def test_cpu_through_compile() -> None:
    """A few with every head dimension and dtype, optimised, the usual way."""
    coverage = Coverage()

    @settings(max_examples=8)
    @given(calls(70, 150, (8, 20, 64, 128), ("float32", "bfloat16", "float16")))
    def check(call: Call) -> None:
        note(described(call))
        check_call(through_compile(call, "cpu"), call, coverage)

    check()


@pytest.mark.skipif(not INTERPRETED, reason="run in a process of its own by test_interpreted_triton")
def test_triton() -> None:
    coverage = Coverage()

    few = calls(50, 110, (16,), ("float32", "float32", "float16"), blocks=(16, 32), max_batch=1)
    for call in chosen_calls(few, ON_TRITON):
        check_named(through_compile(call, "triton"), call, coverage)
    coverage.check(ON_TRITON)


@compiled
def test_interpreted_triton() -> None:
    """Triton reads TRITON_INTERPRET when it is imported, so its interpreter has a process of its own."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-k", "test_triton", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-8000:] + done.stderr[-2000:]

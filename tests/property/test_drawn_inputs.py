"""Output, LSE and gradients of drawn patterns with run-time inputs, alone and among other terms, on every target."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from drawn_calls import (
    EVERY_DTYPE,
    Call,
    Found,
    calls,
    check_forward_of,
    check_gradients_of,
    check_named,
    chosen_calls,
    cpu_modules,
    described,
    form_of,
    module_for,
)
from hypothesis import given, note
from hypothesis import strategies as st
from vacuity import examples, wanted

from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import InputKind
from sparsec.testing.drawn import FORMS, declaration

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
compiled = pytest.mark.skipif(INTERPRETED, reason="this process tests interpreted Triton alone")
ON_TORCH, ON_CPU, ON_TRITON = wanted(500, at_night=3_000), wanted(150, at_night=300), wanted(40, at_night=80)
IN_ONE_LIBRARY = 10


def calls_with_inputs(
    max_queries: int, max_keys: int, head_dims: tuple[int, ...], dtypes: tuple[str, ...] = EVERY_DTYPE, **more: Any
) -> st.SearchStrategy[Call]:
    drawn = calls(max_queries, max_keys, head_dims, dtypes, run_time=True, **more)
    return drawn.filter(lambda call: any(decl.kind is not InputKind.WEIGHTS for decl in call.pattern.inputs))


def check_both(module: SparseAttention, call: Call) -> None:
    check_forward_of(module, call)
    check_gradients_of(module, call)


def check_forms(found: Found, patterns: int) -> None:
    """So many different patterns with inputs were drawn, and at least one in 150 with each form of input."""
    found.check(patterns)
    for form in (*(form_of(declaration(0, *form)) for form in FORMS), InputKind.WEIGHTS.value):
        assert found.kinds[form] >= patterns // 150, f"{form} is drawn too seldom: {found.kinds}"


@compiled
def test_torch() -> None:
    found = Found()

    @examples(ON_TORCH)
    @given(calls_with_inputs(70, 130, (8, 16), value_dims=(4, 24)))
    def check(call: Call) -> None:
        note(described(call))
        check_both(module_for(call, "torch"), call)
        found.note_call(call)

    check()
    check_forms(found, ON_TORCH)


@compiled
def test_cpu() -> None:
    found = Found()
    chosen = chosen_calls(calls_with_inputs(100, 180, (16,)), ON_CPU)
    for start in range(0, len(chosen), IN_ONE_LIBRARY):
        part = chosen[start : start + IN_ONE_LIBRARY]
        for call, module in zip(part, cpu_modules(part, gradients=True, optimise=0), strict=True):
            check_named(check_both, module, call)
            found.note_call(call)
    check_forms(found, ON_CPU)


@pytest.mark.skipif(not INTERPRETED, reason="run in a process of its own by test_interpreted_triton")
def test_triton() -> None:
    found = Found()
    few = calls_with_inputs(40, 70, (16,), dtypes=("float32", "float32", "float16"), blocks=(16, 32), max_batch=1)
    for call in chosen_calls(few, ON_TRITON):
        check_named(check_both, module_for(call, "triton"), call)
        found.note_call(call)
    found.check(ON_TRITON)


@compiled
def test_interpreted_triton() -> None:
    """Triton reads TRITON_INTERPRET when it is imported, so its interpreter has a process of its own."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-k", "test_triton", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-8000:] + done.stderr[-2000:]

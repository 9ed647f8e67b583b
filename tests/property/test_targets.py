"""Output and LSE of drawn patterns, scores and documents on every target: the tolerance policy and the exact probes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from drawn_calls import (
    EVERY_DTYPE,
    Call,
    Found,
    calls,
    check_forward_of,
    check_named,
    chosen_calls,
    cpu_modules,
    described,
    module_for,
)
from hypothesis import given, note, settings
from vacuity import examples, wanted

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
compiled = pytest.mark.skipif(INTERPRETED, reason="this process tests interpreted Triton alone")
ON_TORCH, ON_CPU, ON_TRITON = wanted(500, at_night=5_000), wanted(150, at_night=300), wanted(40, at_night=80)
IN_ONE_LIBRARY = 10


@compiled
def test_torch() -> None:
    found = Found()

    @examples(ON_TORCH)
    @given(calls(100, 200, (8, 16), EVERY_DTYPE, value_dims=(4, 24)))
    def check(call: Call) -> None:
        note(described(call))
        check_forward_of(module_for(call, "torch"), call)
        found.note_call(call)

    check()
    found.check_kinds(ON_TORCH, EVERY_DTYPE)


@compiled
def test_cpu() -> None:
    """Ten patterns a library, built with little optimisation: what is tested is the text, not the compiler."""
    found = Found()
    chosen = chosen_calls(calls(130, 250, (16,), EVERY_DTYPE), ON_CPU)
    for start in range(0, len(chosen), IN_ONE_LIBRARY):
        part = chosen[start : start + IN_ONE_LIBRARY]
        for call, module in zip(part, cpu_modules(part), strict=True):
            check_named(check_forward_of, module, call)
            found.note_call(call)
    found.check_kinds(ON_CPU, EVERY_DTYPE)


@compiled
def test_cpu_through_compile() -> None:
    """A few with every head dimension and dtype, optimised, the usual way."""
    found = Found()

    @settings(max_examples=8)
    @given(calls(70, 150, (8, 20, 64, 128), ("float32", "bfloat16", "float16"), value_dims=(5, 40, 72)))
    def check(call: Call) -> None:
        note(described(call))
        check_forward_of(module_for(call, "cpu"), call)
        found.note_call(call)

    check()


@pytest.mark.skipif(not INTERPRETED, reason="run in a process of its own by test_interpreted_triton")
def test_triton() -> None:
    found = Found()

    few = calls(50, 110, (16,), ("float32", "float32", "float16"), blocks=(16, 32), max_batch=1)
    for call in chosen_calls(few, ON_TRITON):
        check_named(check_forward_of, module_for(call, "triton"), call)
        found.note_call(call)
    found.check_kinds(ON_TRITON, ("float32", "float16"))


@compiled
def test_interpreted_triton() -> None:
    """Triton reads TRITON_INTERPRET when it is imported, so its interpreter has a process of its own."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-k", "test_triton", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-8000:] + done.stderr[-2000:]

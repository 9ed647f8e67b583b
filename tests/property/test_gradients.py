"""Gradients of drawn patterns, scores and documents on every target, against float64 autograd through the reference."""

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
    check_gradients_of,
    check_named,
    chosen_calls,
    cpu_modules,
    described,
    module_for,
)
from hypothesis import given, note
from vacuity import examples, wanted

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
compiled = pytest.mark.skipif(INTERPRETED, reason="this process tests interpreted Triton alone")
ON_TORCH, ON_CPU, ON_TRITON = wanted(500, at_night=3_000), wanted(150, at_night=300), wanted(40, at_night=80)
IN_ONE_LIBRARY = 10


@compiled
def test_torch() -> None:
    found = Found()

    @examples(ON_TORCH)
    @given(calls(70, 130, (8, 16), EVERY_DTYPE, value_dims=(4, 24)))
    def check(call: Call) -> None:
        note(described(call))
        check_gradients_of(module_for(call, "torch"), call)
        found.note_call(call)

    check()
    found.check_kinds(ON_TORCH, EVERY_DTYPE)


@compiled
def test_cpu() -> None:
    found = Found()
    chosen = chosen_calls(calls(100, 180, (16,), EVERY_DTYPE), ON_CPU)
    for start in range(0, len(chosen), IN_ONE_LIBRARY):
        part = chosen[start : start + IN_ONE_LIBRARY]
        for call, module in zip(part, cpu_modules(part, gradients=True, optimise=0), strict=True):
            check_named(check_gradients_of, module, call)
            found.note_call(call)
    found.check_kinds(ON_CPU, EVERY_DTYPE)


@pytest.mark.skipif(not INTERPRETED, reason="run in a process of its own by test_interpreted_triton")
def test_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsec.backends.triton import splits  # Triton is imported where it interprets

    monkeypatch.setattr(splits, "SHORTEST_PART", 1)
    monkeypatch.setattr(splits, "PARTS_A_PROCESSOR", 60)
    found = Found()
    few = calls(40, 70, (16,), ("float32", "float32", "float16"), blocks=(16, 32), max_batch=1)
    for n, call in enumerate(chosen_calls(few, ON_TRITON)):
        monkeypatch.setattr(splits, "LONG_WALK", 1 + n % 2 * 1000)  # in parts, wherever that may be, or whole
        check_named(check_gradients_of, module_for(call, "triton"), call)
        found.note_call(call)
    found.check_kinds(ON_TRITON, ("float32", "float16"))


@compiled
def test_interpreted_triton() -> None:
    """Triton reads TRITON_INTERPRET when it is imported, so its interpreter has a process of its own."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-k", "test_triton", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-8000:] + done.stderr[-2000:]

"""Forward attention and LSE of drawn patterns on every target: the tolerance policy and the exact probes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from drawn_calls import Call, attend_of, calls, chosen_calls, cpu_modules, described, module_for
from hypothesis import given, note, settings
from vacuity import Coverage, examples

from sparsec.testing.probes import Attend, check_forward

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
compiled = pytest.mark.skipif(INTERPRETED, reason="this process tests interpreted Triton alone")
ON_TORCH, ON_CPU, ON_TRITON = 500, 150, 40
IN_ONE_LIBRARY = 10


def check_call(attend: Attend, call: Call, coverage: Coverage) -> None:
    visible = call.visible
    check_forward(attend, call.inputs.q, call.inputs.k, call.inputs.v, visible)
    coverage.note(call.source.text, visible)


@compiled
def test_torch() -> None:
    coverage = Coverage()

    @examples(ON_TORCH)
    @given(calls(100, 200, (8, 16), ("float32", "float32", "bfloat16", "float16")))
    def check(call: Call) -> None:
        note(described(call))
        check_call(attend_of(module_for(call, "torch"), call), call, coverage)

    check()
    coverage.check(ON_TORCH)


def check_named(attend: Attend, call: Call, coverage: Coverage) -> None:
    try:
        check_call(attend, call, coverage)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{described(call)}") from error


@compiled
def test_cpu() -> None:
    """Ten patterns a library, built with little optimisation: what is tested is the text, not the compiler."""
    coverage = Coverage()
    chosen = chosen_calls(calls(130, 250, (16,), ("float32",)), ON_CPU)
    for start in range(0, len(chosen), IN_ONE_LIBRARY):
        part = chosen[start : start + IN_ONE_LIBRARY]
        for call, module in zip(part, cpu_modules(part), strict=True):
            check_named(attend_of(module, call), call, coverage)
    coverage.check(ON_CPU)


@compiled
def test_cpu_through_compile() -> None:
    """A few with every head dimension and dtype, optimised, the usual way."""
    coverage = Coverage()

    @settings(max_examples=8)
    @given(calls(70, 150, (8, 20, 64, 128), ("float32", "bfloat16", "float16")))
    def check(call: Call) -> None:
        note(described(call))
        check_call(attend_of(module_for(call, "cpu"), call), call, coverage)

    check()


@pytest.mark.skipif(not INTERPRETED, reason="run in a process of its own by test_interpreted_triton")
def test_triton() -> None:
    coverage = Coverage()

    few = calls(50, 110, (16,), ("float32", "float32", "float16"), blocks=(16, 32), max_batch=1)
    for call in chosen_calls(few, ON_TRITON):
        check_named(attend_of(module_for(call, "triton"), call), call, coverage)
    coverage.check(ON_TRITON)


@compiled
def test_interpreted_triton() -> None:
    """Triton reads TRITON_INTERPRET when it is imported, so its interpreter has a process of its own."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-k", "test_triton", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-8000:] + done.stderr[-2000:]

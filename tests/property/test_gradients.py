"""Gradients of drawn patterns, scores and documents on every target, against float64 autograd through the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from drawn_calls import Call, attend_of, calls, chosen_calls, cpu_modules, described, module_for
from hypothesis import given, note
from vacuity import Coverage, examples, wanted

from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import Documents
from sparsec.testing.gradients import check_gradients

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
compiled = pytest.mark.skipif(INTERPRETED, reason="this process tests interpreted Triton alone")
ON_TORCH, ON_CPU, ON_TRITON = 500, 150, 40
IN_ONE_LIBRARY = 10


class Found(Coverage):
    """Counts what else was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: Counter[str] = Counter()

    def check(self, in_ci: int) -> None:
        super().check(in_ci)
        for kind in ("softcap", "alibi", "learned_sink", "documents", "documents restart", "empty document", "plain"):
            assert self.kinds[kind] >= wanted(in_ci) // 20, f"{kind} is drawn too seldom: {self.kinds}"


def check_call(module: SparseAttention, call: Call, found: Found) -> None:
    visible, score, lengths = call.visible, call.pattern.score, call.cu_seqlens
    check_gradients(
        attend_of(module, call),
        *(call.inputs.q, call.inputs.k, call.inputs.v, visible, score),
        sink=module.sink,
        q_offset=call.shape.q_offset,
        through_lse=call.shape.n_q % 4 != 0,
    )
    if call.source.text in found.patterns:
        return
    found.note(call.source.text, visible)
    kinds = [name for name in ("softcap", "alibi", "learned_sink") if getattr(score, name)]
    if call.pattern.documents is not Documents.NONE:
        kinds.append(call.pattern.documents.value)
    if lengths is not None and len(set(lengths)) < len(lengths):
        kinds.append("empty document")
    found.kinds.update(kinds or ["plain"])


def check_named(module: SparseAttention, call: Call, found: Found) -> None:
    try:
        check_call(module, call, found)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{described(call)}") from error


@compiled
def test_torch() -> None:
    found = Found()

    @examples(ON_TORCH)
    @given(calls(70, 130, (8, 16), ("float32", "float32", "bfloat16", "float16"), scored=True))
    def check(call: Call) -> None:
        note(described(call))
        check_call(module_for(call, "torch"), call, found)

    check()
    found.check(ON_TORCH)


@compiled
def test_cpu() -> None:
    found = Found()
    chosen = chosen_calls(calls(100, 180, (16,), ("float32",), scored=True), ON_CPU)
    for start in range(0, len(chosen), IN_ONE_LIBRARY):
        part = chosen[start : start + IN_ONE_LIBRARY]
        for call, module in zip(part, cpu_modules(part, gradients=True), strict=True):
            check_named(module, call, found)
    found.check(ON_CPU)


@pytest.mark.skipif(not INTERPRETED, reason="run in a process of its own by test_interpreted_triton")
def test_triton() -> None:
    found = Found()
    few = calls(40, 70, (16,), ("float32", "float32", "float16"), blocks=(16, 32), max_batch=1, scored=True)
    for call in chosen_calls(few, ON_TRITON):
        check_named(module_for(call, "triton"), call, found)
    found.check(ON_TRITON)


@compiled
def test_interpreted_triton() -> None:
    """Triton reads TRITON_INTERPRET when it is imported, so its interpreter has a process of its own."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-k", "test_triton", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-8000:] + done.stderr[-2000:]

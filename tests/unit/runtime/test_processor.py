"""Artefacts for the CPU say which instructions they need; a machine without them is told so before anything runs."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import torch

import sparsec
from sparsec.backends.cpu import kernel as cpu
from sparsec.backends.cpu import processor
from sparsec.runtime.build.artefact import compile_to_directory, load_compiled

TEXT = "pattern p { heads 2  causal  attend window(5) }"
V3 = {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

LEVELS = pytest.mark.skipif(cpu.platform.machine() != "x86_64", reason="levels of x86-64")
pytestmark = [pytest.mark.kernels, LEVELS]


def written(folder: Path, target: str = "cpu") -> Path:
    compile_to_directory(
        sparsec.parse(TEXT).pattern(), folder, target=target, head_dim=16, dtype="float32", gradients=False
    )
    return folder


def needs(folder: Path) -> set[str]:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["processor"]["machine"] == "x86_64"
    return set(manifest["processor"]["instructions"])


@pytest.mark.parametrize(("level", "sets"), [("x86-64-v3", V3), ("x86-64-v4", V4)])
def test_levels_name_their_instruction_sets_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, sets: set[str]
) -> None:
    folder = written(tmp_path / "p", f"cpu:{level}")
    assert needs(folder) == sets
    monkeypatch.setattr(processor, "available", lambda: frozenset(sets))
    load_compiled(folder)
    for missing in ("avx2", max(sets)):
        monkeypatch.setattr(processor, "available", lambda missing=missing: frozenset(sets - {missing}))
        with pytest.raises(sparsec.CallError, match=f"expected a processor with {missing}, .* cpu:x86-64-v3"):
            load_compiled(folder)


def test_kernels_that_multiply_matrices_are_for_processors_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    built_for = cpu.processor_of("sapphirerapids")
    matrices = {"amx_tile", "amx_bf16"}
    assert V4 | matrices <= set(built_for.instructions)
    assert not any(name.startswith("amx") for name in cpu.processor_of("x86-64-v4").instructions)
    monkeypatch.setattr(processor, "available", lambda: frozenset(built_for.instructions))
    processor.check_processor(built_for.machine, built_for.instructions)
    monkeypatch.setattr(processor, "available", lambda: frozenset(built_for.instructions) - matrices)
    with pytest.raises(sparsec.CallError, match="expected a processor with amx_bf16, amx_tile, which"):
        processor.check_processor(built_for.machine, built_for.instructions)


def test_a_level_gives_the_same_attention_and_a_library_of_its_own(tmp_path: Path) -> None:
    portable, native = written(tmp_path / "v3", "cpu:x86-64-v3"), written(tmp_path / "native")
    assert needs(native) <= (processor.available() or set())
    assert (portable / "forward.so").read_bytes() != (native / "forward.so").read_bytes() or needs(native) == V3
    q, k, v = torch.randn(3, 1, 2, 300, 16).unbind()
    attn = load_compiled(portable)
    assert attn.target == "cpu" and attn._kernel != load_compiled(native)._kernel
    torch.testing.assert_close(attn(q, k, v), load_compiled(native)(q, k, v), atol=1e-6, rtol=0)


def test_kernels_of_another_processor_are_refused_before_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that builds for a processor whose instructions this one lacks, as another machine's does."""
    wrapper = tmp_path / "cxx"
    compiler = cpu.find_compiler()
    assert compiler is not None
    lines = ("#!/bin/sh", f'exec {compiler.command[0]} $(echo "$@" | sed s/-march=native/-march=bdver4/)')
    wrapper.write_text("\n".join(lines) + "\n")
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(wrapper))
    folder = written(tmp_path / "foreign")
    assert {"xop", "fma4"} <= needs(folder)
    monkeypatch.setattr(processor, "available", lambda: frozenset(V4))
    with pytest.raises(sparsec.CallError, match=r"expected a processor with .*fma4, .*xop"):
        load_compiled(folder)


def test_another_machines_kernels_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "p")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["processor"] = {"machine": "aarch64", "instructions": ["sve"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(sparsec.CallError, match="expected kernels for this machine, x86_64, got those of aarch64"):
        load_compiled(folder)


def test_a_level_is_of_x86_64_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.platform, "machine", lambda: "aarch64")
    with pytest.raises(cpu.BuildError, match="expected an x86-64 machine to build for x86-64-v3, got aarch64"):
        cpu.compile_shared("", processor="x86-64-v3")


def test_what_a_system_does_not_name_is_not_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("sh", "-c", "echo '#define __AVX512F__ 1'; echo '#define __AVX512FP16__ 1'")
    for have, expected in ((V4, ("avx512f",)), (V4 | {"avx512_fp16"}, ("avx512_fp16", "avx512f"))):
        processor.used_by.cache_clear()
        monkeypatch.setattr(processor, "available", lambda have=have: frozenset(have))
        assert processor.used_by(command, "-march=native").instructions == expected
    processor.used_by.cache_clear()


def test_a_compiler_that_does_not_say_is_taken_to_use_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "available", lambda: frozenset(V3))
    assert processor.used_by(("false",), "-march=native").instructions == tuple(sorted(V3))
    assert processor.used_by(("/nowhere",), "-march=native").instructions == tuple(sorted(V3))
    processor.used_by.cache_clear()

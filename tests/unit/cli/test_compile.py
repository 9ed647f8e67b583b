"""`sparsec compile --prove`: what is proved is recorded, what is not is not written."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import sparsec
from sparsec.backends.built import Built
from sparsec.backends.cpu import kernel as cpu
from sparsec.backends.cpu.backend import CpuBackend
from sparsec.backends.triton.backend import TritonBackend
from sparsec.cli import proofs
from sparsec.cli.main import commands
from sparsec.plan.tiles import tiles_data
from sparsec.runtime.build import artefact
from sparsec.runtime.build.manifest import KernelRecord


def compiled(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(commands, ["compile", *map(str, arguments)], prog_name="sparsec")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p.sparse"
    path.write_text("pattern p { heads 2 kv 1  causal  attend window(64) | sink(4) }\n")
    return path


@pytest.fixture
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("expected the claims to be decided before anything is built")

    monkeypatch.setattr(CpuBackend, "build", refuse)


def proving(monkeypatch: pytest.MonkeyPatch, prove: Callable[..., Any]) -> None:
    """Stands in for the proofs."""
    stand_in = ModuleType("sparsec.prove")
    stand_in.prove_compilation = prove  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sparsec.prove", stand_in)


def claim(name: str, status: str) -> Any:
    at = {"i": 1088, "j": 127} if status == "refuted" else None
    return SimpleNamespace(
        name=name,
        about="forward; heads 0..2",
        status=status,
        seconds=0.002,
        counterexample=at,
        picture="#x#",
        inputs=(),
    )


@pytest.mark.kernels
def test_the_manifest_records_what_was_proved(file: Path) -> None:
    z3 = pytest.importorskip("z3")
    target = file.with_name("built")
    result = compiled(file, "-o", target, "--head-dim", "16", "--inference", "--prove")
    assert result.exit_code == 0, result.output
    proof = json.loads((target / "manifest.json").read_text())["proof"]
    assert proof["solver"] == f"z3 {z3.get_version_string()}"
    assert f"{len(proof['claims'])} claims, for all lengths, proved by {proof['solver']}\n" in result.stdout
    assert {each["status"] for each in proof["claims"]} == {"proved"}
    assert all(each.keys() == {"name", "about", "status", "seconds"} for each in proof["claims"])
    assert all(0 < each["seconds"] < 100 for each in proof["claims"])
    about = {each["about"].split(";")[0].split(",")[0] for each in proof["claims"]}
    assert about == {"forward", "cached rows", "KV cache"}
    attn = sparsec.load_compiled(target)
    q, k, v = (torch.ones(1, heads, 9, 16) for heads in (2, 1, 1))
    assert torch.equal(attn(q, k, v), q)


@pytest.mark.kernels
def test_without_the_option_there_is_no_proof_and_without_gradients_none_of_them(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, bool]] = []
    proving(monkeypatch, lambda of, gradients, **_: asked.append((of, gradients)) or (claim("coverage", "not proved"),))
    target = file.with_name("built")
    assert compiled(file, "-o", target, "--head-dim", "16", "--inference").exit_code == 0
    assert not asked and json.loads((target / "manifest.json").read_text())["proof"] is None
    options = ("--head-dim", "32", "--dtype", "float16", "--target", "cuda:90", "--inference", "--prove")
    assert compiled(file, "-o", file.with_name("other"), *options).exit_code == 1
    ((of, gradients),) = asked
    assert (of.head_dim, of.dtype, of.target, gradients) == (32, "float16", "cuda:90", False)


@pytest.mark.usefixtures("nothing_is_built")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", ""), "expected the name of a folder, got an empty one"),
        (("-o", "built", "--target", "hip:gfx000"), "hip:gfx950, gluon:90, got 'hip:gfx000'"),
        (("-o", "built", "--target", "cuda:999"), "hip:gfx950, gluon:90, got 'cuda:999'"),
        (("-o", "built", "--tiles", "forward"), "expected KIND=NUMBERS as in forward=128,64,8,3: got 'forward'"),
        (("-o", "built", "--tiles", "forward=128,x"), "as in forward=128,64,8,3: got 'forward=128,x'"),
        (("-o", "built", "--tiles", "fast=16,16,4,2"), "expected tiles of forward, "),
        (("-o", "built", "--tiles", "forward=48,16,4,2"), "expected a query tile of forward among 16, 32, 64, 128"),
    ],
)
def test_wrong_usage(file: Path, arguments: tuple[str, ...], message: str) -> None:
    result = compiled(file, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


def test_tiles_reach_the_kernels(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []

    def build(_: object, compilation: Any, *__: object) -> Built:
        built.append(compilation)
        return Built((), {})

    monkeypatch.setattr(TritonBackend, "build", build)
    options = ("-o", file.with_name("built"), "--target", "cuda:90", "--dtype", "float16", "--inference")
    result = compiled(file, *options, "--tiles", "forward=32,16,4,2", "--tiles", "decode=16,64,4,3,128")
    assert result.exit_code == 0, result.output
    (compilation,) = built
    assert tiles_data(compilation.tiles) == {"forward": [32, 16, 4, 2, None], "decode": [16, 64, 4, 3, 128]}
    of_forward = json.loads((file.with_name("built") / "manifest.json").read_text())["launch"]["forward"]
    assert of_forward["tiles"]["forward"] == [32, 16, 4, 2, None]


@pytest.mark.usefixtures("nothing_is_built")
def test_a_target_without_tiles_takes_none(file: Path) -> None:
    result = compiled(file, "-o", "built", "--tiles", "forward=32,16,4,2")
    assert result.exit_code == 2 and "expected no tiles for target 'cpu', which has none to choose" in result.stderr


SPILL = "grad_keys_0 for cuda:90 spills registers: 52 bytes spilled, 48 bytes of stack a thread"
TOO_MUCH = "forward_0 for cuda:90 needs 300000 bytes of shared memory, over 232448"


@pytest.mark.parametrize(
    ("problems", "options", "status", "said"),
    [
        ((), (), 0, [f"warning: {SPILL}"]),
        ((), ("--no-spills",), 1, [f"error: {SPILL}"]),
        ((TOO_MUCH,), (), 1, [f"warning: {SPILL}", f"error: {TOO_MUCH}"]),
        ((TOO_MUCH,), ("--no-spills",), 1, [f"error: {TOO_MUCH}", f"error: {SPILL}"]),
    ],
)
def test_a_spill_is_a_warning_unless_asked_for_none(
    file: Path,
    problems: tuple[str, ...],
    options: tuple[str, ...],
    status: int,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernels = (
        KernelRecord("forward_0", 168, 0, 0, 300_000, 24, 12, problems),
        KernelRecord("grad_keys_0", 255, 52, 48, 100_000, 24, 12, (), (SPILL,)),
    )
    monkeypatch.setattr(TritonBackend, "build", lambda *_: Built(kernels, {}))
    target = file.with_name("built")
    result = compiled(file, "-o", target, "--target", "cuda:90", *options)
    assert result.exit_code == status
    assert [line for line in result.stderr.splitlines() if line.startswith(("warning:", "error:"))] == said
    assert ["grad_keys_0", "255", "52", "48", "100000", "24"] in [line.split() for line in result.stdout.splitlines()]
    written = json.loads((target / "manifest.json").read_text())["kernels"]
    assert [(kernel["problems"], kernel["warnings"]) for kernel in written] == [([*problems], []), ([], [SPILL])]


@pytest.mark.usefixtures("nothing_is_built")
def test_without_a_compiler_no_other_target_is_advised(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "find_compiler", lambda: None)
    result = compiled(file, "-o", file.with_name("built"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "expected a C++ compiler ($CXX, g++ or clang++) for target cpu, found none" in result.stderr
    assert "torch" not in result.stderr


@pytest.mark.kernels
def test_a_folder_that_cannot_be_written_is_named_as_it_was_given(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(file.with_name(".sparsec-1")))

    monkeypatch.setattr(CpuBackend, "build", lambda *_: Built((), {}))
    monkeypatch.setattr(artefact.tempfile, "TemporaryDirectory", refuse)
    result = compiled(file, "-o", file.with_name("built"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f"error: {file.with_name('built')}: Permission denied"


@pytest.mark.usefixtures("nothing_is_built")
@pytest.mark.parametrize("status", ["refuted", "not proved"])
def test_what_is_not_proved_is_not_written(file: Path, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proving(monkeypatch, lambda _, **__: (claim("coverage", "proved"), claim("fullness", status)))
    result = compiled(file, "-o", file.with_name("built"), "--prove")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error: expected every claim to be proved, got 1 of 2 that are not; nothing was written" in result.stderr
    (row,) = (line for line in result.stderr.splitlines() if line.startswith("forward; heads 0..2"))
    assert row.split()[-5 if status == "not proved" else -4] == "fullness" and row.endswith(status)
    assert ("is refuted at i = 1088, j = 127\n#x#" in result.stderr) == (status == "refuted")
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.usefixtures("nothing_is_built")
def test_a_proof_that_takes_too_long_is_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("z3")
    monkeypatch.setattr(proofs, "CLAIM_SECONDS", 0.0)
    result = compiled(file, "-o", file.with_name("built"), "--prove")
    assert (result.exit_code, result.stdout) == (1, "")
    rows = [line for line in result.stderr.splitlines() if line.endswith("not proved")]
    assert any(row.split()[-5] == "coverage" for row in rows)
    assert not any(line.endswith("  proved") for line in result.stderr.splitlines())
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.usefixtures("nothing_is_built")
def test_without_z3_the_message_names_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proving(monkeypatch, lambda *_, **__: import_module("z3"))
    monkeypatch.setitem(sys.modules, "z3", None)
    result = compiled(file, "-o", file.with_name("built"), "--prove")
    assert result.exit_code == 2
    assert "expected the package z3, which is not installed: pip install 'sparsec[prove]'" in result.stderr
    assert [path.name for path in file.parent.iterdir()] == [file.name]

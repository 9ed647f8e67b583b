"""`sparsec compile --model`: a folder for each kind of layers, built at one time, equal to that of a pattern alone."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from invoking import invoke, progress_of

import sparsec
from sparsec.backends.built import Built, KernelRecord
from sparsec.backends.cpu.backend import CpuBackend
from sparsec.backends.triton.backend import TritonBackend
from sparsec.cli import compile as command
from sparsec.diagnostics.model import CallError, SparsecError
from sparsec.runtime.build import at_once
from sparsec.runtime.build.artefact import compile_to_directory
from sparsec.runtime.build.manifest import ClaimRecord, Proof

TEXT = """
pattern near(w = 16) { heads 2 kv 1  causal  attend window(w) }
pattern all { heads 2 kv 1  attend full }
model m {
    where l == 0 use near
    where l % 3 == 2 use all
    otherwise use near(w = 8 * (1 + l % 2))
}
"""
LAYERS = ["near-0", "near-0", "all", "near-3", "near-4", "all"]
"""The folder of each of the kinds of six layers; layers 0 and 1 mean the same."""


@pytest.fixture
def layered(tmp_path: Path) -> Path:
    path = tmp_path / "m.sparse"
    path.write_text(TEXT.replace("near(w = 8 * (1 + l % 2))", "near(w = 8 * (1 + l % 2) + l // 3)"))
    return path


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is built, by a stand-in for the compiler."""
    found: list[Any] = []

    def build(_: object, compilation: Any, *__: object) -> Built:
        found.append(compilation)
        return Built((KernelRecord("sparsec_forward"),), {"forward.cpp": b"text"}, {})

    monkeypatch.setattr(CpuBackend, "build", build)
    return found


def of_model(file: Path, *more: str | Path, layers: int = 6) -> Any:
    return invoke("compile", file, "--model", "m", "--layers", str(layers), "--head-dim", "16", *more)


def test_each_kind_has_a_folder_and_each_layer_a_name(layered: Path, built: list[Any]) -> None:
    out = layered.with_name("out")
    result = of_model(layered, "-o", out)
    assert result.exit_code == 0, result.output
    model = json.loads((out / "model.json").read_text())
    assert (model["model"], model["target"], model["layers"]) == ("m", "cpu", LAYERS)
    assert {path.name for path in out.iterdir()} == {"model.json", *LAYERS}
    assert len(built) == 4
    for folder in set(LAYERS):
        assert {path.name for path in (out / folder).iterdir()} == {"forward.cpp", "layout.json", "manifest.json"}
        assert json.loads((out / folder / "manifest.json").read_text())["pattern"] == folder.partition("-")[0]
    titles = [line for line in result.stdout.splitlines() if ", in " in line]
    assert titles == [
        "near, layers 0..2, in near-0",
        "all, layers 2, 5, in all",
        "near, layer 3, in near-3",
        "near, layer 4, in near-4",
    ]
    assert [path.name for path in layered.parent.iterdir() if path.name.startswith(".")] == []


def test_kinds_are_built_at_one_time(layered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "cores", lambda: 4)
    meeting = threading.Barrier(4, timeout=30)

    def build(*_: object) -> Built:
        meeting.wait()  # passes only where four builds are under way
        return Built((), {}, {})

    monkeypatch.setattr(CpuBackend, "build", build)
    assert of_model(layered, "-o", layered.with_name("out")).exit_code == 0


def test_what_is_being_built_is_told(layered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = progress_of(command, monkeypatch)

    def build(_: object, __: object, parts: Any, progress: Any) -> Built:
        progress(parts[0])
        return Built((), {}, {})

    monkeypatch.setattr(at_once, "cores", lambda: 1)
    monkeypatch.setattr(CpuBackend, "build", build)
    assert of_model(layered, "-o", layered.with_name("out")).exit_code == 0
    assert told[:2] == [
        "lowering: near, layers 0..2; 0 of 4 kinds of layers are built",
        "compiling the forward pass for cpu: near, layers 0..2; 0 of 4 kinds of layers are built",
    ]
    assert told[-1] == "writing"


def test_a_gpus_kernels_are_built_with_their_problems_named(layered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = KernelRecord("forward_0", 168, 0, 0, 1, 1, 1, ("too much",), ("spills",))
    monkeypatch.setattr(TritonBackend, "build", lambda *_: Built((record,), {}))
    result = of_model(layered, "-o", layered.with_name("out"), "--target", "cuda:90", "--dtype", "bf16")
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if line.startswith("error")][-1] == "error: near-4/too much"
    assert "warning: all/spills" in result.stderr


def test_all_is_proved_before_any_is_built(layered: Path, built: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    proved: list[tuple[str, str]] = []

    def prove(_: bool, compilation: Any, of: str) -> Proof:
        assert not built
        proved.append((of, compilation.target))
        if len(proved) == refused:
            raise SparsecError("not proved")
        return Proof("z3 0", (ClaimRecord("coverage", "all", "proved", 0.1),))

    monkeypatch.setattr(command, "_proof", prove)
    out, refused = layered.with_name("out"), 4
    assert of_model(layered, "-o", out, "--prove").exit_code == 1
    assert not out.exists() and not built and proved[0] == (" of near, layers 0..2", "cpu") and len(proved) == 4
    refused = 0
    result = of_model(layered, "-o", out, "--prove")
    assert result.exit_code == 0 and "4 claims, for all lengths, proved by z3 0" in result.stdout
    assert json.loads((out / "all" / "manifest.json").read_text())["proof"]["solver"] == "z3 0"


@pytest.mark.usefixtures("built")
def test_a_folder_of_a_model_is_replaced_and_another_is_not(layered: Path) -> None:
    out = layered.with_name("out")
    for layers in (6, 3):
        assert of_model(layered, "-o", out, layers=layers).exit_code == 0
    assert {path.name for path in out.iterdir()} == {"model.json", "near", "all"}
    with pytest.raises(CallError, match=r"that of a model: its model\.json names one for each layer"):
        sparsec.load_compiled(out)
    for content in ("{}", "[", "[1]"):
        (out / "model.json").write_text(content)
        refused = of_model(layered, "-o", out)
        assert refused.exit_code == 2 and "which holds other files" in refused.stderr
        assert (out / "model.json").read_text() == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "m"), "expected layers=..., since its file gives none"),
        (("--model", "no"), "one of: m; got 'no'"),
        (("--layers", "3"), "expected --layers with --model, got a pattern"),
        (("--model", "m", "--layers", "3", "--pattern", "all"), "expected --pattern or --model, got both"),
        (("--model", "m", "--layers", "3", "--head-dim", "0"), "--head-dim"),
    ],
)
def test_wrong_usage_of_models(layered: Path, built: list[Any], arguments: tuple[str, ...], message: str) -> None:
    result = invoke("compile", layered, "-o", layered.with_name("out"), *arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert message in result.stderr and not built and not layered.with_name("out").exists()


@pytest.mark.usefixtures("built")
def test_a_kind_that_no_cache_serves_is_named(layered: Path) -> None:
    layered.write_text(
        "pattern a { heads 1 causal attend full }\npattern b { heads 1 attend full }\n"
        "model m { where l == 1 use b  otherwise use a }\n"
    )
    result = of_model(layered, "-o", layered.with_name("out"), "--pages")
    assert result.exit_code == 2 and "(b, layer 1)" in result.stderr
    result = of_model(layered, "-o", layered.with_name("out"))
    assert result.exit_code == 0 and result.stderr.count("note: pattern `b` has no KV cache") == 1


@pytest.mark.kernels
def test_a_kinds_folder_is_that_of_its_pattern_alone(layered: Path) -> None:
    out, alone = layered.with_name("out"), layered.with_name("alone")
    result = of_model(layered, "-o", out, "--inference", layers=3)
    assert result.exit_code == 0, result.output
    for name in ("near", "all"):
        pattern = sparsec.load(layered).pattern(name)
        compile_to_directory(pattern, alone, target="cpu", head_dim=16, dtype="float32", gradients=False)
        files = {path.name: path.read_bytes() for path in alone.iterdir()}
        assert files == {path.name: path.read_bytes() for path in (out / name).iterdir()}
        attn = sparsec.load_compiled(out / name)
        q, k, v = (torch.randn(1, heads, 40, 16) for heads in (2, 1, 1))
        expected = sparsec.compile(pattern, head_dim=16, target="cpu")(q, k, v)
        assert torch.equal(attn(q, k, v), expected)

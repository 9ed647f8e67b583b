"""The pipeline: its stages are what is run, in order, each once for a request."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import sparsec
from sparsec.backends import registry
from sparsec.backends.base import PARTS
from sparsec.backends.built import Built
from sparsec.backends.cpu.backend import CpuBackend
from sparsec.backends.torch.backend import TorchBackend
from sparsec.backends.triton.backend import TritonBackend
from sparsec.cli.main import commands
from sparsec.ir.bands.lower import lower
from sparsec.ir.bands.normalise import Effort, TooManyBands, TooMuchEffort
from sparsec.ir.bands.transpose import transpose
from sparsec.pipeline import STAGES, Compilation, Lowered
from sparsec.plan.launch import LaunchPlan
from sparsec.runtime.compile import module_of
from sparsec.runtime.kernel import LoadedKernel
from sparsec.runtime.request import Request, kernel_name

TEXT = "pattern p { heads 4 kv 2  block 16  causal  attend window(40) | stride(3b, phase = h) }"


def function_of(dotted: str) -> Callable[..., Any]:
    module, _, name = dotted.rpartition(".")
    found: Callable[..., Any] = getattr(import_module(f"sparsec.{module}"), name)
    return found


def functions() -> dict[CodeType, str]:
    """What does each stage; of a method that every backend has, one that has it."""
    methods = {
        "backends.base.Builder.sources": CpuBackend.sources,
        "backends.base.Backend.kernels": TorchBackend.kernels,
    }
    return {(methods.get(s.function) or function_of(s.function)).__code__: s.name for s in STAGES}


def calls(work: Callable[[], object], watched: dict[CodeType, str]) -> list[str]:
    """The watched functions by name, in the order in which `work` calls them."""
    found: list[str] = []

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code in watched:
            found.append(watched[frame.f_code])

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return found


def test_the_stages_are_what_is_run_in_order_each_once() -> None:
    def work() -> None:
        pattern = sparsec.parse(TEXT.replace("heads 4 kv 2", "")).pattern()  # a check lowers where it knows the heads
        compilation = Compilation(pattern.lowered(4, 2), 64, 64, "float32", "cpu")
        for _ in range(2):
            assert compilation.forward and compilation.backward and compilation.cached
        registry.builder("cpu").sources(compilation, PARTS)
        kernels = registry.backend("torch").kernels(compilation)
        loaded = LoadedKernel(kernels, LaunchPlan.of(compilation.forward), lambda: compilation.forward)
        request = Request(compilation.lowered, 64, 64, torch.float32)
        assert kernels.make_backward() and kernels.make_cached()
        module_of("torch", kernel_name(request, "torch", "stage by stage"), loaded, request)

    found = calls(work, functions())
    assert list(dict.fromkeys(found)) == [stage.name for stage in STAGES]
    once = {name: count for name, count in Counter(found).items() if count > 1}
    # transposed heads are grouped too; the gradients' plan has a forward plan of its own; a cache has chunks and rows
    assert once == {"group": 2, "plan forward": 2, "plan cached": 2}


@pytest.mark.kernels
@pytest.mark.parametrize("target", ["cpu", "cpu:x86-64-v3", "cuda:90", "hip:gfx942"])
@pytest.mark.parametrize("proofs", [False, True], ids=["", "with proofs"])
def test_compile_lowers_and_transposes_each_pattern_once(
    target: str, proofs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proofs:
        pytest.importorskip("z3")
    for backend in (CpuBackend, TritonBackend):
        monkeypatch.setattr(backend, "build", lambda *_: Built((), {}))
    watched = {lower.__code__: "lower", transpose.__code__: "transpose"}
    options = ["--target", target, *(["--prove"] if proofs else [])]
    file = tmp_path / "p.sparse"
    file.write_text("pattern p { heads 4 kv 2  causal  attend window(40) | sink(4) }")
    given = ["compile", str(file), "-o", str(tmp_path / "out"), *options]
    found = calls(lambda: run(given), watched)
    bands = sparsec.load(file).pattern().lowered().bands[0]
    assert Counter(found) == {"lower": 1, "transpose": len(bands)}


def run(arguments: list[str]) -> None:
    result = CliRunner().invoke(commands, arguments, prog_name="sparsec")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", ["explain", "show"])
def test_other_commands_lower_a_pattern_once_too(command: str, tmp_path: Path) -> None:
    file = tmp_path / "p.sparse"
    file.write_text(TEXT)
    found = calls(lambda: run([command, str(file), "--seq-len", "256"]), {lower.__code__: "lower"})
    assert len(found) == 3, "one for each phase"


def test_a_module_lowers_what_its_file_did_not() -> None:
    pattern = sparsec.parse("pattern p { causal attend window(40) }").pattern()

    def work() -> None:
        attn = sparsec.compile(pattern, head_dim=16, heads=2, target="torch", device="cpu")
        assert attn.layout and attn.new_cache() and attn.explain(100)

    assert calls(work, {lower.__code__: "lower"}) == ["lower"]


def test_patterns_of_equal_counts_share_what_was_lowered() -> None:
    program = sparsec.parse(TEXT.replace("p {", "p(n = 40) {").replace("(40)", "(n)"))
    pattern = program.pattern("p")
    assert pattern.lowered() is pattern.lowered(4, 2) is program.pattern("p").lowered()
    assert pattern.lowered() is not program.pattern("p", n=41).lowered()


def test_an_effort_within_another_spends_of_both() -> None:
    whole = Effort(10)
    part = Effort(8, whole)
    part.spend(5)
    assert (part.left, whole.left) == (3, 5)
    with pytest.raises(TooMuchEffort):
        part.spend(4)
    with pytest.raises(TooMuchEffort):
        Effort(within=whole).spend(9)


def test_a_layout_pays_from_what_lowering_has_left() -> None:
    """Bands that two heads of a KV group see together cost more comparisons than their own."""
    pattern = sparsec.parse("pattern p { heads 2 kv 1 causal attend window(9 + h) | sink(4 + h) }").pattern().resolve()
    spent = Lowered(pattern)
    cost = Effort().left - (spent.effort.left if spent.bands else 0)
    tight = Lowered(pattern, Effort(cost))
    assert tight.mask
    with pytest.raises(TooManyBands):
        assert tight.layout

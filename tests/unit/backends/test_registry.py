"""The registry: a backend that is one folder and one entry is found, built with, and stood in for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType

import pytest
import torch

import sparsec
from sparsec.backends import registry
from sparsec.backends.base import Kernels, Unavailable
from sparsec.backends.torch.backend import TorchBackend
from sparsec.diagnostics.model import CallError, InternalError, SparsecError
from sparsec.pipeline import Compilation
from sparsec.plan.target import CPU_TARGETS, GLUON, GPU_TARGETS
from sparsec.runtime import compile as compiling
from sparsec.runtime.devices import check_device
from sparsec.testing.verify import check_runs

TEXT = "pattern p { heads 2  causal  attend window(11) }"


class NoStub(Unavailable):
    lack = "no stub was found"


@dataclass(frozen=True, slots=True)
class Stub:
    """Runs the torch backend's kernels; `lacking`: on a machine without what it builds with."""

    lacking: bool
    made: list[Compilation] = field(default_factory=list)

    def target_of(self, device: torch.device) -> str:
        return "torch"

    def check_runs(self, device: torch.device) -> None:
        raise CallError(f"expected another device, got {device}")

    def check_builds(self) -> None:
        if self.lacking:
            raise NoStub("expected a stub, found none")

    def kernels(self, compilation: Compilation) -> Kernels:
        self.made.append(compilation)
        self.check_builds()
        return TorchBackend().kernels(compilation)


def registered(
    monkeypatch: pytest.MonkeyPatch, *, lacking: bool = False, targets: tuple[str, ...] = ("torch",)
) -> Stub:
    """A stub that comes before all other backends, `targets` being its own."""
    module, stub = ModuleType("stub_backend"), Stub(lacking)
    module.BACKEND = stub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stub_backend", module)
    entry = registry.Entry("stub_backend", targets, ("cpu",), float64=True)
    monkeypatch.setattr(registry, "BACKENDS", {"stub": entry, **registry.BACKENDS})
    return stub


def tensors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((1, 2, 30, 16), generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("target", [None, "stub"])
def test_a_backend_is_a_folder_and_an_entry(target: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sparsec.compile(TEXT, head_dim=16, target="torch", device="cpu", dtype=torch.float64)(*tensors())
    stub = registered(monkeypatch)
    attn = sparsec.compile(TEXT, head_dim=16, target=target, device="cpu", dtype=torch.float64)
    assert attn.target == "stub" and torch.equal(attn(*tensors()), expected)
    (compilation,) = stub.made
    assert (compilation.head_dim, compilation.target) == (16, "torch")
    with pytest.raises(CallError, match="expected a CPU for target 'stub', got device cuda"):
        check_device(attn.target, torch.device("cuda"))
    with pytest.raises(CallError, match="expected another device, got cpu"):
        check_runs("stub", torch.device("cpu"))


def test_the_next_backend_stands_in_where_one_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = registered(monkeypatch, lacking=True, targets=("stub",))
    monkeypatch.setattr(registry, "BACKENDS", {n: e for n, e in registry.BACKENDS.items() if n != "cpu"})
    compiling._warn.cache_clear()
    with pytest.warns(UserWarning, match="no stub was found; sparsec falls back to target='torch', which is slower"):
        attn = sparsec.compile(TEXT, head_dim=16, device="cpu")
    assert attn.target == "torch" and len(stub.made) == 1
    with pytest.raises(NoStub, match="expected a stub, found none"):
        sparsec.compile(TEXT, head_dim=16, device="cpu", target="stub")


def test_a_backend_has_targets_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules find their kernels by the target's name."""
    registered(monkeypatch, targets=("stub",))
    with pytest.raises(InternalError, match="a backend has targets of its own: stub gave torch"):
        sparsec.compile(TEXT, head_dim=16, device="cpu", target="stub")


def test_unknown_names() -> None:
    with pytest.raises(CallError, match=f"expected a target among {', '.join(registry.BACKENDS)}, got 'gpu'"):
        sparsec.compile(TEXT, head_dim=16, target="gpu")
    for target in ("gpu", "", "cudax:90"):
        with pytest.raises(ValueError, match=f"expected a target such as cpu, cuda:90 or hip:gfx942, got '{target}'"):
            registry.backend_name(target)
    for target in ("cpu:x86-64-v9", "cuda:1", "torch", "interpreter"):
        with pytest.raises(ValueError, match=f"expected a target among cpu, .* got '{target}'"):
            registry.builder(target)


def test_each_target_belongs_to_the_backend_that_builds_it() -> None:
    for name, targets in (("cpu", CPU_TARGETS), ("triton", GPU_TARGETS), ("gluon", (GLUON,))):
        assert {registry.backend_name(target) for target in targets} == {name}
        assert registry.builder(targets[0]).packages[0] == "torch"
    assert {device: registry.best(device) for device in ("cpu", "cuda", "mps")} == {
        "cpu": "cpu",
        "cuda": "triton",
        "mps": "torch",
    }
    assert registry.best("cpu", after=registry.compared()[-1]) is None
    assert registry.compared() == tuple(name for name in registry.BACKENDS if name != "reference")


def test_what_is_lacking_is_an_error_of_sparsec() -> None:
    assert issubclass(Unavailable, SparsecError)

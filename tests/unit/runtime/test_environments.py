"""Machines with less than usual: no compiler on PATH, a $CXX that is no command, libraries that nothing loads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.backends.cpu import kernel as cpu
from sparsec.runtime import compile as compiling
from sparsec.runtime import kernel
from sparsec.runtime.build.cache import lookup

pytestmark = pytest.mark.kernels

TEXT = "pattern p { heads 2  causal  attend window(11) }"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A build cache of its own, and a process that has loaded no kernel."""
    monkeypatch.setenv("SPARSEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel, "_KERNELS", {})
    compiling._warn.cache_clear()
    yield
    compiling._warn.cache_clear()


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(kernel, "_KERNELS", {})
    assert cpu.find_compiler() is None


def used(attn: sparsec.SparseAttention) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((1, 2, 40, 16), generator=generator).requires_grad_() for _ in range(3))
    out = attn(q, k, v)
    found = [out.detach(), *torch.autograd.grad(out.sin().sum(), (q, k, v))]
    with torch.no_grad():
        cache = attn.new_cache(1, 40)
        return [*found, *(attn(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b], cache=cache) for a, b in ((0, 30), (30, 40)))]


def test_what_was_built_is_used_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = used(sparsec.compile(TEXT, head_dim=16, device="cpu"))
    without_compiler(monkeypatch)
    for target in (None, "cpu"):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            attn = sparsec.compile(TEXT, head_dim=16, device="cpu", target=target)
            assert attn.target == "cpu"
            assert all(map(torch.equal, used(attn), expected))


def test_a_library_of_another_compiler_is_found_and_a_lost_one_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = cpu.compile_shared('extern "C" int answer() { return 42; }', optimise=0)
    for path in built.parent.iterdir():
        path.unlink()
    built.parent.rmdir()
    again = cpu.compile_shared('extern "C" int answer() { return 42; }', optimise=0)
    without_compiler(monkeypatch)
    assert cpu.compile_shared('extern "C" int answer() { return 42; }', optimise=0) == again
    with pytest.raises(cpu.NoCompiler, match=r"expected a C\+\+ compiler .* found none"):
        cpu.compile_shared('extern "C" int answer() { return 43; }', optimise=0)
    with pytest.raises(cpu.NoCompiler):
        cpu.compile_shared('extern "C" int answer() { return 42; }', optimise=1)


def test_what_was_not_built_falls_back_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    partly = sparsec.compile(TEXT, head_dim=16, device="cpu")  # its forward kernel alone
    without_compiler(monkeypatch)
    attn = sparsec.compile(TEXT, head_dim=16, device="cpu")
    assert attn.target == "cpu" and attn._kernel == partly._kernel
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler was found; sparsec falls back") as caught:
        found = used(attn)
    assert len(caught) == 1
    exact = used(sparsec.compile(TEXT, head_dim=16, target="torch", device="cpu"))
    for ours, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
    compiling._warn.cache_clear()
    other = TEXT.replace("11", "12")
    with pytest.warns(UserWarning, match="falls back"):
        assert sparsec.compile(other, head_dim=16, device="cpu").target == "torch"
    with pytest.raises(cpu.BuildError, match="found none"):
        sparsec.compile(other, head_dim=16, target="cpu")


def test_a_module_that_came_from_a_machine_with_a_compiler_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attn = sparsec.compile(TEXT, head_dim=16, target="cpu")
    q = torch.randn(1, 2, 40, 16)
    expected = attn(q, q, q)
    without_compiler(monkeypatch)
    monkeypatch.setenv("SPARSEC_CACHE_DIR", str(tmp_path / "another"))
    with pytest.warns(UserWarning, match="falls back"):
        torch.testing.assert_close(attn(q, q, q), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("target", [None, "cpu"])
def test_a_cxx_with_an_open_quote_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, target: str | None) -> None:
    monkeypatch.setenv("CXX", 'g++ "')
    with pytest.raises(cpu.BuildError, match=r"expected \$CXX as the words of a command, got 'g\+\+ \"'"):
        sparsec.compile(TEXT, head_dim=16, target=target, device="cpu")


def test_a_cxx_may_be_a_path_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = cpu.find_compiler()
    assert found is not None
    (tmp_path / "cxx").write_text(f'#!/bin/sh\nexec {found.command[0]} "$@"\n')
    (tmp_path / "cxx").chmod(0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "./cxx")
    assert cpu.compile_shared('extern "C" int answer() { return 42; }', optimise=0).is_file()


def test_a_library_that_nothing_loads_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "kernel.so").write_bytes(b"no library")
    with pytest.raises(cpu.BuildError, match=r"expected a library that .* loads, got .*kernel\.so .*CACHE_DIR"):
        cpu.open_library(tmp_path / "kernel.so")


def test_no_room_to_compile_in_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cpu, "_run_compiler", full)
    with pytest.raises(cpu.BuildError, match=r"expected room to build in .*No space left"):
        sparsec.compile(TEXT, head_dim=16, target="cpu")


def test_an_entry_names_one_library(tmp_path: Path) -> None:
    cpu.compile_shared('extern "C" int answer() { return 42; }', optimise=0)
    entries = list((tmp_path / "cache").iterdir())
    names = {path.name for path in entries if (path / "entry").exists()}
    assert len(entries) == 2 and len(names) == 1
    (alias,) = names
    assert lookup((lookup(alias) / "entry").read_text()) is not None  # type: ignore[operator]  # it is there

"""What a folder says of its GPU kernels is what a launch passes, on a card that is not there; and its code is found."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
from card import Launch, Machine, OnCard
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

import sparsec
from sparsec.backends.triton import programs, stored
from sparsec.backends.triton.backend import BACKEND
from sparsec.backends.triton.programs import Programs
from sparsec.plan.launch import Launches
from sparsec.runtime.build.artefact import compile_to_directory, load_compiled
from sparsec.runtime.compile import request_for
from sparsec.runtime.module import SparseAttention

HEADS, KV_HEADS, BATCH, N, MAX_LEN = 4, 2, 2, 300, 400
EXAMPLES = Path(__file__).parents[3] / "examples"
TEXT = (
    "pattern p { heads 4 kv 2  block 16  causal  learned_sink  attend sink(4) | window(20) | stride(3b, phase = -g) }"
)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
compiles = pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
DRIVER = Path(__file__).parent / "cuda_driver.cpp"
INCLUDE = Path(triton.__file__).parent / "backends" / "nvidia" / "include"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are registered for the life of a process: here each test has a table of its own."""
    monkeypatch.setattr("sparsec.runtime.kernel._KERNELS", {})


class Calls:
    """Calls of a module on a card, forward, backward, of a mass and over a cache."""

    def __init__(self, machine: Machine, attn: SparseAttention, dtype: torch.dtype) -> None:
        self.machine, self.attn, self.dtype = machine, attn, dtype
        if attn.sink is not None:
            del attn.sink  # a parameter on the CPU
            attn.sink = machine.put(torch.zeros(HEADS))

    def tensors(self, n: int, batch: int = BATCH) -> list[OnCard]:
        dim = self.attn.head_dim
        made = (torch.zeros(batch, heads, n, dim, dtype=self.dtype) for heads in (HEADS, KV_HEADS, KV_HEADS))
        return [self.machine.put(tensor) for tensor in made]

    def trained(self, **given: Any) -> None:
        tensors = [t.requires_grad_() for t in self.tensors(N, 1 if "cu_seqlens" in given else BATCH)]
        out = self.attn(*tensors, **given)
        torch.autograd.grad(out, tensors, self.machine.put(torch.zeros(out.shape, dtype=out.dtype)))
        with torch.no_grad():
            self.attn(*tensors, return_mass=True, **given)

    @torch.no_grad()
    def cached(self, *steps: int) -> None:
        cache = self.attn.new_cache(BATCH, MAX_LEN, device="cuda:0")
        for n in steps:
            self.attn(*self.tensors(n), cache=cache)


def quantities(launch: Launch, batch: int = BATCH, documents: int = 0) -> dict[str, Any]:
    """Of `backends.built.LaunchRecord`, from what a launch was given."""
    given = launch.given
    nk = given.get("nk", given["nq"])
    found = {"batch": batch, "nq": given["nq"], "nk": nk, "q0": given.get("q0", 0), "documents": documents}
    found |= {name: given.get(name, 1) for name in ("splits", "slots")}
    found |= {
        "listed": given.get("splits", 1),
        "longest": MAX_LEN,
        "scale": given.get("scale_log2", 0.0) / 1.4426950408889634,
    }
    for name, chunk in (("q", "queries_0"), ("k", "keys_0"), ("v", "values_0"), ("out", ""), ("g", "gradients_0")):
        if isinstance(tensor := given.get(name, given.get(chunk)), OnCard):
            found[f"{name}_stride"] = tensor.stride()
    return found


def value(text: str, of: Mapping[str, Any]) -> Any:
    """A C expression of integers, or of floats where a number has an f."""
    return eval(re.sub(r"(?<=\d)f\b", "", text).replace("/", "//"), {}, dict(of))


def check_programs(launch: Launch, expected: Programs, of: Mapping[str, Any]) -> None:
    assert launch.programs == value(expected.programs, of), launch.name
    for name, text in expected.numbers.items():
        if name in launch.given:
            assert launch.given[name] == value(text, of), (launch.name, name)
    for name, rows in expected.tables.items():
        if name in launch.given:
            assert launch.given[name].inside.tolist() == [list(row) for row in rows], (launch.name, name)


PATTERNS = {
    "s2": "pattern p { block 64 causal learned_sink attend sink(64) | window(4b) | stride(4b, phase = -g) }",
    "duo": "pattern p { causal softcap 9 where g in [0] attend full otherwise attend sink(64) | window(256) }",
    "random": "pattern p { block 64 causal attend window(2b) | random(3, seed = 5) }",
    "documents": "pattern p { causal documents attend window(100) }",
    "restart": "pattern p { block 16 causal documents restart attend window(2b) | stride(4b) }",
}


def every_program(attn: SparseAttention, text: str, target: str) -> dict[str, Programs]:
    """Of all kernels of a pattern, by their names."""
    request = request_for(sparsec.parse(text).pattern(), 64, 64, torch.bfloat16, HEADS, KV_HEADS)
    of = request.compilation(target)
    documents = bool(attn.documents)
    launches = Launches.of(of.forward, of.backward, None if documents else of.cached)
    found = {"row_sums": programs.of_rows(HEADS)}
    for n, launched in enumerate(launches.forward.classes):
        found |= programs.of_queries(f"forward_{n}", launches.forward, launched)
    assert launches.backward is not None
    for n, launched in enumerate(launches.backward.forward.classes):
        found |= programs.of_queries(f"grad_queries_{n}", launches.backward.forward, launched)
    for n, launched in enumerate(launches.backward.transposed):
        for kind in ("grad_keys", "key_mass"):
            found |= programs.of_keys(f"{kind}_{n}", launches.backward.forward, launched, target)
    if launches.cached is not None:
        found |= programs.of_caches(launches.cached)
        for n, launched in enumerate(launches.cached.chunks.classes):
            found |= programs.of_chunks(f"attend_{n}", launches.cached, launched, target)
        for n, launched in enumerate(launches.cached.few.classes):
            found |= programs.of_few(f"decode_{n}", launches.cached, launched, target)
    return found


@pytest.mark.parametrize("text", PATTERNS.values(), ids=list(PATTERNS))
@pytest.mark.filterwarnings("ignore:.*a later query may draw any block")
def test_the_formulas_give_what_is_launched(text: str) -> None:
    with Machine().running() as machine:
        attn = sparsec.compile(
            text, heads=HEADS, kv_heads=KV_HEADS, head_dim=64, dtype=torch.bfloat16, device="cuda:0", target="triton"
        )
        calls, expected = Calls(machine, attn, torch.bfloat16), every_program(attn, text, "cuda:90")
        if attn.documents:
            calls.trained(cu_seqlens=machine.put(torch.tensor([0, 100, 100, N], dtype=torch.int32)))
        else:
            calls.trained()
            calls.cached(70, 1, 33)
        assert {"forward_0", "row_sums", "grad_queries_0", "grad_keys_0", "key_mass_0"} <= {
            launch.name for launch in machine.launches
        }
        for launch in machine.launches:
            if launch.name == "find_document_tiles":  # it makes a table, and the manifest says what is in that
                continue
            batch, documents = (1, 3) if attn.documents else (BATCH, 0)
            check_programs(launch, expected[launch.name], quantities(launch, batch, documents))


LISTS = """pattern p {
    block 16  input pages : rows(blocks)  input picks : blocks  causal
    attend window(32) | pages | picks
}"""


def test_the_formulas_give_what_is_launched_for_inputs() -> None:
    with Machine().running() as machine:
        attn = sparsec.compile(
            LISTS, heads=HEADS, kv_heads=KV_HEADS, head_dim=64, dtype=torch.bfloat16, device="cuda:0", target="triton"
        )
        calls, expected = Calls(machine, attn, torch.bfloat16), every_program(attn, LISTS, "cuda:90")
        blocks = -(-N // 16)
        given = {
            "pages": machine.put(torch.zeros(BATCH, KV_HEADS, N, 3, dtype=torch.int32)),
            "picks": machine.put(torch.ones(BATCH, KV_HEADS, blocks, blocks, dtype=torch.bool)),
        }
        calls.trained(inputs=given)
        names = {launch.name for launch in machine.launches}
        wanted = {
            "list_forward_0",
            "gather_forward_0",
            "list_grad_keys_0",
            "gather_grad_keys_0_0",
            "gather_key_mass_0_0",
        }
        assert wanted <= names
        for launch in machine.launches:
            check_programs(launch, expected[launch.name], quantities(launch))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("elsewhere") / "ampere"
    compile_to_directory(sparsec.parse(TEXT).pattern(), made, target="cuda:80", head_dim=16, dtype="float16")
    return made


@compiles
@pytest.mark.kernels
def test_the_manifest_has_the_arguments_of_a_launch_in_order(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    kernels = {kernel["name"]: kernel["launch"] for kernel in manifest["kernels"]}
    with Machine(((8, 0),)).running() as machine:
        calls = Calls(machine, load_compiled(folder), torch.float16)
        calls.trained()
        calls.cached(70, 40, 1)
        launched = [launch for launch in machine.launches if launch.given.get("ROWS", 16) == 16]
        assert {launch.name for launch in launched} == set(kernels)
        for launch in launched:
            said, of = kernels[launch.name], quantities(launch)
            named = [name for name, each in launch.given.items() if each is not None and name not in said["constants"]]
            assert [each["name"] for each in said["arguments"]][: len(named)] == named
            scratch = {each["name"] for each in said["arguments"][len(named) :]}
            assert scratch <= {"global_scratch", "profile_scratch"}
            assert said["threads"] == 32 * launch.options["num_warps"]
            assert launch.programs == value(said["programs"], of)
            for argument in said["arguments"]:
                if argument["type"] == "float":
                    assert float(value(argument["value"], of)) == pytest.approx(launch.given[argument["name"]])
                elif argument["value"]:
                    assert launch.given[argument["name"]] == value(argument["value"], of), (launch.name, argument)
            for name, constant in said["constants"].items():
                assert str(launch.given[name]) == str(constant)
            for name, rows in said["tables"].items():
                assert launch.given[name].inside.tolist() == rows


_RUN = JITFunction.run


@compiles
@pytest.mark.kernels
def test_a_loaded_folder_compiles_nothing_on_a_card_that_fits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    found: list[tuple[str, bool]] = []
    driver = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", 80, 32),
    )

    def launched(self: Machine, kernel: Any, given: dict[str, Any]) -> None:
        """As Triton launches, up to where it would ask the driver for memory."""
        kernel.device_caches.clear()
        _RUN(kernel, **{**given, "warmup": True})

    monkeypatch.setattr(Machine, "_launched", launched)
    monkeypatch.setattr(triton.runtime.driver, "_active", driver)
    listened = lambda *, src, cache_hit, **_: found.append((src.name, cache_hit))  # noqa: E731
    monkeypatch.setattr(knobs.compilation, "listener", listened)
    with Machine(((8, 0),)).running() as machine:
        calls = Calls(machine, load_compiled(folder), torch.float16)
        calls.trained()
        calls.cached(70, 40, 1)
    assert {name for name, _ in found} == {
        kernel["name"] for kernel in json.loads((folder / "manifest.json").read_text())["kernels"]
    }
    assert [name for name, hit in found if not hit] == []


@compiles
@pytest.mark.kernels
@pytest.mark.parametrize("change", ["version", "device", "none"])
def test_code_that_does_not_fit_is_not_stored(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if change == "version":
        monkeypatch.setattr(stored.triton, "__version__", "2.0.0")
    with Machine(((9, 0) if change == "device" else (8, 0),)).running():
        stored.store_code(files)
    kernels = [name for name in files if name.endswith(".cubin")]
    assert len(list((tmp_path / "cache").glob("*/*.cubin"))) == (len(kernels) if change == "none" else 0)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, a driver for it, and the folder whose kernel it launches."""
    made = tmp_path_factory.mktemp("launcher")
    pattern = sparsec.load(EXAMPLES / "dense.sparse").pattern()
    request = request_for(pattern, 32, 32, torch.bfloat16, HEADS, KV_HEADS)
    built = BACKEND.build(request.compilation("cuda:90"), ["forward"], lambda _: None)  # the kernel that is launched
    (kernel,) = built.kernels
    files = {**built.files, "launch.json": json.dumps(asdict(kernel)["launch"]).encode()}
    (made / "dense").mkdir()
    for name, data in files.items():
        (made / "dense" / name).write_bytes(data)
    options = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I", str(made / "dense"), "-isystem", str(INCLUDE))
    for source, output, more in (
        (EXAMPLES / "launch.cpp", "launch", ()),
        (DRIVER, "libcuda.so.1", ("-shared", "-fPIC")),
    ):
        command = ("g++", *options, *more, str(source), "-ldl", "-o", str(made / output))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return made


def run(launcher: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(launcher / "launch"), str(launcher / "dense")]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@compiles
@pytest.mark.kernels
def test_the_example_launches_a_kernel_as_its_record_says(launcher: Path) -> None:
    done = run(launcher, LD_LIBRARY_PATH=str(launcher))
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads((launcher / "dense" / "launch.json").read_text())
    programs = value(said["programs"], {"batch": 1, "nq": 1000, "q0": 0})
    boxes = [
        f"map {each['element']} of 32 1000 {KV_HEADS} in {each['box'][3]} x {each['box'][2]}, swizzle {each['swizzle']}"
        for each in said["descriptors"]
    ]
    launch = f"launch {programs} 1 1 of {said['threads']} threads, {said['shared_bytes']} bytes"
    assert done.stdout.splitlines()[:-1] == ["forward_0", *boxes, launch]
    assert len(boxes) == 2 and done.stdout.splitlines()[-1].startswith("largest error 0.00")


@compiles
@pytest.mark.kernels
def test_the_example_says_that_there_is_no_gpu(launcher: Path) -> None:
    done = run(launcher, LD_LIBRARY_PATH=str(launcher), NO_GPU="1")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: expected an NVIDIA GPU, got none\n")


@compiles
@pytest.mark.kernels
@pytest.mark.parametrize("standard", ["gcc -std=c11", "g++ -xc++ -std=c++17"])
def test_the_headers_are_c_and_cplusplus(launcher: Path, folder: Path, tmp_path: Path, standard: str) -> None:
    (tmp_path / "header.c").write_text('#include "kernels.h"\n')
    for header in (launcher / "dense", folder):
        command = [*standard.split(), "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", str(header)]
        done = subprocess.run(
            [*command, "-isystem", str(INCLUDE), str(tmp_path / "header.c")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

"""A folder of `sparsec compile` and the module that it gives back: forward, gradients and cache."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from spilling import MOST
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import sparsec
from sparsec.backends.cpu import kernel as cpu
from sparsec.diagnostics.model import CallError, SparsecError
from sparsec.plan.launch import Launches
from sparsec.runtime.build import artefact
from sparsec.runtime.build.artefact import compile_to_directory, load_compiled
from sparsec.runtime.build.manifest import FORMAT, launch_data, launches_of, layout_data, layout_of
from sparsec.runtime.compile import Request
from sparsec.runtime.module import SparseAttention
from sparsec.syntax import parser

pytestmark = pytest.mark.kernels

TEXT = """
pattern p {
    heads 4 kv 2  block 16  causal  softcap 3  learned_sink
    where g == 0 attend sink(4) | window(20) | stride(3b, phase = 1b)
    where g == 1 attend window(1b) | random(2)
}
"""
GPU_TEXT = (
    "pattern p { heads 4 kv 2  block 16  causal  learned_sink  attend sink(4) | window(20) | stride(3b, phase = -g) }"
)
TOKENS = 100
PARTS_AND_MASSES = ("forward", "cached", "cached_mass", "backward", "mass")


def written(folder: Path, text: str = TEXT, **changed: object) -> Path:
    options: dict[str, object] = {"target": "cpu", "head_dim": 16, "dtype": "float32", **changed}
    compile_to_directory(sparsec.parse(text).pattern(), folder, **options)  # type: ignore[arg-type]  # options vary
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("artefact") / "whole")


def used(attn: SparseAttention) -> list[Tensor]:
    """Output, LSE, mass, gradients, and what a cache in chunks gives: masses, outputs and LSE."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((2, heads, TOKENS, 16), generator=generator).requires_grad_() for heads in (4, 2, 2))
    assert attn.sink is not None
    attn.sink.data.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
    out, lse, mass = attn(q, k, v, return_lse=True, return_mass=True)
    gradients = torch.autograd.grad(out.sin().sum() + lse.cos().sum(), (q, k, v, attn.sink))
    chunks = []
    with torch.no_grad(), pytest.warns(UserWarning, match="a later query may draw any block"):
        cache = attn.new_cache(2, TOKENS)
    for first, last in pairwise((0, 37, 38, 41, 90, TOKENS)):
        new = (t.detach()[:, :, first:last] for t in (q, k, v))
        chunks.append(attn(*new, cache=cache, return_lse=True, return_mass=True))
    outs, lses, masses = zip(*chunks, strict=True)
    return [out.detach(), lse.detach(), mass, *gradients, *masses, torch.cat(outs, 2), torch.cat(lses, 2)]


def flops(attn: SparseAttention) -> int:
    with FlopCounterMode(display=False) as counter:
        attn(*(torch.ones(1, heads, TOKENS, 16) for heads in (4, 2, 2)))
    return int(counter.get_total_flops())


def test_a_folder_gives_the_compiled_module_back_bit_for_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = sparsec.compile(TEXT, head_dim=16, target="cpu")
    expected = used(compiled)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("expected neither a compiler nor a parser at load time")

    monkeypatch.setattr(cpu, "find_compiler", refuse)
    monkeypatch.setattr(parser, "parse", refuse)
    loaded = load_compiled(folder)
    found = used(loaded)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    torch.testing.assert_close(found[-2:], found[:2], atol=1e-5, rtol=0)
    assert (loaded.source, loaded.layout) == (compiled.source, compiled.layout)
    assert loaded.plan == compiled.plan and flops(loaded) == flops(compiled) > 0
    assert pickle.loads(pickle.dumps(loaded)).layout == loaded.layout


def test_layout_says_which_keys_each_group_keeps(folder: Path) -> None:
    layout = json.loads((folder / "layout.json").read_text())
    strided, drawn = layout["groups"]
    shapes = [{name: region[name] for name in ("start", "stop", "residue", "reach")} for region in strided]
    assert shapes == [
        {"start": 0, "stop": 4, "residue": None, "reach": None},
        {"start": 0, "stop": None, "residue": {"unit": 16, "period": 3, "phase": 1, "width": 1}, "reach": None},
        {"start": 0, "stop": None, "residue": None, "reach": 20},
    ]
    assert [(region["residue"], region["reach"], region["stop"]) for region in drawn] == [(None, None, None)]
    assert [growth["reason"] for growth in layout["growth"]] == ["a later query may draw any block"]


@pytest.mark.parametrize("example", ["s2", "longgen", "gpt_oss", "sparse_transformer"])
def test_layouts_survive_json(example: str) -> None:
    program = sparsec.load(Path(__file__).parents[3] / "examples" / f"{example}.sparse")
    for pattern in map(program.pattern, program.patterns):
        layout = pattern.cache_layout(pattern.heads or 8, pattern.kv_heads or 4)
        assert layout_of(json.loads(json.dumps(layout_data(layout)))) == layout


def test_the_manifest_lists_every_kernel_and_file(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [kernel["name"] for kernel in manifest["kernels"]] == [
        f"sparsec_{name}"
        for name in ("forward", "attend_chunk", "attend_rows", "store", "add_mass", "backward", "mass")
    ]
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *manifest["files"]}
    names = {f"{part}.{kind}" for part in PARTS_AND_MASSES for kind in ("cpp", "so")}
    assert set(manifest["files"]) == {"layout.json", "kernels.h", *names}


def test_a_folder_for_inference_has_no_gradients(folder: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    lean = load_compiled(written(tmp_path / "lean", gradients=False, progress=steps.append))
    assert not (tmp_path / "lean" / "backward.so").exists() and not (tmp_path / "lean" / "mass.so").exists()
    first, *built, last = steps
    assert (first, last) == ("lowering", "writing")
    assert sorted(built) == ["compiling the KV cache for cpu", "compiling the forward pass for cpu"]
    q, k, v = (torch.ones((1, heads, 8, 16), requires_grad=True) for heads in (4, 2, 2))
    with pytest.raises(SparsecError, match="--inference"):
        lean(q, k, v).sum().backward()
    load_compiled(folder)(q, k, v).sum().backward()  # the kernels of equal source and plan that it has are other ones
    assert k.grad is not None


def test_a_pattern_without_a_cache(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", "pattern p { heads 2 attend window(8, ahead = 8) }", gradients=False)
    layout = json.loads((folder / "layout.json").read_text())
    assert layout["groups"] is None and "later key" in layout["why"]
    assert not (folder / "cached.so").exists()
    attn = load_compiled(folder)
    assert attn(*(torch.ones(1, 2, 9, 16) for _ in range(3))).eq(1).all()
    with pytest.raises(CallError, match="later key"):
        attn.new_cache()


def _flipped(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).unlink()  # a library that this process has loaded stays as it is
        (folder / name).write_bytes(data)

    return damage


def _told(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flipped("forward.so"), "another content"),
        (_flipped("cached.so"), "another content"),
        (_flipped("backward.so"), "another content"),
        (_flipped("layout.json"), "another content"),
        (lambda folder: (folder / "cached.cpp").unlink(), "cached.cpp"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "expected a folder that sparsec compile wrote"),
        (_told(lambda manifest: manifest["files"].pop("mass.so")), "mass"),  # type: ignore[attr-defined]
        (_told(lambda manifest: manifest["files"].pop("backward.so")), "backward"),  # type: ignore[attr-defined]
        (_told(lambda manifest: manifest.update(format=3)), f"expected artefacts of format {FORMAT}, got 3"),
        (_told(lambda manifest: manifest["launch"].pop("cached")), "cached"),  # type: ignore[attr-defined]
        (_told(lambda manifest: manifest.update(files={"../whole/forward.so": ""})), "another content"),
    ],
)
def test_a_damaged_folder_is_refused(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    load_compiled(copy)
    damage(copy)
    with pytest.raises(CallError, match=message):
        load_compiled(copy)


def test_a_manifest_without_what_newer_ones_add_is_read(folder: Path, tmp_path: Path) -> None:
    """Neither warnings of a kernel nor whether a class is light, which is then taken not to be."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    assert all(kernel.pop("warnings") == [] for kernel in manifest["kernels"])
    launch = manifest["launch"]
    plans = (
        *(launch["forward"], launch["backward"]["forward"]),
        *(launch["cached"][name] for name in ("chunks", "few")),
    )
    for classes in (*(plan["classes"] for plan in plans), launch["backward"]["transposed"]):
        for head_class in classes:
            del head_class["light"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    expected, found = (used(load_compiled(each)) for each in (folder, copy))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_a_folder_without_the_mass_of_a_cache_is_read(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    _told(lambda manifest: manifest["files"].pop("cached_mass.so"))(copy)  # type: ignore[attr-defined]
    attn, qkv = load_compiled(copy), [torch.ones(1, heads, 5, 16) for heads in (4, 2, 2)]
    with pytest.warns(UserWarning, match="a later query may draw any block"):
        cache = attn.new_cache(1, 20)
    with torch.no_grad():
        with pytest.raises(CallError, match="expected no return_mass with a cache for these kernels"):
            attn(*qkv, cache=cache, return_mass=True)
        assert attn(*qkv, cache=cache).isfinite().all()


@pytest.mark.parametrize("target", ["cpu", "cuda:90"])
def test_launch_plans_survive_json(target: str) -> None:
    plans = Request(sparsec.parse(TEXT).pattern().lowered(), 96, 96, torch.bfloat16).compilation(target)
    launches = Launches.of(plans.forward, plans.backward, plans.cached, None)
    for each in (launches, replace(launches, backward=None), replace(launches, cached=None)):
        data = json.loads(json.dumps(launch_data(each)))
        assert launches_of(data, plans.chunks.layout) == each


@pytest.mark.parametrize(("terms", "light"), [("full", True), ("sink(4) | window(20) | stride(3b)", False)])
def test_the_manifest_says_which_classes_are_light(terms: str, light: bool) -> None:
    pattern = sparsec.parse(f"pattern p {{ block 16 causal attend {terms} }}").pattern()
    plan = Request(pattern.lowered(2, 1), 64, 64, torch.bfloat16).compilation("cuda:90").forward
    data = json.loads(json.dumps(launch_data(Launches.of(plan, None, None, None))))
    loaded = launches_of(data, "no cache").forward
    assert plan.light(plan.classes[0]) == loaded.classes[0].light == light


def test_a_failed_compile_leaves_the_folder_as_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    honest = cpu.compile_shared

    def failing(source: str, **options: str) -> Path:
        if "sparsec_backward" in source:
            raise cpu.BuildError("no space left")
        return honest(source, **options)

    monkeypatch.setattr(cpu, "compile_shared", failing)
    with pytest.raises(cpu.BuildError, match="no space"):
        written(copy)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    monkeypatch.undo()
    load_compiled(copy)


IN_THE_INTERPRETER = """
import sys
import torch, sparsec
loaded = sparsec.load_compiled(sys.argv[1])
exact = sparsec.compile(sys.argv[2], head_dim=16, dtype=torch.float16, target="torch")
for attn in (loaded, exact):
    attn.sink.data.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
generator = torch.Generator().manual_seed(0)
q, k, v = (torch.randn((1, heads, 60, 16), generator=generator).half().requires_grad_() for heads in (4, 2, 2))

def used(attn):
    out, lse, mass = attn(q, k, v, return_lse=True, return_mass=True)
    gradients = torch.autograd.grad(out.sin().sum() + lse.cos().sum(), (q, k, v, attn.sink))
    cache = attn.new_cache(1, 60, device="cpu")
    new = ([t.detach()[:, :, a:b] for t in (q, k, v)] for a, b in ((0, 30), (30, 57), (57, 60)))
    chunks, masses = zip(*(attn(*each, cache=cache, return_mass=True) for each in new))
    return out, lse, *gradients, *masses, torch.cat(chunks, 2)

for ours, theirs in zip(used(loaded), used(exact), strict=True):
    torch.testing.assert_close(ours, theirs, atol=4e-3 * (1.0 + theirs.abs().max().item()), rtol=0.0)
print("agree")
"""


KILLED = """
import itertools, os, sys
from pathlib import Path
from sparsec.runtime.build.artefact import publish_folder

folder = Path(sys.argv[1]) / "model"
old, new = ({name: text * 99 for name in ("manifest.json", "kernel.so")} for text in (b"old", b"new"))
for step in itertools.count():
    publish_folder(folder, old)
    process = os.fork()
    if not process:
        steps = itertools.count()
        kinds = "os.", "open", "ctypes.call"
        sys.addaudithook(lambda event, _: event.startswith(kinds) and next(steps) == step and os._exit(9))
        publish_folder(folder, new)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} in (old, new), step
    if code == 0:
        break
    assert code == 9, (step, code)
print(step)
"""


def test_killed_at_every_step_a_compile_leaves_the_older_folder_or_the_new_one(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    if not artefact._exchanged(a, b):
        pytest.skip("expected a system that exchanges two folders in one step")
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10, "every call that changes the disk is a step"


def test_where_folders_cannot_be_exchanged_they_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefact, "_exchanged", lambda a, b: False)
    for text in (b"old", b"new"):
        artefact.publish_folder(tmp_path / "model", {"kernel.so": text})
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert (tmp_path / "model" / "kernel.so").read_bytes() == text


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")
def test_a_folder_for_a_gpu_lists_its_kernels_and_runs_in_the_interpreter(tmp_path: Path) -> None:
    folder = written(tmp_path / "gpu", GPU_TEXT, target="cuda:80", dtype="float16")
    manifest = json.loads((folder / "manifest.json").read_text())
    kernels = {kernel["name"]: kernel for kernel in manifest["kernels"]}
    products = ("forward_0", "attend_0", "decode_0", "grad_queries_0", "grad_keys_0")
    assert set(kernels) == {*products, "merge", "store", "row_sums", "key_mass_0"}
    assert all(kernels[name]["tensor_core_instructions"] > 0 for name in products)
    for name, kernel in kernels.items():
        assert {f"{name}.ptx", f"{name}.cubin", f"{name}.json"} <= manifest["files"].keys()
        assert kernel["registers"] > 0 and kernel["shared_bytes"] >= 0
        assert kernel["problems"] == []
        assert max(kernel["spills"], kernel["stack_bytes"]) <= MOST
        assert len(kernel["warnings"]) == (kernel["spills"] + kernel["stack_bytes"] > 0)
    run = subprocess.run(
        [sys.executable, "-c", IN_THE_INTERPRETER, str(folder), GPU_TEXT],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "agree\n", run.stderr


LISTS_TEXT = "pattern p { heads 4 kv 2  block 16  input pages : rows(blocks)  causal  attend pages }"
LISTS_IN_THE_INTERPRETER = """
import sys
import torch, sparsec
generator = torch.Generator().manual_seed(0)
q, k, v = (torch.randn((1, heads, 60, 16), generator=generator).half() for heads in (4, 2, 2))
pages = torch.rand((1, 2, 60, 4), generator=generator).argsort(-1)[..., :2].int()

def used(attn):
    cache = attn.new_cache(1, 60, device="cpu")
    chunks = (slice(0, 30), slice(30, 57), slice(57, 60))
    return [attn(*(t[:, :, at] for t in (q, k, v)), cache=cache, inputs={"pages": pages[:, :, at]}) for at in chunks]

exact = sparsec.compile(sys.argv[2], head_dim=16, dtype=torch.float16, target="torch")
for ours, theirs in zip(used(sparsec.load_compiled(sys.argv[1])), used(exact), strict=True):
    torch.testing.assert_close(ours, theirs, atol=4e-3, rtol=0.0)
print("agree")
"""


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")
def test_a_folder_for_a_gpu_takes_inputs_over_a_cache(tmp_path: Path) -> None:
    folder = written(tmp_path / "gpu", LISTS_TEXT, target="cuda:80", dtype="float16", gradients=False)
    kernels = {kernel["name"] for kernel in json.loads((folder / "manifest.json").read_text())["kernels"]}
    assert kernels == {"gather_forward_0", "gather_attend_0", "gather_decode_0", "merge", "store"}
    run = subprocess.run(
        [sys.executable, "-c", LISTS_IN_THE_INTERPRETER, str(folder), LISTS_TEXT],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "agree\n", run.stderr

"""A folder of `sparsec compile` whose pattern marks keys, and the module that it gives back: its caches drop keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.backends.triton import aot
from sparsec.plan.launch import Launches
from sparsec.runtime.build.artefact import compile_to_directory, load_compiled
from sparsec.runtime.build.manifest import launch_data, launches_of
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request

pytestmark = pytest.mark.kernels

MARKED_TEXT = """
pattern p {
    heads 4 kv 2  causal  input kept : tokens  input near : tokens
    attend sink(4) | window(8) | kept | near & window(30) & stride(2)
}
"""


def written(folder: Path, target: str, dtype: str) -> Path:
    pattern = sparsec.parse(MARKED_TEXT).pattern()
    compile_to_directory(pattern, folder, target=target, head_dim=16, dtype=dtype, gradients=False)
    return folder


@pytest.mark.parametrize("target", ["cpu", "cuda:90"])
def test_launch_plans_survive_json(target: str) -> None:
    text = MARKED_TEXT.replace("stride(2)", "dilated(3)")
    plans = Request(sparsec.parse(text).pattern().lowered(), 96, 96, torch.bfloat16).compilation(target)
    launches = Launches.of(plans.forward, None, plans.cached, plans.kept)
    assert launches.kept is not None and launches.kept.kept is not None
    assert len(launches.kept.kept.apart) == 1, "a term that tells marked keys apart"
    assert launches_of(json.loads(json.dumps(launch_data(launches))), plans.chunks.layout) == launches


def steps(attn: SparseAttention, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """What a cache that drops keys gives before that and afterwards, with masses, and how many it then has in lists."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((2, heads, 60, 16), generator=generator).to(dtype) for heads in (4, 2, 2))
    marks = torch.rand((2, 2, 60), generator=generator) < 0.5
    with pytest.warns(UserWarning, match="an input may name any key"):
        cache = attn.new_cache(2, 60, device="cpu")
    found = []
    for first, last in ((0, 30), (30, 50), (50, 51)):
        given = {input_.name: marks[..., first:last] for input_ in attn.inputs}
        new = (t[:, :, first:last] for t in (q, k, v))
        found += attn(*new, cache=cache, inputs=given, return_mass=True)
        if first == 0:
            cache.keep("kept", marks[..., :30] & (torch.rand((2, 2, 30), generator=generator) < 0.5))
    assert cache.kept is not None
    return [*found, cache.kept.lists[..., 2]]


def test_a_folder_drops_keys_as_the_compiled_module_does(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", "cpu", "float32")
    manifest = json.loads((folder / "manifest.json").read_text())
    entries = [kernel["name"] for kernel in manifest["kernels"] if "kept" in kernel["name"]]
    assert entries == [
        f"sparsec_kept_{name}" for name in ("attend_chunk", "attend_rows", "store", "append", "add_mass")
    ]
    found, expected = (steps(each) for each in (load_compiled(folder), sparsec.compile(MARKED_TEXT, head_dim=16)))
    for ours, theirs in zip(found[:2], expected[:2], strict=True):  # the folder's mass is that of a cache here too
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0.0)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[2:], expected[2:], strict=True))


MARKED_IN_THE_INTERPRETER = """
import sys
import torch, sparsec
sys.path.insert(0, sys.argv[3])
from test_kept_artefact import steps
exact = sparsec.compile(sys.argv[2], head_dim=16, dtype=torch.float16, target="torch")
for ours, theirs in zip(*(steps(each, torch.float16) for each in (sparsec.load_compiled(sys.argv[1]), exact))):
    torch.testing.assert_close(ours, theirs, atol=4e-3, rtol=0.0)
print("agree")
"""


def test_a_folder_for_a_gpu_drops_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What compilers make of the kernels is looked at elsewhere; these of the two modules have the same names."""
    made = aot.KernelArtefact("attend_0", "cuda:80", "float32", 4, 1, 9, 0, 0, 0, 0, 0, (("attend_0.ptx", b"text"),))
    for name in ("compile_ahead", "compile_ahead_cached"):
        monkeypatch.setattr(aot, name, lambda *_: (made,))
    folder = written(tmp_path / "gpu", "cuda:80", "float16")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [kernel["name"] for kernel in manifest["kernels"]] == ["attend_0", "attend_0", "kept.attend_0"]
    assert {"attend_0.ptx", "kept.attend_0.ptx"} <= manifest["files"].keys()
    run = subprocess.run(
        [sys.executable, "-c", MARKED_IN_THE_INTERPRETER, str(folder), MARKED_TEXT, str(Path(__file__).parent)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "agree\n", run.stderr

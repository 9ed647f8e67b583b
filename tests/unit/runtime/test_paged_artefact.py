"""A folder of `sparsec compile --pages`, and the module that it gives back: it attends over a server's pages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.backends.triton import aot
from sparsec.diagnostics.model import CallError
from sparsec.plan.launch import Launches
from sparsec.runtime.build.artefact import compile_to_directory, load_compiled
from sparsec.runtime.build.manifest import launch_data, launches_of
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.request import Request

pytestmark = pytest.mark.kernels

PAGED_TEXT = (
    "pattern p { heads 4 kv 2  input spans : labels  causal  attend sink(4) | window(40) | spans & window(90) }"
)
SIZE, LENGTHS, COUNTS = 16, (100, 37), (20, 1)


def over_pages(attn: SparseAttention, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of two requests, of which the first has more than a few queries."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn((sum(COUNTS), 4, 16), generator=generator).to(dtype)
    k_pages, v_pages = (torch.randn((12, SIZE, 2, 16), generator=generator).to(dtype) for _ in range(2))
    labels = (torch.randint(0, 3, (b, 1, n), generator=generator) for b, n in ((1, sum(COUNTS)), (2, max(LENGTHS))))
    with torch.no_grad():
        return attn.paged(
            q,
            k_pages,
            v_pages,
            block_table=torch.randperm(12, generator=generator).to(torch.int32)[None].expand(2, 12),
            cu_seqlens_q=torch.tensor([0, COUNTS[0], sum(COUNTS)], dtype=torch.int32),
            seq_lens=torch.tensor(LENGTHS, dtype=torch.int32),
            inputs={"spans": tuple(labels)},  # type: ignore[dict-item]  # a pair
        )


@pytest.mark.parametrize("target", ["cpu", "cuda:90"])
def test_launch_plans_over_pages_survive_json(target: str) -> None:
    text = "pattern p { heads 4 kv 2  causal  attend sink(4) | window(40) }"
    plans = Request(sparsec.parse(text).pattern().lowered(), 96, 96, torch.bfloat16).compilation(target)
    launches = Launches.of(plans.forward, None, plans.cached, None, plans.paged)
    assert launches.paged is not None
    assert launches_of(json.loads(json.dumps(launch_data(launches))), plans.chunks.layout) == launches


def written(folder: Path, text: str = PAGED_TEXT, **options: Any) -> Path:
    given = {"target": "cpu", "dtype": "float32", "pages": True, **options}
    compile_to_directory(sparsec.parse(text).pattern(), folder, head_dim=16, gradients=False, **given)
    return folder


def test_a_folder_attends_over_pages_as_the_compiled_module_does(tmp_path: Path) -> None:
    folder = written(tmp_path / "p")
    assert "attend_paged_rows(const sparsec_paged_call* call)" in (folder / "kernels.h").read_text()
    assert torch.equal(over_pages(load_compiled(folder)), over_pages(sparsec.compile(PAGED_TEXT, head_dim=16)))
    with pytest.raises(CallError, match="kernels for attention over pages, got one compiled without --pages"):
        over_pages(load_compiled(written(tmp_path / "without", pages=False)))
    with pytest.raises(CallError, match="expected a pattern that a KV cache serves for --pages, got one without"):
        written(tmp_path / "ahead", "pattern p { heads 4 kv 2 attend full }")


PAGED_IN_THE_INTERPRETER = """
import sys
import torch, sparsec
sys.path.insert(0, sys.argv[3])
from test_paged_artefact import over_pages
exact = sparsec.compile(sys.argv[2], head_dim=16, dtype=torch.float16, target="torch", device="cpu")
found, expected = (over_pages(each, torch.float16) for each in (sparsec.load_compiled(sys.argv[1]), exact))
torch.testing.assert_close(found, expected, atol=4e-3, rtol=0.0)
print("agree")
"""


def test_a_folder_for_a_gpu_attends_over_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its source: which size pages have is not known before a call."""
    for name in ("compile_ahead", "compile_ahead_cached"):
        monkeypatch.setattr(aot, name, lambda *_: ())
    folder = written(tmp_path / "gpu", target="cuda:80", dtype="float16")
    run = subprocess.run(
        [sys.executable, "-c", PAGED_IN_THE_INTERPRETER, str(folder), PAGED_TEXT, str(Path(__file__).parent)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "agree\n", run.stderr

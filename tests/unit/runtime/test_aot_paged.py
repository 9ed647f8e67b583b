"""The kernels over pages, compiled ahead of time on a machine without a GPU."""

from __future__ import annotations

import os

import pytest
import torch
from spilling import assert_fit

from sparsec.backends.paged import Pages
from sparsec.backends.triton.aot import compile_ahead_paged
from sparsec.backends.triton.paged import TritonPaged
from sparsec.diagnostics.model import CallError
from sparsec.pipeline import Compilation, Lowered
from sparsec.sema import model as m
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [pytest.mark.kernels, pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")]


def kernel_for(target: str, score: m.Score, head_dim: int) -> TritonPaged:
    """A sink, a window and strided blocks, one phase a KV group of four heads."""
    terms = tuple(
        m.Intersection(
            (m.Causal(), m.Union((m.Sink(64, False), m.Window(8, 0, True), m.Stride(16, -(h // 4) % 16, True))))
        )
        for h in range(8)
    )
    pattern = m.ResolvedPattern(8, 2, terms, 64, (), m.Documents.NONE, score)
    return TritonPaged.of(*Compilation(Lowered(pattern), head_dim, head_dim, "bfloat16", target).cached)


@pytest.mark.parametrize(
    ("target", "page_size", "score"),
    [
        ("cuda:80", 16, m.Score()),
        ("cuda:90", 256, m.Score(None, (Softcap(50.0), Alibi(), LearnedSink()))),
        ("cuda:100", 64, m.Score()),
        ("hip:gfx942", 16, m.Score()),
    ],
)
def test_paged_kernels_build(target: str, page_size: int, score: m.Score) -> None:
    kernel = kernel_for(target, score, 128)
    artefacts = compile_ahead_paged(kernel.source, kernel.plan, target, page_size=page_size)
    assert [artefact.name for artefact in artefacts] == ["attend_0", "decode_0", "merge"]
    for artefact in artefacts:
        assert_fit(artefact)
        assert artefact.name == "merge" or artefact.tensor_core >= 16
        if target.startswith("cuda") and artefact.name != "merge":
            (ptx,) = (text.decode() for file, text in artefact.files if file.endswith("ptx"))
            assert "cp.async.cg.shared.global" in ptx  # rows of pages come 16 bytes at a time, before they are needed


def test_pages_on_the_cpu_are_refused() -> None:
    kernel, numbers = kernel_for("interpreter", m.Score(), 16), torch.zeros(1, dtype=torch.int32)
    memory = torch.zeros(1, 16, 2, 16)
    with pytest.raises(CallError, match="TRITON_INTERPRET"):
        kernel.attend(
            torch.zeros(1, 8, 16), Pages(memory, memory, numbers[None], torch.zeros(2).int(), numbers), scale=None
        )

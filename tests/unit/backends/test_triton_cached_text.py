"""The text of the module of kernels over a cache."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

from sparsec.backends.triton.emit_cached import cached_view, emit_triton_cached
from sparsec.pipeline import Lowered
from sparsec.plan.kv.cached import CachedPlan
from sparsec.sema import model as m
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap

ALL = m.Score(None, (Softcap(50.0), Alibi(), LearnedSink()))
PERIODS = (5, 7, 11, 13)


def plans(score: m.Score | None = None, head_dim: int = 64) -> tuple[CachedPlan, CachedPlan]:
    """Strided heads with many regions in groups 0 and 1, in group 2 draws beside a window."""
    local = m.Window(4, 0, True)
    terms = tuple(
        m.Intersection((m.Causal(), m.Union((local, m.Sink(64, False), *(m.Stride(p, h // 2, True) for p in PERIODS)))))
        if h < 4
        else m.Intersection((m.Causal(), m.Union((local, m.Random(3, 1, h)))))
        for h in range(6)
    )
    pattern = m.ResolvedPattern(6, 3, terms, 64, (), m.Documents.NONE, score or m.Score())
    chunks, decode = (
        Lowered(pattern).plan_cached(head_dim=head_dim, dtype="bfloat16", query_tile=size, key_tile=32)
        for size in (64, 16)
    )
    return chunks, decode


def test_a_kernel_of_chunks_and_one_of_decoding_a_class_then_those_of_all() -> None:
    chunks, decode = plans()
    source = emit_triton_cached(chunks, decode)
    names = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    kernels = [f"{name}_{n}{end}" for name in ("attend", "decode") for n in (0, 1) for end in ("_tile", "")]
    assert names[-16:] == ["slot_0", "slot_1", *kernels, "merge", "mass_0", "mass_1", "kept_0", "kept_1", "store"]
    assert source == emit_triton_cached(chunks, decode)
    view = cached_view(chunks, decode)
    assert [kernel.slot.wide for kernel in view.attend] == [True, False]
    assert [kernel.kernel.query_tile for kernel in (*view.attend, *view.decode)] == [64, 64, 16, 16]


@pytest.mark.kernels
@pytest.mark.skipif(shutil.which("ruff") is None, reason="needs ruff")
@pytest.mark.parametrize("score", [None, ALL], ids=["plain", "modified"])
@pytest.mark.parametrize("head_dim", [64, 72])
def test_is_formatted(head_dim: int, score: m.Score | None, tmp_path: Path) -> None:
    (tmp_path / "cached.py").write_text(emit_triton_cached(*plans(score, head_dim)), encoding="utf-8")
    run = subprocess.run(
        ["ruff", "format", "--isolated", "--line-length", "120", "--diff", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout

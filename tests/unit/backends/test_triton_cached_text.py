"""The text of the module of kernels over a cache, and how the heads of a class are packed."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

from sparsec.backends.triton.emit_cached import cached_view, emit_triton_cached, group_table, packs
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
    assert names[-10:] == [
        *("slot_0", "slot_1", "attend_0", "attend_1", "decode_0", "decode_1", "merge", "kept_0", "kept_1", "store")
    ]
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


def test_packs_hold_heads_of_one_group_with_equal_constants() -> None:
    _, decode = plans()
    plan = decode.attend
    strided, drawn = plan.classes
    found = packs(plan, strided, 64)
    assert found.members == ((0, 1), (2, 3))
    assert [row[0] for row in found.table] == [0, 1] and found.table[0] != found.table[1]
    assert packs(plan, drawn, 64).members == ((4,), (5,)), "each has draws of its own"


def test_packs_are_no_larger_than_asked() -> None:
    pattern = m.ResolvedPattern(5, 1, (m.Causal(),) * 5, 64, (), m.Documents.NONE, m.Score())
    plan = Lowered(pattern).plan_cached(head_dim=64, dtype="bfloat16", query_tile=16, key_tile=32).attend
    found = packs(plan, plan.classes[0], 2)
    assert found.members == ((0, 1), (2, 3), (4, -1)) and found.table == ((0,),) * 3


def test_the_table_of_groups_has_each_groups_kind_and_constants() -> None:
    chunks, _ = plans()
    table = group_table(chunks.store)
    assert [row[0] for row in table] == [0, 0, 1] and len({len(row) for row in table}) == 1
    assert any(a != b for a, b in zip(table[0], table[1], strict=True)), "they differ in their strides' phases"

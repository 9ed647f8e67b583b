"""Ahead-of-time compiles on a machine without a GPU: what the assembler says of a strided pattern's kernel."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from spilling import NONE_OR_FEW, OF_KEYS, OF_PARTS, OTHERS, assert_fit

import sparsec
from sparsec.backends.triton.aot import (
    KernelArtefact,
    KernelFindings,
    compile_ahead,
    compile_ahead_backward,
    findings_of,
)
from sparsec.backends.triton.emit import emit_triton, emit_triton_backward
from sparsec.backends.triton.machine_code import AheadOfTimeError
from sparsec.pipeline import Lowered
from sparsec.plan.target import (
    backward_tile_sizes,
    launch_shape,
    shared_memory_bytes,
    tile_sizes,
    transposed_tile_sizes,
)
from sparsec.runtime.request import Request
from sparsec.sema import model as m
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [pytest.mark.kernels, pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")]
PLAIN = m.Score()
ALL = m.Score(None, (Softcap(50.0), Alibi(), LearnedSink()))
TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")


def s2(score: m.Score, documents: m.Documents) -> m.ResolvedPattern:
    """S2 with a sink: heads of each KV group keep another residue of the blocks."""
    terms = tuple(
        m.Intersection(
            (m.Causal(), m.Union((m.Sink(64, False), m.Window(8, 0, True), m.Stride(16, -(h // 4) % 16, True))))
        )
        for h in range(32)
    )
    return m.ResolvedPattern(32, 8, terms, 64, (), documents, score)


def strided(
    head_dim: int, dtype: str, target: str, score: m.Score = PLAIN, documents: m.Documents = m.Documents.NONE
) -> tuple[KernelArtefact, ...]:
    query_tile, key_tile, _, _ = tile_sizes(target, head_dim, dtype)
    plan = Lowered(s2(score, documents)).plan_forward(
        head_dim=head_dim, dtype=dtype, query_tile=query_tile, key_tile=key_tile
    )
    return compile_ahead(emit_triton(plan), plan, target)


def gradients(
    head_dim: int,
    dtype: str,
    target: str,
    score: m.Score = PLAIN,
    documents: m.Documents = m.Documents.NONE,
    *,
    parts: bool = False,
) -> tuple[KernelArtefact, ...]:
    query_tile, key_tile = backward_tile_sizes(target, head_dim, dtype)
    plan = Lowered(s2(score, documents)).plan_backward(
        head_dim=head_dim,
        dtype=dtype,
        query_tile=query_tile,
        key_tile=key_tile,
        transposed_tiles=transposed_tile_sizes(
            target, head_dim, dtype, busy=score.per_pair or documents is not m.Documents.NONE
        ),
    )
    return compile_ahead_backward(emit_triton_backward(plan), plan, target, parts=parts)


@pytest.mark.parametrize("target", TARGETS)
def test_builds_without_a_gpu(target: str) -> None:
    (artefact,) = strided(128, "bfloat16", target)
    assert_fit(artefact)
    assert 64 <= artefact.registers <= 512 and artefact.tensor_core >= 16
    assert (artefact.tma > 0) == (target in ("cuda:90", "cuda:100"))
    endings = {"json", *(("amdgcn", "hsaco") if target.startswith("hip") else ("ptx", "cubin"))}
    assert {name.partition(".")[2] for name, _ in artefact.files} == endings
    assert all(data for _, data in artefact.files)


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("target", TARGETS)
def test_gradients_spill_no_more_than_the_compiler_may(target: str, head_dim: int) -> None:
    artefacts = gradients(head_dim, "bfloat16", target)
    assert [artefact.name for artefact in artefacts] == ["row_sums", "grad_queries_0", "grad_keys_0", "key_mass_0"]
    for artefact in artefacts:
        assert_fit(artefact, OF_KEYS if artefact.name == "grad_keys_0" and head_dim == 128 else NONE_OR_FEW)
    for artefact in artefacts[1:]:
        assert artefact.tensor_core >= (4 if artefact.name == "key_mass_0" else 16)  # that has one product of five
        assert (artefact.tma > 0) == (target in ("cuda:90", "cuda:100"))


@pytest.mark.parametrize(
    ("target", "head_dim"), [("cuda:80", 128), ("cuda:90", 128), ("cuda:100", 64), ("hip:gfx942", 64)]
)
def test_gradients_in_parts_spill_no_more_than_the_compiler_may(target: str, head_dim: int) -> None:
    count, join, keys = gradients(head_dim, "bfloat16", target, parts=True)
    assert (count.name, join.name, keys.name) == ("count_grad_keys_0", "join_grad_keys_0", "grad_keys_0")
    for artefact in (count, join):
        assert_fit(artefact)
        assert artefact.tensor_core == 0
    assert_fit(keys, OF_PARTS if head_dim == 128 else NONE_OR_FEW)
    assert keys.tensor_core >= 16 and (keys.tma > 0) == (target in ("cuda:90", "cuda:100"))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("gemma2", "gemma2_window"),
        ("phi3_small", "phi3_small_sparse"),
        ("sparse_transformer", "sparse_transformer_fixed"),
    ],
)
def test_gradients_of_examples_spill_no_more_than_the_compiler_may(file: str, name: str) -> None:
    """A soft cap, phases that differ within a KV group, and small blocks."""
    pattern = sparsec.load(Path(__file__).parents[3] / "examples" / f"{file}.sparse").pattern(name)
    heads = pattern.resolve(pattern.heads or 16, pattern.kv_heads or 8)
    plan = Request(Lowered(heads), 64, 64, torch.bfloat16).compilation("cuda:90").backward
    for artefact in compile_ahead_backward(emit_triton_backward(plan), plan, "cuda:90"):
        assert_fit(artefact)


def test_score_modifiers_and_documents_in_the_forward_kernel() -> None:
    for score, documents in ((ALL, m.Documents.NONE), (PLAIN, m.Documents.SEPARATE), (PLAIN, m.Documents.RESTART)):
        (artefact,) = strided(64, "bfloat16", "cuda:90", score, documents)
        assert_fit(artefact)


def test_score_modifiers_and_documents_in_the_gradients() -> None:
    for score, documents in ((ALL, m.Documents.NONE), (PLAIN, m.Documents.SEPARATE), (PLAIN, m.Documents.RESTART)):
        for artefact in gradients(64, "bfloat16", "cuda:90", score, documents):
            assert_fit(artefact)


def test_float32_has_no_tensor_cores() -> None:
    (artefact,) = strided(64, "float32", "cuda:90")
    assert_fit(artefact, OTHERS)
    assert artefact.tensor_core == 0


def test_check_names_each_failure_and_tells_spills_apart() -> None:
    good = KernelArtefact("forward_0", "cuda:90", "bfloat16", 8, 3, 168, 0, 0, 100_000, 24, 12, ())
    assert findings_of(good) == KernelFindings()
    spilled = "forward_0 for cuda:90 spills registers: 8 bytes spilled, 0 bytes of stack a thread"
    assert findings_of(replace(good, spill_bytes=8)) == KernelFindings(warnings=(spilled,))
    assert "8 bytes of stack" in findings_of(replace(good, stack_bytes=8)).warnings[0]
    (shared,) = findings_of(replace(good, shared_bytes=shared_memory_bytes("cuda:90") + 1)).problems
    assert "needs 232449 bytes of shared memory, over 232448" in shared
    (slow,) = findings_of(replace(good, tensor_core=0)).problems
    assert "tensor-core" in slow
    found = findings_of(replace(good, spill_bytes=8, shared_bytes=1 << 20, tensor_core=0))
    assert (len(found.problems), found.warnings) == (2, (spilled,))


def light(heads: int, score: m.Score = PLAIN) -> m.ResolvedPattern:
    """A window beside strided blocks: two masked segments."""
    terms = tuple(
        m.Intersection((m.Causal(), m.Union((m.Window(8, 0, True), m.Stride(16, -h % 16, True))))) for h in range(heads)
    )
    return m.ResolvedPattern(heads, heads, terms, 64, (), m.Documents.NONE, score)


def limit_of(artefact: KernelArtefact) -> list[str]:
    """The limits of registers that the assembler was told."""
    (ptx,) = (data.decode() for name, data in artefact.files if name.endswith(".ptx"))
    return re.findall(r"\.maxnreg (\d+)", ptx)


@pytest.mark.parametrize("head_dim", [40, 64])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("score", [PLAIN, m.Score(None, (LearnedSink(),))])
def test_on_hopper_two_light_programs_share_a_multiprocessor(
    head_dim: int, dtype: str, score: m.Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the rules, under every Triton, without a spill; with registers to spare one would have over 128."""
    monkeypatch.setattr("sparsec.plan.target.PICKS", {})
    query_tile, key_tile, _, _ = tile_sizes("cuda:90", head_dim, dtype)
    plan = Lowered(light(4, score)).plan_forward(
        head_dim=head_dim, dtype=dtype, query_tile=query_tile, key_tile=key_tile
    )
    (artefact,) = compile_ahead(emit_triton(plan), plan, "cuda:90")
    assert limit_of(artefact) == ["128"]
    assert artefact.registers * artefact.warps * 32 * 2 <= 65536
    assert artefact.shared_bytes * 2 <= shared_memory_bytes("cuda:90")
    assert findings_of(artefact) == KernelFindings()


def test_what_would_spill_has_no_limit_of_registers() -> None:
    """A third region, a soft cap, or ALiBi."""
    (artefact,) = strided(64, "bfloat16", "cuda:90")
    assert limit_of(artefact) == []
    for score, limit in ((PLAIN, 128), (m.Score(None, (Alibi(),)), None), (m.Score(None, (Softcap(50.0),)), None)):
        plan = Lowered(light(1, score)).plan_forward(head_dim=64, dtype="bfloat16", query_tile=128, key_tile=64)
        (head_class,) = plan.classes
        shape = launch_shape("cuda:90", 64, "bfloat16", 128, 64, light=plan.light(head_class))
        assert shape.maxnreg == limit


def test_refuses_what_it_cannot_build() -> None:
    with pytest.raises(ValueError, match="cuda:90"):
        strided(64, "bfloat16", "vulkan:1")
    (artefact,) = strided(64, "bfloat16", "cuda:80")
    assert artefact.name == "forward_0"
    plan = Lowered(m.ResolvedPattern(1, 1, (m.Causal(),), 64, (), m.Documents.NONE, m.Score())).plan_forward(
        head_dim=64,
        dtype="bfloat16",
        query_tile=64,
        key_tile=64,
    )
    broken = emit_triton(plan).replace("product(q_tile", "product(rows")
    with pytest.raises(AheadOfTimeError, match="forward_0"):
        compile_ahead(broken, plan, "cuda:80")

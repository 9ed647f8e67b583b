"""Ahead-of-time compiles on a machine without a GPU: what the assembler says of a strided pattern's kernel."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sparsec
from sparsec.codegen.triton import emit_triton, emit_triton_backward
from sparsec.plan.build import plan_backward, plan_kernels
from sparsec.plan.target import backward_tile_sizes, shared_memory_bytes, tile_sizes, transposed_tile_sizes
from sparsec.runtime.aot import AheadOfTimeError, KernelArtefact, check, compile_ahead, compile_ahead_backward
from sparsec.runtime.compile import Request, backward_plan
from sparsec.sema import model as m

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")
PLAIN = m.Score()
ALL = m.Score(softcap=50.0, alibi=True, learned_sink=True)
TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")


def s2(score: m.Score, documents: m.Documents) -> m.Heads:
    """S2 with a sink: heads of each KV group keep another residue of the blocks."""
    terms = tuple(
        m.Intersection(
            (m.Causal(), m.Union((m.Sink(64, False), m.Window(8, 0, True), m.Stride(16, -(h // 4) % 16, True))))
        )
        for h in range(32)
    )
    return m.Heads(32, 8, terms, 64, (), documents, score)


def strided(
    head_dim: int, dtype: str, target: str, score: m.Score = PLAIN, documents: m.Documents = m.Documents.NONE
) -> tuple[KernelArtefact, ...]:
    query_tile, key_tile, _, _ = tile_sizes(target, head_dim, dtype)
    plan = plan_kernels(s2(score, documents), head_dim=head_dim, dtype=dtype, query_tile=query_tile, key_tile=key_tile)
    return compile_ahead(emit_triton(plan), plan, target)


def gradients(
    head_dim: int, dtype: str, target: str, score: m.Score = PLAIN, documents: m.Documents = m.Documents.NONE
) -> tuple[KernelArtefact, ...]:
    query_tile, key_tile = backward_tile_sizes(target, head_dim, dtype)
    plan = plan_backward(
        s2(score, documents),
        head_dim=head_dim,
        dtype=dtype,
        query_tile=query_tile,
        key_tile=key_tile,
        transposed_tiles=transposed_tile_sizes(target, head_dim, dtype),
    )
    return compile_ahead_backward(emit_triton_backward(plan), plan, target)


@pytest.mark.parametrize("target", TARGETS)
def test_builds_without_a_gpu(target: str) -> None:
    (artefact,) = strided(128, "bfloat16", target)
    assert check(artefact) == ()
    assert 64 <= artefact.registers <= 512 and artefact.tensor_core >= 16
    assert (artefact.tma > 0) == (target in ("cuda:90", "cuda:100"))
    endings = {"amdgcn", "hsaco"} if target.startswith("hip") else {"ptx", "cubin"}
    assert {name.partition(".")[2] for name, _ in artefact.files} == endings
    assert all(data for _, data in artefact.files)


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("target", TARGETS)
def test_gradients_do_not_spill(target: str, head_dim: int) -> None:
    artefacts = gradients(head_dim, "bfloat16", target)
    assert [artefact.name for artefact in artefacts] == ["row_sums", "grad_queries_0", "grad_keys_0"]
    for artefact in artefacts:
        assert check(artefact) == ()
    for artefact in artefacts[1:]:
        assert artefact.tensor_core >= 16
        assert (artefact.tma > 0) == (target in ("cuda:90", "cuda:100"))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("gemma2", "gemma2_window"),
        ("phi3_small", "phi3_small_sparse"),
        ("sparse_transformer", "sparse_transformer_fixed"),
    ],
)
def test_gradients_of_examples_do_not_spill(file: str, name: str) -> None:
    """A soft cap, phases that differ within a KV group, and small blocks."""
    pattern = sparsec.load(Path(__file__).parents[3] / "examples" / f"{file}.sparse").pattern(name)
    heads = pattern.resolve(pattern.heads or 16, pattern.kv_heads or 8)
    plan = backward_plan(Request(heads, 64, torch.bfloat16), "cuda:90")
    for artefact in compile_ahead_backward(emit_triton_backward(plan), plan, "cuda:90"):
        assert check(artefact) == ()


def test_score_modifiers_and_documents_in_the_forward_kernel() -> None:
    for score, documents in ((ALL, m.Documents.NONE), (PLAIN, m.Documents.SEPARATE), (PLAIN, m.Documents.RESTART)):
        (artefact,) = strided(64, "bfloat16", "cuda:90", score, documents)
        assert check(artefact) == ()


def test_score_modifiers_and_documents_in_the_gradients() -> None:
    for score, documents in ((ALL, m.Documents.NONE), (PLAIN, m.Documents.SEPARATE), (PLAIN, m.Documents.RESTART)):
        for artefact in gradients(64, "bfloat16", "cuda:90", score, documents):
            assert check(artefact) == ()


def test_float32_has_no_tensor_cores_and_does_not_spill() -> None:
    (artefact,) = strided(64, "float32", "cuda:90")
    assert check(artefact) == () and artefact.tensor_core == 0


def test_check_names_each_failure() -> None:
    good = KernelArtefact("forward_0", "cuda:90", "bfloat16", 8, 3, 168, 0, 0, 100_000, 24, 12, ())
    assert check(good) == ()
    assert "spill" in check(replace(good, spill_bytes=8))[0]
    assert "stack" in check(replace(good, stack_bytes=8))[0]
    assert "232448" in check(replace(good, shared_bytes=shared_memory_bytes("cuda:90") + 1))[0]
    assert "tensor-core" in check(replace(good, tensor_core=0))[0]
    assert len(check(replace(good, spill_bytes=8, shared_bytes=1 << 20, tensor_core=0))) == 3


def test_refuses_what_it_cannot_build() -> None:
    with pytest.raises(ValueError, match="cuda:90"):
        strided(64, "bfloat16", "vulkan:1")
    (artefact,) = strided(64, "bfloat16", "cuda:80")
    assert artefact.name == "forward_0"
    plan = plan_kernels(
        m.Heads(1, 1, (m.Causal(),), 64, (), m.Documents.NONE, m.Score()),
        head_dim=64,
        dtype="bfloat16",
        query_tile=64,
        key_tile=64,
    )
    broken = emit_triton(plan).replace("tl.dot(q_0", "tl.dot(rows")
    with pytest.raises(AheadOfTimeError, match="forward_0"):
        compile_ahead(broken, plan, "cuda:80")

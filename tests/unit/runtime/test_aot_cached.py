"""The kernels over a cache, compiled ahead of time on a machine without a GPU."""

from __future__ import annotations

import os

import pytest
import torch
from spilling import NONE_OR_FEW, OF_DECODING, assert_fit

from sparsec.backends.base import Cached
from sparsec.backends.triton.aot import KernelArtefact, compile_ahead_cached
from sparsec.backends.triton.cached import TritonCached
from sparsec.backends.triton.emit_cached import emit_triton_cached
from sparsec.diagnostics.model import CallError
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.target import cached_tile_sizes, decode_tile_sizes
from sparsec.sema import model as m
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [pytest.mark.kernels, pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")]


def plans(heads: int, head_dim: int, target: str, score: m.Score | None = None) -> tuple[CachedPlan, CachedPlan]:
    """A sink, a window and strided blocks, one phase a KV group of four heads."""
    terms = tuple(
        m.Intersection(
            (m.Causal(), m.Union((m.Sink(64, False), m.Window(8, 0, True), m.Stride(16, -(h // 4) % 16, True))))
        )
        for h in range(heads)
    )
    pattern = m.ResolvedPattern(heads, heads // 4, terms, 64, (), m.Documents.NONE, score or m.Score())
    sizes = (of(target, head_dim, "bfloat16") for of in (cached_tile_sizes, decode_tile_sizes))
    chunks, decode = (
        Lowered(pattern).plan_cached(head_dim=head_dim, dtype="bfloat16", query_tile=query_tile, key_tile=key_tile)
        for query_tile, key_tile in sizes
    )
    return chunks, decode


def built(
    head_dim: int, target: str, score: m.Score | None = None, *, masses: bool = False
) -> dict[str, KernelArtefact]:
    chunks, decode = plans(8, head_dim, target, score)
    artefacts = compile_ahead_cached(emit_triton_cached(chunks, decode), chunks, decode, target, masses=masses)
    for artefact in artefacts:
        assert_fit(artefact, OF_DECODING if artefact.name == "decode_0" else NONE_OR_FEW)
    return {artefact.name: artefact for artefact in artefacts}


@pytest.mark.parametrize(("target", "head_dim"), [("cuda:80", 128), ("hip:gfx942", 64)])
def test_builds_without_a_gpu(target: str, head_dim: int) -> None:
    found = built(head_dim, target, masses=True)
    assert list(found) == ["attend_0", "mass_0", "decode_0", "merge", "store"]
    assert all(found[name].tensor_core >= 16 for name in ("attend_0", "mass_0", "decode_0"))


def test_keys_of_the_cache_and_of_the_call_are_loaded_asynchronously_16_bytes_at_a_time() -> None:
    found = built(64, "cuda:90", m.Score(None, (Softcap(50.0), Alibi(), LearnedSink())))
    for name, stages in (("attend_0", 3), ("decode_0", 4)):
        artefact = found[name]
        (ptx,) = (text.decode() for file, text in artefact.files if file.endswith("ptx"))
        # The keys' and the values' tile: in each of two loops the stages before the first iteration, then one each.
        key_tile = (decode_tile_sizes if name == "decode_0" else cached_tile_sizes)("cuda:90", 64, "bfloat16")[1]
        wide = 2 * key_tile * 64 * 2 // (16 * 32 * artefact.warps)
        assert artefact.stages == stages
        assert ptx.count("cp.async.cg.shared.global") == 2 * wide * stages


def test_tensors_on_the_cpu_are_refused() -> None:
    kernel = TritonCached.of(*plans(4, 16, "interpreter"))
    q, k = torch.zeros(1, 4, 1, 16), torch.zeros(1, 1, 1, 16)
    cache = Cached(k[0], k[0], *(torch.zeros(1, dtype=torch.int32) for _ in range(2)), torch.zeros(1, 3, 2).int())
    with pytest.raises(CallError, match="TRITON_INTERPRET"):
        kernel.attend(q, k, k, cache, scale=None)
    with pytest.raises(CallError, match="TRITON_INTERPRET"):
        kernel.store(k, k, cache)


PAGES = m.InputDecl("pages", m.InputKind.ROWS, 1, 1, m.InputUnit.BLOCKS)
LABELS = m.InputDecl("labels", m.InputKind.LABELS, 1, 1)
MARKS = m.InputDecl("marks", m.InputKind.TOKENS, 1, 1)


@pytest.mark.parametrize(
    ("target", "head_dim"), [("cuda:80", 128), ("cuda:90", 128), ("cuda:100", 128), ("hip:gfx942", 64)]
)
@pytest.mark.parametrize("declared", [PAGES, LABELS], ids=lambda each: each.name)
def test_kernels_of_inputs(target: str, head_dim: int, declared: m.InputDecl) -> None:
    term = m.Intersection((m.Causal(), m.Input(0)))
    pattern = m.ResolvedPattern(8, 2, (term,) * 8, 64, (declared,), m.Documents.NONE, m.Score())
    chunks, decode = Compilation(Lowered(pattern), head_dim, head_dim, "bfloat16", target).cached
    artefacts = compile_ahead_cached(emit_triton_cached(chunks, decode), chunks, decode, target)
    gathers = ["gather_attend_0", "gather_decode_0"]
    of_tiles = ["list_attend_0", "attend_0", "list_decode_0", "decode_0"]
    of_inputs = gathers if declared is PAGES else of_tiles
    assert [artefact.name for artefact in artefacts] == [*of_inputs, "merge", "store"]
    for artefact in artefacts:
        assert_fit(artefact)
        assert artefact.tensor_core > 0 or artefact.name.startswith(("list_", "merge", "store"))


@pytest.mark.parametrize(
    ("target", "head_dim"), [("cuda:80", 128), ("cuda:90", 128), ("cuda:100", 128), ("hip:gfx942", 64)]
)
def test_kernels_over_lists_of_kept_keys(target: str, head_dim: int) -> None:
    term = m.Intersection((m.Causal(), m.Input(0)))
    pattern = m.ResolvedPattern(8, 2, (term,) * 8, 64, (MARKS,), m.Documents.NONE, m.Score())
    chunks, decode = Compilation(Lowered(pattern), head_dim, head_dim, "bfloat16", target).kept
    masses = target == "cuda:90"
    artefacts = compile_ahead_cached(emit_triton_cached(chunks, decode), chunks, decode, target, masses=masses)
    of_lists = ["kept_attend_0", *["kept_mass_0"] * masses, "kept_decode_0"]
    assert [artefact.name for artefact in artefacts] == [*of_lists, "merge", "store", "append"]
    for artefact in artefacts:
        assert_fit(artefact)
        assert artefact.tensor_core > 0 or artefact.name in ("merge", "store", "append")

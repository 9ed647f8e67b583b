"""Gluon's kernels, as they are printed, on a model of Gluon, against dense float64 attention over reference masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import gluon_model
import pytest
import torch
from gluon_memory import Hazard
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsec
from sparsec.backends import registry
from sparsec.backends.gluon import kernel as gluon
from sparsec.backends.gluon.emit import NotPrinted, emit_gluon
from sparsec.backends.gluon.kernel import GluonKernel
from sparsec.backends.triton import call
from sparsec.backends.triton.asking import Asking
from sparsec.backends.triton.launches import KernelEntry, Recorded
from sparsec.diagnostics.model import CallError
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.launch import LaunchClass
from sparsec.plan.target import GLUON, PLAIN
from sparsec.reference import mask
from sparsec.reference.attention import attention
from sparsec.runtime.draws import draw_tables
from sparsec.sema import model as m
from sparsec.sema.modifiers import Alibi, LearnedSink, Softcap
from sparsec.testing import patterns
from sparsec.testing.strategies import Shape, attention_inputs, document_bounds, shapes

Edit = Callable[[str], str]
STEPS = {torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Weights are rounded to the type of the values."""


def kernel_of(
    pattern: m.ResolvedPattern,
    monkeypatch: pytest.MonkeyPatch,
    *,
    dims: tuple[int, int] = (16, 16),
    dtype: str = "bfloat16",
    seed: int = 0,
    edit: Edit = lambda text: text,
) -> GluonKernel:
    """The kernel on the model; `edit` changes its text."""
    monkeypatch.setattr(gluon, "load_module", lambda source: gluon_model.load(edit(source), seed))
    monkeypatch.setattr(call, "document_tiles", tiles_of_documents)
    monkeypatch.setattr(call, "launch", nothing_unsure)
    monkeypatch.setattr(GluonKernel, "_unsure_on", lambda self, device: [again(each) for each in self.plan.classes])
    return GluonKernel.of(Compilation(Lowered(pattern), *dims, dtype, GLUON).forward)


def again(of: LaunchClass) -> call.ClassEntry:
    """In place of the kernel that computes again."""
    entry = KernelEntry(None, torch.device("cpu"), PLAIN, {})
    asking, slots = Asking(len(of.table), None, None, None, ()), len(of.table)
    return call.ClassEntry(entry, asking, slots, of.query_tile, of.key_tile, {"keys": (), "values": ()}, False)


def nothing_unsure(
    entry: KernelEntry, programs: int, given: dict[str, torch.Tensor], recorded: Recorded | None = None
) -> None:
    """In place of the launch that computes again."""
    assert entry.function is None and given["unsure"].shape == (programs,)
    assert not given["unsure"].any()


def tiles_of_documents(
    cu_seqlens: torch.Tensor, rows: int, tile: int, *, restart: bool, recorded: object
) -> torch.Tensor:
    """What a kernel of Triton finds."""
    found: list[tuple[int, int, int]] = []
    for begin, end in pairwise(cu_seqlens.tolist()):
        numbers = range(-(-(end - begin) // tile)) if restart else range(begin // tile, -(-end // tile))
        found += [(number, begin, end) for number in numbers if begin < end]
    table = torch.zeros(-(-rows // tile) + len(cu_seqlens) - 1, 3, dtype=torch.int32)
    table[: len(found)] = torch.tensor(found, dtype=torch.int32).reshape(-1, 3)
    return table


def agrees(
    kernel: GluonKernel,
    pattern: m.ResolvedPattern,
    tensors: tuple[torch.Tensor, ...],
    q_offset: int,
    bounds: tuple[int, ...] | None = None,
) -> None:
    q, k, v = tensors
    sink = torch.linspace(-1.0, 2.0, pattern.heads) if pattern.score.learned else None
    packed = None if bounds is None else torch.tensor(bounds, dtype=torch.int32)
    lists = draw_tables(kernel.plan.lists, q.shape[2], q_offset, q.device)
    out, lse = kernel.forward(q, k, v, q_offset=q_offset, lists=lists, sink=sink, cu_seqlens=packed)
    visible = mask(pattern, q.shape[2], k.shape[2], None if bounds is not None else q_offset, cu_seqlens=bounds)
    wanted, wanted_lse = attention(q, k, v, visible, pattern.score, sink=sink, q_offset=q_offset, dtype=torch.float64)
    assert out.dtype == q.dtype and lse.dtype == torch.float32
    step = STEPS[q.dtype] * (1.0 + float(v.abs().amax() if v.numel() else 0.0))
    torch.testing.assert_close(out.double(), wanted, rtol=0.0, atol=step)
    torch.testing.assert_close(lse.double(), wanted_lse, rtol=1e-5, atol=5e-5)


def normal(pattern: m.ResolvedPattern, nq: int, nk: int, dims: tuple[int, int] = (16, 16)) -> tuple[torch.Tensor, ...]:
    made = torch.Generator().manual_seed(nq * 1000 + nk)
    shapes = (pattern.heads, nq, dims[0]), (pattern.kv_heads, nk, dims[0]), (pattern.kv_heads, nk, dims[1])
    return tuple(torch.randn((2, *shape), generator=made).to(torch.bfloat16) for shape in shapes)


def of_terms(*terms: m.Term, kv_heads: int = 1, score: m.Score | None = None) -> m.ResolvedPattern:
    return m.ResolvedPattern(len(terms), kv_heads, terms, 64, (), m.Documents.NONE, score or m.Score())


CAUSAL = of_terms(m.Causal(), m.Causal())
STRIDED = of_terms(
    *(m.Intersection((m.Causal(), m.Union((m.Window(2, 0, True), m.Stride(4, n, True))))) for n in range(2))
)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_drawn_patterns(data: st.DataObject) -> None:
    """Any pattern, score, lengths, strides and order of what runs at the same time."""
    pattern = data.draw(patterns(max_heads=2, scored=True))
    shape, bounds = data.draw(shapes(max_queries=150, max_keys=260)), None
    if pattern.documents is not m.Documents.NONE:
        shape = Shape(shape.n_k, shape.n_k, 0)
        bounds = data.draw(document_bounds(shape.n_k))
    dtype = data.draw(st.sampled_from([torch.bfloat16, torch.float16]))
    dims = data.draw(st.sampled_from([(16, 16), (24, 16), (16, 72)]))
    drawn = attention_inputs(
        pattern.heads,
        pattern.kv_heads,
        shape,
        head_dim=dims[0],
        value_dim=dims[1],
        dtype=dtype,
        max_batch=1,
    )
    tensors = data.draw(drawn)
    with pytest.MonkeyPatch.context() as patch:
        name = str(dtype).removeprefix("torch.")
        kernel = kernel_of(pattern, patch, dims=dims, dtype=name, seed=data.draw(st.integers(0, 99)))
        agrees(kernel, pattern, (tensors.q, tensors.k, tensors.v), shape.q_offset, bounds)


@pytest.mark.parametrize("pattern", [CAUSAL, STRIDED])
def test_long_rows(pattern: m.ResolvedPattern, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rings are gone round several times, and some steps are full."""
    for seed in range(3):
        kernel = kernel_of(pattern, monkeypatch, seed=seed)
        agrees(kernel, pattern, normal(pattern, 200, 1500), 1300)


def test_modifiers_of_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    score = m.Score(None, (Softcap(2.0), Alibi(), LearnedSink()))
    pattern = replace(STRIDED, score=score)
    agrees(kernel_of(pattern, monkeypatch), pattern, normal(pattern, 300, 700), 400)


MISTAKES = {
    "values given back before their product is waited for": (
        "            acc, p = warpgroup_mma_wait(0, deps=(sums, p))\n"
        "            mbarrier.arrive(v_free.index((at - 1) % STAGES), count=1)\n",
        "            mbarrier.arrive(v_free.index((at - 1) % STAGES), count=1)\n"
        "            acc, p = warpgroup_mma_wait(0, deps=(sums, p))\n",
    ),
    "values copied without waiting for their buffer": ("        mbarrier.wait(v_free.index(buffer), used)\n", ""),
    "keys read without waiting for their copy": (
        "    mbarrier.wait(k_full.index(buffer), (at // STAGES) & 1)\n",
        "",
    ),
    "a wait for the phase before": ("(at // STAGES) & 1)\n    acc", "((at // STAGES) & 1) ^ 1)\n    acc"),
    "values never given back": (
        "            mbarrier.arrive(v_free.index((at - 1) % STAGES), count=1)\n",
        "",
    ),
    "sums not rescaled": ("    acc = acc * gl.convert_layout(decay, gl.SliceLayout(1, O))[:, None]\n", ""),
    "the second of two key tiles copied over the first": (
        "v_ring.index(buffer).slice(part * KEY_TILE, KEY_TILE, 2)",
        "v_ring.index(buffer).slice(0, KEY_TILE, 2)",
    ),
    "fewer bytes expected than are copied": (
        "mbarrier.expect(k_full.index(buffer), PARTS * keys",
        "mbarrier.expect(k_full.index(buffer), keys",
    ),
    "scores used before they are waited for": (
        "warpgroup_mma_wait(1, deps=(scores,))",
        "warpgroup_mma_wait(2, deps=(scores,))",
    ),
    "barriers not shown to the copies": ("    fence_async_shared()\n", ""),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistakes_are_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in whatever order things run."""
    right, wrong = MISTAKES[mistake]

    def edit(text: str) -> str:
        assert right in text
        return text.replace(right, wrong)

    for seed in range(3):
        kernel = kernel_of(CAUSAL, monkeypatch, seed=seed, edit=edit)
        with pytest.raises((Hazard, AssertionError)):
            agrees(kernel, CAUSAL, normal(CAUSAL, 130, 1500), 1370)


def test_no_device_gets_it_unasked() -> None:
    assert all(registry.best(device) != "gluon" for device in ("cpu", "cuda", "mps"))
    with pytest.raises(CallError, match="expected a GPU for target 'gluon', got device cpu"):
        sparsec.compile("pattern p { heads 1\nattend causal }", head_dim=64, target="gluon", device="cpu")


def test_what_is_not_printed() -> None:
    with pytest.raises(NotPrinted, match="take bfloat16 and float16, not float32"):
        emit_gluon(Compilation(Lowered(CAUSAL), 64, 64, "float32", GLUON).forward)
    with pytest.raises(NotPrinted, match="take head dimensions up to 128, not 256"):
        emit_gluon(Compilation(Lowered(CAUSAL), 64, 256, "float16", GLUON).forward)
    with pytest.raises(NotPrinted, match="take head dimensions that are multiples of 8, not 60 and 64"):
        emit_gluon(Compilation(Lowered(CAUSAL), 60, 64, "float16", GLUON).forward)
    listed = replace(of_terms(m.Input(0)), inputs=(m.InputDecl("x", m.InputKind.ROWS, 1, 1),))
    with pytest.raises(NotPrinted, match="or lists for all queries, not lists of each row's alone"):
        emit_gluon(Compilation(Lowered(listed), 64, 64, "float16", GLUON).forward)

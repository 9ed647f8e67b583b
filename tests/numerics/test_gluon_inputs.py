"""Patterns with inputs in Gluon's kernels on the model; Triton's kernels that go first run in its interpreter."""

from __future__ import annotations

from collections.abc import Callable

import gluon_model
import pytest
import torch
from gluon_calls import beside_triton, call_agrees
from gluon_memory import Hazard
from input_patterns import BATCH, HEADS, KV_HEADS, Call, visible
from input_patterns import pattern as input_pattern
from test_gluon_columns import lists, pattern_of
from test_inputs import DIM, dense
from test_triton_inputs import looked_up
from triton_harness import in_interpreter, interpreted, passes_in_the_interpreter

from sparsec.backends.gluon import kernel as gluon
from sparsec.backends.gluon.kernel import GluonKernel
from sparsec.pipeline import Compilation, Lowered
from sparsec.plan.target import GLUON
from sparsec.runtime.draws import draw_tables
from sparsec.testing.cases import Case

CALL, SHORT, LONG = Call(40, 110, 70), Call(5, 40, 35), Call(20, 300, 280)
NAMES = (
    *("causal tokens", "slash_blocks", "causal slash_tiles", "causal blocks", "causal cells", "causal labels"),
    *("causal tree", "run-time sink", "run-time window", "all but slashes", "vertical and slash"),
)
LISTS = ("causal pages", "rows")


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


def kernel_of(
    name: str, monkeypatch: pytest.MonkeyPatch, edit: Callable[[str], str] = lambda text: text
) -> GluonKernel:
    """`edit` changes the text of Gluon's kernels."""
    honest = gluon.load_module

    def load(text: str) -> object:
        return gluon_model.load(edit(text), seed=3) if "@gluon.jit" in text else honest(text)

    monkeypatch.setattr(gluon, "load_module", load)
    return GluonKernel.of(Compilation(Lowered(input_pattern(name)), DIM, DIM, "bfloat16", GLUON).forward)


def agrees(kernel: GluonKernel, name: str, call: Call, seed: int = 7) -> None:
    made = torch.Generator().manual_seed(seed)
    shapes = (HEADS, call.n_q), (KV_HEADS, call.n_k), (KV_HEADS, call.n_k)
    q, k, v = (torch.randn((BATCH, *shape, DIM), generator=made).to(torch.bfloat16) for shape in shapes)
    lists = draw_tables(kernel.plan.lists, call.n_q, call.q_offset, q.device)
    out, lse = kernel.forward(q, k, v, q_offset=call.q_offset, lists=lists, inputs=looked_up(kernel, call))
    wanted, wanted_lse = dense(q, k, v, visible(name, call, call.tensors()))
    assert out.dtype == q.dtype and lse.dtype == torch.float32
    torch.testing.assert_close(out.double(), wanted, atol=3e-2, rtol=0.0)
    torch.testing.assert_close(lse.double(), wanted_lse, atol=5e-5, rtol=1e-5)


@in_interpreter
@pytest.mark.parametrize("name", NAMES)
def test_tiles_that_inputs_add(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agrees(kernel_of(name, monkeypatch), name, LONG if name == "causal blocks" else CALL)


@in_interpreter
@pytest.mark.parametrize("name", LISTS)
def test_lists_of_rows_beside_and_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agrees(kernel_of(name, monkeypatch), name, SHORT)


@in_interpreter
def test_calls_of_one_shape_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the third one on nothing is derived anew but what inputs hold, which may be anything."""
    kernel, asked = kernel_of("run-time sink", monkeypatch), gluon.LaunchCall.of
    calls = list[object]()
    monkeypatch.setattr(gluon.LaunchCall, "of", lambda *given: calls.append(given) or asked(*given))
    for seed in range(4):
        agrees(kernel, "run-time sink", Call(*(CALL.n_q, CALL.n_k, CALL.q_offset), seed), seed)
    assert len(calls) == 2


@in_interpreter
@pytest.mark.parametrize("terms", ["slash : slashes(tiles)", "slash : columns(blocks)"])
def test_long_lists_beside_tiles_that_inputs_add(terms: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lists hold may differ where launches are repeated, as they are from the third call of a shape on."""
    pattern = pattern_of(f"input {terms} causal attend listed | slash")
    kernel, asked, calls = beside_triton(pattern, monkeypatch), gluon.LaunchCall.of, list[object]()
    monkeypatch.setattr(gluon.LaunchCall, "of", lambda *given: calls.append(given) or asked(*given))
    for seed in range(4):
        case = Case("forward", 20, 200, 180, seed=2 * seed)
        slash = lists(1, HEADS, 11, 2, seed, 0) * (16 if "tiles" in terms else 1)
        call_agrees(kernel, pattern, case, {"listed": lists(1, HEADS, 200, 150, seed), "slash": slash})
    assert len(calls) == 2


MISTAKES = {
    "the count of masked tiles taken for that of full ones": ("gl.load(visits_at + 1)", "gl.load(visits_at + 0)"),
    "full tiles read from the back": ("visits_at + 2 + n", "visits_at + 2 + visits_row - 3 - n"),
    "the tiles of another program": ("visits + (program)", "visits + (program * 0)"),
    "a step's tiles masked as its first": ("start = firsts[part]", "start = firsts[0]"),
    "the mask of the last tile taken for all": ("gl.where(of_part == part, live, visible)", "live | visible"),
    "the cell of the next row": ("gl.where(of_row, row, 0)", "gl.where(of_row, row + 1, 0)"),
    "tiles past the end of the list": (
        "iteration = gl.minimum(trip - full_end, ",
        "iteration = gl.minimum(trip - full_end + 9, 9 + ",
    ),
}


@in_interpreter
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = MISTAKES[mistake]

    def edit(text: str) -> str:
        assert right in text
        return text.replace(right, wrong)

    with pytest.raises((Hazard, AssertionError, IndexError)):
        agrees(kernel_of("causal blocks", monkeypatch, edit), "causal blocks", LONG)

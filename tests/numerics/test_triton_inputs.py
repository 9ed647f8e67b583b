"""Patterns with inputs in Triton's interpreter: outputs, LSE and gradients against dense attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from input_patterns import BATCH, BLOCK, HEADS, KV_HEADS, TERMS, Call, pattern, visible
from test_inputs import dense, dense_mass
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder
from triton_harness import in_interpreter, interpreted, kernel_of, passes_in_the_interpreter

from sparsec.backends.base import Lookup
from sparsec.backends.triton.kernel import TritonKernel
from sparsec.backends.triton.lookups import listing_of, within_documents
from sparsec.runtime.draws import draw_tables
from sparsec.runtime.inputs.prepare import CallShape, by_input, prepared
from sparsec.sema import model as m

CALL, SHORT, WIDE = Call(20, 42, 22), Call(6, 23, 14, 3), Call(70, 106, 29)
LONG = ("causal cells", "causal columns", "causal slash_tiles", "causal labels", "run-time window")
DIM = 8


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


def looked_up(kernel: TritonKernel, call: Call) -> tuple[Lookup, ...]:
    plan, given, flat = kernel.plan, call.tensors(), list[Tensor]()
    for input_ in plan.declared:
        value = given[input_.name]
        flat += value if isinstance(value, tuple) else (value,)
    tensors = by_input(plan.declared, flat, Tensor.dim)
    return prepared(plan.inputs, tensors, CallShape(call.n_q, call.n_k, call.q_offset), plan.ordered)


Run = tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]


def run(kernel: TritonKernel, call: Call, leaves: tuple[Tensor, ...], grad: Tensor) -> Run:
    """Outputs, LSE, mass and gradients."""
    given = {"q_offset": call.q_offset, "inputs": looked_up(kernel, call)}
    lists = draw_tables(kernel.plan.lists, call.n_q, call.q_offset, grad.device)
    out, lse = kernel.forward(*leaves, lists=lists, **given)
    mass = kernel.mass(*leaves[:2], lse, lists=lists, **given)
    return out, lse, mass, kernel.backward(grad, None, *leaves, out, lse, lists=lists, **given)[:3]


def random(call: Call) -> tuple[Tensor, ...]:
    torch.manual_seed(call.seed)
    shapes = ((HEADS, call.n_q), (KV_HEADS, call.n_k), (KV_HEADS, call.n_k))
    return tuple(torch.randn(BATCH, heads, n, DIM) for heads, n in shapes)


@in_interpreter
@pytest.mark.parametrize("name", TERMS)
def test_outputs_and_gradients(name: str) -> None:
    equals_dense(name, CALL if name in LONG else SHORT, (16, 16))


@in_interpreter
@pytest.mark.parametrize("tiles", [(64, 64), (32, 64), (64, 32)], ids=str)
@pytest.mark.parametrize("name", ["slashes", "slash_blocks", "slash_tiles", "tree", "all but rows", "cells"])
def test_tiles_wider_than_a_word_and_than_blocks(name: str, tiles: tuple[int, int]) -> None:
    equals_dense(name, WIDE, tiles)


def equals_dense(name: str, call: Call, tiles: tuple[int, int]) -> None:
    kernel = kernel_of(pattern(name), DIM, tiles=tiles)
    leaves = tuple(each.requires_grad_() for each in random(call))
    seen = visible(name, call, call.tensors())
    expected, expected_lse = dense(*leaves, seen)
    grad = torch.randn(expected.shape)
    wanted = torch.autograd.grad(expected, leaves, grad.double())
    out, lse, mass, found = run(kernel, call, tuple(each.detach() for each in leaves), grad)
    torch.testing.assert_close(out.double(), expected.detach(), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(lse.double(), expected_lse.detach(), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(mass.double(), dense_mass(*leaves[:2], seen), atol=2e-5, rtol=1e-5)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=1e-4)


@in_interpreter
@pytest.mark.parametrize("name", ["causal cells", "pages"])
def test_nan_reaches_no_row_that_does_not_see_it(name: str) -> None:
    kernel, (q, k, v) = kernel_of(pattern(name), DIM), random(SHORT)
    grad, seen = torch.randn(q.shape), visible(name, SHORT, SHORT.tensors())
    out, lse, mass, (dq, *_) = run(kernel, SHORT, (q, k, v), grad)
    of_keys = seen.flatten(end_dim=-2)
    key = int((of_keys.any(0) & ~of_keys.all(0)).nonzero()[0])
    k[:, :, key] = v[:, :, key] = torch.nan
    hit = seen[..., key]
    again, lse_again, mass_again, (dq_again, *_) = run(kernel, SHORT, (q, k, v), grad * ~hit[..., None])
    torch.testing.assert_close(again[~hit], out[~hit], atol=0, rtol=0)
    torch.testing.assert_close(lse_again[~hit], lse[~hit], atol=0, rtol=0)
    torch.testing.assert_close(dq_again[~hit], dq[~hit], atol=1e-6, rtol=1e-6)
    assert again[hit].isnan().all()
    apart = ~(seen & hit[..., None]).any(2)  # keys of no row that sees the bad one
    torch.testing.assert_close(mass_again[apart], mass[apart], atol=0, rtol=0)
    assert mass_again[~apart].isnan().any()


@in_interpreter
def test_numbers_far_outside_name_nothing() -> None:
    """Whatever an input holds, what is read lies within its tensors: no entry here is one of a key."""
    kernel, leaves = kernel_of(pattern("two lists"), DIM), random(SHORT)
    far = torch.tensor([2**31 - 1, -(2**31), 2**30, -1, SHORT.n_k, SHORT.n_k + 1], dtype=torch.int32)
    lookups = tuple(
        replace(each, data=far.expand(*each.data.shape[:3], -1).contiguous(), ordered=None)
        if each.ordered is None
        else replace(each, data=torch.full_like(each.data, 2**31 - 1), ordered=torch.full_like(each.data, 2**31 - 1))
        for each in looked_up(kernel, SHORT)
    )
    out, _ = kernel.forward(*leaves, q_offset=SHORT.q_offset, inputs=lookups)
    q, k, v = leaves
    i, j = torch.arange(SHORT.q_offset, SHORT.q_offset + SHORT.n_q)[:, None], torch.arange(SHORT.n_k)
    strided = (j <= i) & (j // BLOCK % 3 == 1)
    window = (i - j >= 0) & (i - j < 4)
    seen = torch.stack([strided, strided, strided | window, strided | window]).expand(BATCH, -1, -1, -1)
    torch.testing.assert_close(out.double(), dense(q, k, v, seen)[0], atol=2e-5, rtol=1e-5)


@in_interpreter
def test_columns_far_outside_name_nothing() -> None:
    kernel, (q, k, v) = kernel_of(pattern("causal columns"), DIM), random(SHORT)
    lookups = looked_up(kernel, SHORT)
    (ordered,) = (each.ordered for each in lookups if each.ordered is not None)
    far = torch.tensor([2**31 - 1, -(2**31), 2**30, -1, SHORT.n_k, SHORT.n_k + 1], dtype=torch.int32)
    wrong = far.expand(ordered.shape).contiguous()
    of_counts = [torch.full_like(lookups[0].data, value) for value in (2**31 - 1, -(2**31))]
    i, j = torch.arange(SHORT.q_offset, SHORT.q_offset + SHORT.n_q)[:, None], torch.arange(SHORT.n_k)
    seen = ((j <= i) & ((j < 5) | (i - j < 20))).expand(BATCH, HEADS, -1, -1)
    for counts in (lookups[0].data, *of_counts):
        given = {"q_offset": SHORT.q_offset, "inputs": (replace(lookups[0], data=counts, ordered=wrong),)}
        out, lse = kernel.forward(q, k, v, **given)
        torch.testing.assert_close(out.double(), dense(q, k, v, seen)[0], atol=2e-5, rtol=1e-5)
        mass = kernel.mass(q, k, lse, **given)
        torch.testing.assert_close(mass.double(), dense_mass(q, k, seen), atol=2e-5, rtol=1e-5)
        kernel.backward(out, None, q, k, v, out, lse, **given)


@in_interpreter
def test_what_tiles_leave_for_lists_is_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, where results are written in the queries' dtype, tiles and lists meet in float32."""
    kernel, leaves = kernel_of(pattern("causal rows"), DIM, torch.bfloat16), random(SHORT)
    written = list[torch.dtype]()

    def new_like(tensor: Tensor, *, zero: bool, wide: bool = False, columns: int | None = None) -> Tensor:
        written.append(torch.float32 if wide else tensor.dtype)
        return torch.zeros((*tensor.shape[:-1], columns or tensor.shape[-1]))

    monkeypatch.setattr("sparsec.backends.triton.kernel.new_like", new_like)
    q, k, v = (each.bfloat16() for each in leaves)
    out, _ = kernel.forward(q, k, v, q_offset=SHORT.q_offset, inputs=looked_up(kernel, SHORT))
    expected, _ = dense(q, k, v, visible("causal rows", SHORT, SHORT.tensors()))
    assert written == [torch.float32] and out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), expected, atol=3e-2, rtol=1e-2)


@in_interpreter
@pytest.mark.parametrize("count", [3, 30])
def test_work_is_proportional_to_the_columns_listed(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles have as many keys as they can of those listed, wherever these lie, and none that no row may see."""
    products = list[int]()
    of_tiles = InterpreterBuilder.create_dot

    def create_dot(self: InterpreterBuilder, *given: Any) -> Any:
        products.append(1)
        return of_tiles(self, *given)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    declared = (m.InputDecl("columns", m.InputKind.COLUMNS, 1, 1),)
    term = m.Intersection((m.Causal(), m.Input(0)))
    kernel = kernel_of(m.ResolvedPattern(2, 1, (term, term), BLOCK, declared, m.Documents.NONE, m.Score()), DIM)
    n = 96
    q, (k, v) = torch.randn(1, 2, n, DIM), torch.randn(2, 1, 1, n, DIM)
    lists = torch.randperm(n, generator=torch.Generator().manual_seed(count))[:count] + torch.tensor([[0], [1]])
    given = lists[None].to(torch.int32)
    lookups = prepared(kernel.plan.inputs, ((given,),), CallShape(n, n, 0), kernel.plan.ordered)
    out, lse = kernel.forward(q, k, v, q_offset=0, inputs=lookups)
    ends = range(16, n + 16, 16)
    visited = sum(-(-sum(j < end for j in of_head) // 16) for of_head in lists.tolist() for end in ends)
    assert len(products) == 2 * visited
    products.clear()
    kernel.backward(out, None, q, k, v, out, lse, q_offset=0, inputs=lookups)
    both = [j for j in lists.unique().tolist() if j < n]
    of_keys = sum(both[first] < end for first in range(0, len(both), 16) for end in ends)
    assert len(products) == 3 * visited + 2 * 4 * of_keys


@in_interpreter
def test_rows_of_each_entry_are_listed_in_order() -> None:
    entries = torch.tensor([[[[2, 0], [0, -1], [5, 2], [2, 2**31 - 1]]]], dtype=torch.int32)
    rows, starts = listing_of(entries, 3)
    assert starts.tolist() == [[[0, 2, 2, 5]]]
    assert rows[0, 0, :5].tolist() == [0, 1, 0, 2, 3]


@in_interpreter
def test_entries_of_documents_become_numbers_of_their_tiles() -> None:
    entries = torch.tensor([0, 1, 2, -1], dtype=torch.int32).expand(1, 1, 12, -1)
    bounds = torch.tensor([0, 5, 5, 12], dtype=torch.int32)
    restart = within_documents(entries, bounds, width=4, restart=True)
    assert restart[0, 0, [0, 11]].tolist() == [[0, 1, -1, -1], [2, 3, -1, -1]]
    separate = within_documents(entries, bounds, width=4, restart=False)
    assert separate[0, 0, [0, 11]].tolist() == [[0, 1, -1, -1], [-1, 2, 3, -1]]

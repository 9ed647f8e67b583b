"""The reference meaning of run-time inputs, against formulas on one pair, one head and one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.reference import attention, mask
from sparsec.sema.model import Score
from sparsec.sema.modifiers import KeyBias, LearnedSink

B, HEADS, GROUPS, BLOCK = 2, 4, 2, 16
N_Q, N_K = 21, 50
START = N_K - N_Q
FAR = 2**63 - 1
GENERATOR = torch.Generator().manual_seed(7)


def integers(low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high, shape, generator=GENERATOR)


def marks(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=GENERATOR) < 0.3


def entries(*shape: int, most: int = N_K) -> Tensor:
    """A list with entries that are absent, in any order."""
    found = integers(-3, most + 9, *shape)
    found[..., 0] = torch.tensor([FAR, -FAR - 1])[integers(0, 2, *shape[:-1])]
    return found


def head_of(tensor: Tensor, b: int, h: int) -> Tensor:
    own = tensor[b if tensor.shape[0] > 1 else 0]
    return own[{1: 0, GROUPS: h // (HEADS // GROUPS), HEADS: h}[own.shape[0]]]


Formula = Callable[[Any, int, int, int, int], bool]


def listed(of: Callable[[int, int], int]) -> Formula:
    def holds(t: Tensor, b: int, h: int, i: int, j: int) -> bool:
        x = of(i, j)
        return x >= 0 and x in head_of(t, b, h).tolist()

    return holds


def tiles(t: Tensor, b: int, h: int, i: int, j: int) -> bool:
    base = i // BLOCK * BLOCK
    return any(s >= 0 and base - s <= j < base - s + BLOCK for s in head_of(t, b, h).tolist())


def rows(unit: int) -> Formula:
    return lambda t, b, h, i, j: j // unit in head_of(t, b, h)[i - START].tolist()


def cells(m: int, n: int) -> Formula:
    return lambda t, b, h, i, j: bool(head_of(t, b, h)[i // m - START // m, j // n])


def pairs(m: int, n: int) -> Formula:
    def holds(t: tuple[Tensor, Tensor], b: int, h: int, i: int, j: int) -> bool:
        row = i // m - START // m
        count = int(head_of(t[0], b, h)[row])
        return j // n in head_of(t[1], b, h)[row].tolist()[: max(count, 0)]

    return holds


def labels(t: tuple[Tensor, Tensor], b: int, h: int, i: int, j: int) -> bool:
    query, key = int(head_of(t[0], b, h)[i - START]), int(head_of(t[1], b, h)[j])
    return query >= 0 and query == key


PARENTS = torch.tensor([[-1, 0, 0, 1, -1, 4, 3], [-1, -1, 1, 2, 3, 0, 5]])


def tree(t: Tensor, b: int, h: int, i: int, j: int) -> bool:
    parents, first = t[b].tolist(), N_K - t.shape[1]
    if j < first:
        return True
    token = i - first
    while token >= 0:
        if first + token == j:
            return True
        token = parents[token]
    return False


def length(t: Tensor, b: int, h: int) -> int:
    return max(int(t[b if t.shape[0] > 1 else 0] if t.dim() == 1 else head_of(t, b, h)), 0)


CASES: dict[str, tuple[str, Any, Formula]] = {
    "tokens": ("tokens", marks(B, N_K), lambda t, b, h, i, j: bool(t[b, j])),
    "tokens of groups": ("tokens", marks(1, GROUPS, N_K), lambda t, b, h, i, j: bool(head_of(t, b, h)[j])),
    "columns": ("columns", entries(B, HEADS, 9), listed(lambda i, j: j)),
    "columns of int32": ("columns", integers(-2, 60, 1, 1, 9).to(torch.int32), listed(lambda i, j: j)),
    "no columns": ("columns", entries(B, 1, 1), listed(lambda i, j: j)),
    "columns in blocks": ("columns(blocks)", entries(B, GROUPS, 3, most=4), listed(lambda i, j: j // BLOCK)),
    "slashes": ("slashes", entries(B, HEADS, 12), listed(lambda i, j: i - j)),
    "slashes in blocks": ("slashes(blocks)", entries(B, 1, 3, most=4), listed(lambda i, j: i // BLOCK - j // BLOCK)),
    "slashes of tiles": ("slashes(tiles)", entries(B, HEADS, 4), tiles),
    "rows": ("rows", entries(B, GROUPS, N_Q, 7), rows(1)),
    "rows in blocks": ("rows(blocks)", entries(1, HEADS, N_Q, 3, most=4), rows(BLOCK)),
    "cells": ("blocks", marks(B, HEADS, 3, 5), cells(BLOCK, BLOCK)),
    "small cells": ("blocks(3, 7)", marks(1, GROUPS, 8, 8), cells(3, 7)),
    "counts": (
        "blocks(5, 1b)",
        (integers(-1, 5, B, GROUPS, 5), entries(B, GROUPS, 5, 4, most=4)),
        pairs(5, BLOCK),
    ),
    "labels": ("labels", (integers(-1, 3, B, HEADS, N_Q), integers(-1, 3, 1, GROUPS, N_K)), labels),
    "tree": ("tree", PARENTS, tree),
}


def expected(value: Any, formula: Formula) -> Tensor:
    return torch.tensor(
        [
            [[[formula(value, b, h, i, j) for j in range(N_K)] for i in range(START, N_K)] for h in range(HEADS)]
            for b in range(B)
        ]
    )


def meaning(text: str, inputs: Mapping[str, Any], block: int = BLOCK) -> Tensor:
    pattern = sparsec.parse(f"pattern p {{ heads {HEADS} kv {GROUPS}  block {block}  {text} }}").pattern()
    return pattern.mask(N_Q, N_K, inputs=inputs)


@pytest.mark.parametrize(("kind", "value", "formula"), CASES.values(), ids=CASES)
def test_each_kind(kind: str, value: Any, formula: Formula) -> None:
    found = meaning(f"input x : {kind}  attend x", {"x": value})
    wanted = expected(value, formula)
    assert found.shape[0] == (
        B if any(t.shape[0] > 1 for t in (value if isinstance(value, tuple) else (value,))) else 1
    )
    assert torch.equal(found.expand_as(wanted), wanted)
    mixed = meaning(f"input x : {kind}  causal  attend (full - x) | x & window(4) & ~sink(2)", {"x": value})
    i, j = torch.arange(START, N_K)[:, None], torch.arange(N_K)[None, :]
    causal = j <= i
    assert torch.equal(mixed.expand_as(wanted), causal & (~wanted | (i - j < 4) & (j >= 2)))


LENGTHS = torch.tensor([[0, 3, -5, 40], [7, 0, 100, 2**31 - 1]])


@pytest.mark.parametrize("value", [LENGTHS, LENGTHS[:, :2], LENGTHS[:, :1], LENGTHS[:, 0], LENGTHS[1, :1]], ids=str)
def test_lengths(value: Tensor) -> None:
    """Of 0, and less, every term is empty, whatever `ahead` is."""

    def holds(name: str) -> Formula:
        def formula(t: Tensor, b: int, h: int, i: int, j: int) -> bool:
            n = length(t, b, h)
            match name:
                case "sink(n)":
                    return j < n
                case "window(n)":
                    return 0 <= i - j < n
                case "window(n, ahead = 3)":
                    return n > 0 and -3 <= i - j < n
                case "columns(2 .. n)":
                    return 2 <= j < n
                case "columns(n ..)":
                    return n <= j
                case "columns(n .. -4)":
                    return n <= j < N_K - 4
                case "columns(-20 .. n)":
                    return N_K - 20 <= j < n
                case "rows(.. n)":
                    return i < n
                case _:
                    return n <= i
            raise AssertionError(name)

        return formula

    terms = ("sink(n)", "window(n)", "window(n, ahead = 3)", "columns(2 .. n)", "columns(n ..)", "columns(n .. -4)")
    for term in (*terms, "columns(-20 .. n)", "rows(.. n)", "rows(n ..)"):
        wanted = expected(value, holds(term))
        assert torch.equal(meaning(f"input n : length  attend {term}", {"n": value}).expand_as(wanted), wanted), term


def test_a_length_of_0_ends_a_range_of_rows_before_the_first_key() -> None:
    text = "pattern p { input n : length  attend rows(.. n) }"
    found = sparsec.parse(text).pattern().mask(5, 2, heads=1, inputs={"n": torch.tensor([0])})
    assert not found.any()


def test_queries_before_the_first_key() -> None:
    """Row r of `blocks` is tile row q0 // m + r, where q0 may be negative."""
    value = marks(1, 1, 4, 2)
    found = (
        sparsec.parse("pattern p { input x : blocks(3, 2)  attend x }")
        .pattern()
        .mask(7, 3, heads=1, inputs={"x": value})
    )
    wanted = [[bool(value[0, 0, i // 3 + 2, j // 2]) for j in range(3)] for i in range(-4, 3)]
    assert torch.equal(found[0, 0], torch.tensor(wanted))


BOUNDS = (0, 13, 13, 14, 40)


def packed(text: str, inputs: Mapping[str, Any]) -> Tensor:
    resolved = sparsec.parse(f"pattern p {{ heads 1  block 16  {text} }}").pattern().resolve()
    return mask(resolved, 40, 40, cu_seqlens=BOUNDS, inputs=inputs)[0, 0]


def test_documents_that_restart_look_tensors_up_by_the_row_of_the_call_and_count_positions_from_their_start() -> None:
    row, column = torch.arange(40)[:, None], torch.arange(40)[None, :]
    document = torch.bucketize(torch.arange(40), torch.tensor(BOUNDS[1:]), right=True)
    start = torch.tensor(BOUNDS)[document]
    same = document[:, None] == document[None, :]
    i, j = row - start[:, None], column - start[None, :]
    wanted: dict[str, tuple[Any, Tensor]] = {}
    chosen = marks(1, 40)
    wanted["tokens"] = chosen, chosen.expand(40, 40)
    wanted["columns"] = torch.tensor([[[2, 5, 20]]]), (j == 2) | (j == 5) | (j == 20)
    wanted["slashes"] = torch.tensor([[[3, 1]]]), (i - j == 3) | (i - j == 1)
    of_row = integers(0, 20, 1, 1, 40, 2)
    wanted["rows"] = of_row, (of_row[0, 0, :, :1] == j) | (of_row[0, 0, :, 1:] == j)
    cell = marks(1, 1, 5, 5)
    wanted["blocks(8, 9)"] = cell, cell[0, 0][i // 8, j // 9]
    label = integers(-1, 2, 1, 1, 40)
    same_label = (label[0, 0][:, None] == label[0, 0][None, :]) & (label[0, 0] >= 0)
    wanted["labels"] = (label, label), same_label
    for kind, (value, pairs_of) in wanted.items():
        found = packed(f"documents restart  input x : {kind}  attend x", {"x": value})
        assert torch.equal(found, same & pairs_of), kind
    found = packed("documents restart  input n : length  attend sink(n)", {"n": torch.tensor([3])})
    assert torch.equal(found, same & (j < 3))
    found = packed("documents  input x : columns  attend x", {"x": torch.tensor([[[2, 5, 20]]])})
    assert torch.equal(found, same & ((column == 2) | (column == 5) | (column == 20)))


def test_parents_that_do_not_come_before_their_child_are_none() -> None:
    found = sparsec.parse("pattern p { input x : tree  attend x }").pattern()
    cycle = found.mask(4, 4, heads=1, inputs={"x": torch.tensor([[2, 0, 1, 2**40]])})
    assert torch.equal(cycle[0, 0], torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]).bool())


WRONG: list[tuple[str, Any, str]] = [
    ("columns", torch.zeros(2, 3, 5, dtype=torch.int32), r"X is 1 or 2 or 4; got int32 \[2, 3, 5\]"),
    ("columns", torch.zeros(2, 1, 5), r"as int32 or int64 \[B, X, c\].*got float32 \[2, 1, 5\]"),
    ("tokens", torch.zeros(2, N_Q, dtype=torch.bool), r"bool \[B, Nk\], where Nk is 50; got bool \[2, 21\]"),
    ("rows", torch.zeros(1, 1, N_K, 2, dtype=torch.int32), r"Nq is 21; got"),
    ("rows", torch.zeros(1, 1, 2, dtype=torch.int32), r"\(rows\) as int32 or int64 \[B, X, Nq, c\]"),
    (
        "blocks",
        torch.zeros(1, 1, 2, 4, dtype=torch.bool),
        r"Qb is at least 3, Kb is at least 4; got bool \[1, 1, 2, 4\]",
    ),
    ("blocks(8, 8)", (torch.zeros(1, 1, 9), torch.zeros(1, 1, 9)), r"blocks\(8, 8\)\) as bool .*, or a pair"),
    (
        "blocks",
        (torch.zeros(1, 1, 3, dtype=torch.int32), torch.zeros(1, 2, 3, 4, dtype=torch.int32)),
        r"a pair \(int32 or int64 \[B, X, Qb\]; int32 or int64 \[B, X, Qb, c\]\)",
    ),
    ("labels", torch.zeros(1, 1, N_K, dtype=torch.int32), "a pair"),
    ("tree", torch.zeros(1, N_K + 1, dtype=torch.int32), r"n is at most 50; got int32 \[1, 51\]"),
    ("columns", "here", "as a tensor or a pair of tensors, got 'here'"),
    ("columns", None, "as a tensor or a pair of tensors, got None"),
]


@pytest.mark.parametrize(("kind", "value", "message"), WRONG, ids=[f"{n} {w[0]}" for n, w in enumerate(WRONG)])
def test_wrong_tensors(kind: str, value: Any, message: str) -> None:
    with pytest.raises(CallError, match=message):
        meaning(f"input x : {kind}  attend x", {"x": value})


def test_wrong_names_and_batches() -> None:
    text = "input x : tokens  input y : tokens  attend x | y"
    with pytest.raises(CallError, match=r"expected inputs \['x', 'y'\], got \['x', 'z'\]"):
        meaning(text, {"x": marks(1, N_K), "z": marks(1, N_K)})
    with pytest.raises(CallError, match=r"one batch size, or 1, got \[2, 3\]"):
        meaning(text, {"x": marks(2, N_K), "y": marks(3, N_K)})
    assert meaning(text, {"x": marks(1, N_K), "y": marks(3, N_K)}).shape[0] == 3


def test_weights_are_no_part_of_the_mask() -> None:
    text = "input x : tokens  input w : weights  key_bias w  attend x"
    chosen = marks(2, N_K)
    assert torch.equal(meaning(text, {"x": chosen}), meaning(text, {"x": chosen, "w": torch.zeros(2, 1, N_K)}))


def test_key_bias_counts_merged_keys() -> None:
    """A key that stands for n equal ones, with bias log n, is as good as all of them; for none, as good as gone."""
    q, k, v = (
        torch.randn(2, heads, n, 8, generator=GENERATOR, dtype=torch.float64) for heads, n in ((4, 3), (2, 5), (2, 5))
    )
    counts = torch.tensor([[[1, 3, 0, 2, 1]], [[0, 0, 1, 1, 4]]])
    bias = counts.double().log().requires_grad_()
    seen = torch.ones(1, 3, 5, dtype=torch.bool)
    out, lse = attention(q, k, v, seen, Score(None, (KeyBias(0),)), key_bias=bias)
    for b in range(2):
        keys, values = (t[b : b + 1].repeat_interleave(counts[b, 0], dim=2) for t in (k, v))
        whole = attention(q[b : b + 1], keys, values, torch.ones(1, 3, keys.shape[2], dtype=torch.bool))
        torch.testing.assert_close((out[b : b + 1], lse[b : b + 1]), whole)
    out.sum().backward()
    assert bias.grad is not None and bias.grad.isfinite().all() and bias.grad[0, 0, 1] != 0


def test_key_bias_of_minus_infinity_alone_leaves_an_empty_row() -> None:
    q, k = torch.randn(1, 1, 2, 8), torch.randn(1, 1, 3, 8)
    bias = torch.full((1, 1, 3), float("-inf"))
    score = Score(None, (KeyBias(0),))
    out, lse = attention(
        q, k, k.new_full(k.shape, float("nan")), torch.ones(1, 2, 3, dtype=torch.bool), score, key_bias=bias
    )
    assert (out == 0).all() and (lse == float("-inf")).all()
    sunk = Score(None, (KeyBias(0), LearnedSink()))
    out, lse = attention(q, k, k, torch.ones(1, 2, 3, dtype=torch.bool), sunk, key_bias=bias, sink=torch.zeros(1))
    assert (out == 0).all() and (lse == 0).all()
    with pytest.raises(CallError, match="expected key_bias"):
        attention(q, k, k, torch.ones(1, 2, 3, dtype=torch.bool), score)


def test_a_mask_may_have_a_batch() -> None:
    q, k, v = (torch.randn(2, heads, n, 8, generator=GENERATOR) for heads, n in ((4, 3), (2, 5), (2, 5)))
    seen = marks(2, 4, 3, 5)
    v[:, :, :, 0] = torch.where(seen.view(2, 2, 2, 3, 5).any((2, 3)), 1.0, float("nan"))
    out, lse = attention(q, k, v, seen)
    for b in range(2):
        alone = attention(q[b : b + 1], k[b : b + 1], v[b : b + 1], seen[b])
        assert torch.equal(out[b : b + 1], alone[0]) and torch.equal(lse[b : b + 1], alone[1])
    assert out.isfinite().all()

"""Single functions of templates/triton/kernels, run in Triton's interpreter."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from triton_harness import in_interpreter, interpreted, passes_in_the_interpreter

sys.path.insert(0, str(Path(__file__).parents[2] / "templates" / "triton"))

from kernels.exact import attempts_of, load_piece, seen_weights, store_piece
from kernels.floors import floor_div, floor_mod
from kernels.limits import between, columns_from, has_column
from kernels.modifiers.softcap import tanh
from kernels.softmax import weigh
from kernels.tiles import add_rows, load_rows, product

NAN, INF = math.nan, math.inf


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


@triton.jit
def divided(left, right, quotient, remainder):
    at = tl.arange(0, 64)
    tl.store(quotient + at, floor_div(tl.load(left + at), tl.load(right + at)))
    tl.store(remainder + at, floor_mod(tl.load(left + at), tl.load(right + at)))


@in_interpreter
def test_division_rounds_toward_minus_infinity() -> None:
    left = torch.arange(-32, 32, dtype=torch.int32)
    right = torch.tensor([1, 3, 7, 16] * 16, dtype=torch.int32)
    quotient, remainder = torch.empty_like(left), torch.empty_like(left)
    divided[(1,)](left, right, quotient, remainder)
    assert torch.equal(quotient, left // right) and torch.equal(remainder, left % right)


@triton.jit
def limited(lower, upper, out):
    row, column = tl.arange(0, 8)[:, None], tl.arange(0, 16)[None, :]
    tl.store(out + row * 16 + column, between(column, tl.load(lower + row), tl.load(upper + row)).to(tl.int32))


@in_interpreter
def test_columns_between_two_limits() -> None:
    """However far a limit lies from the tile; no column where the lower one is above the upper one."""
    far = 1 << 30
    lower = torch.tensor([0, 3, -7, -far, 5, far, 15, 4 - 2 * far], dtype=torch.int32)
    upper = torch.tensor([16, 9, 1, far, 5, -far, 2 * far - 1, -1], dtype=torch.int32)
    found, column = torch.empty(8, 16, dtype=torch.int32), torch.arange(16)
    limited[(1,)](lower, upper, found)
    assert torch.equal(found.bool(), (column >= lower[:, None]) & (column < upper[:, None]))


@triton.jit
def worded(lower, upper, out):
    row, column = tl.arange(0, 16)[:, None], tl.arange(0, 64)[None, :]
    lower, upper = tl.load(lower + row), tl.load(upper + row)
    first = columns_from(lower, 0) & ~columns_from(upper, 0)
    second = columns_from(lower, 32) & ~columns_from(upper, 32)
    found = has_column(tl.where(column < 32, first, second), column)
    tl.store(out + row * 64 + column, found.to(tl.int32))


@in_interpreter
def test_columns_of_a_word() -> None:
    """Of two words of 32 columns, however far a limit lies from the tile."""
    far = 1 << 30
    lower = torch.tensor([0, 1, 31, 32, 33, 63, 64, far, -far, 5, 30, 0, -7, -1, 12, 40], dtype=torch.int32)
    upper = torch.tensor([64, 63, 33, 64, 34, 64, far, 5, far, -far, 31, 32, 1, 0, 12, 39], dtype=torch.int32)
    found, column = torch.empty(16, 64, dtype=torch.int32), torch.arange(64)
    worded[(1,)](lower, upper, found)
    assert torch.equal(found.bool(), (column >= lower[:, None]) & (column < upper[:, None]))


@triton.jit
def bent(x, out, WIDE: tl.constexpr):
    at = tl.arange(0, 64)
    tl.store(out + at, tanh(tl.load(x + at), WIDE))


@in_interpreter
def test_tanh_is_accurate_near_0_where_asked() -> None:
    x = torch.cat([torch.linspace(-1e-3, 1e-3, 32), torch.linspace(-9.0, 9.0, 32)])
    wide, narrow = torch.empty_like(x), torch.empty_like(x)
    bent[(1,)](x, wide, True)
    bent[(1,)](x, narrow, False)
    torch.testing.assert_close(wide, x.tanh(), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(narrow, x.tanh(), rtol=0.0, atol=1e-6)


@triton.jit
def piece_of(source, out, attempt, SIGNED: tl.constexpr):
    row = tl.arange(0, 4)[:, None]
    (piece,) = load_piece(source + row * 8, row < 3, attempt, 4, 6, SIGNED)
    tl.store(out + row * 4 + tl.arange(0, 4)[None, :], piece)


@in_interpreter
@pytest.mark.parametrize(
    ("attempt", "signed", "first"),
    [
        (0, True, [1.0, 0.0, 0.0, 0.0]),
        (1, True, [0.0, 1.0, 1.0, 0.0]),
        (2, True, [0.0, 1.0, 0.0, 1.0]),
        (1, False, [0.0, 1.0, 1.0, 1.0]),
        (2, False, [0.0, 1.0, 1.0, 1.0]),
        (3, True, [5.0, 0.0, 0.0, 0.0]),
        (4, True, [0.0, 1.0, 0.0, 0.0]),
    ],
)
def test_what_an_attempt_sums(attempt: int, signed: bool, first: list[float]) -> None:
    """Attempts from 3 on are of the second piece, which has 2 columns; row 3 is not inside."""
    row = torch.tensor([1.0, NAN, INF, -INF, 5.0, NAN, INF, 7.0])
    out = torch.empty(4, 4)
    piece_of[(1,)](row.repeat(4), out, attempt, signed)
    assert out.tolist() == [first] * 3 + [[0.0] * 4]


@triton.jit
def marked(sums, out, attempt, ADD: tl.constexpr):
    row = tl.arange(0, 2)
    piece = tl.load(sums + row[:, None] * 4 + tl.arange(0, 4)[None, :])
    for each in tl.range(attempt, attempt + 1):
        store_piece(piece, 2.0, out, row[:, None] * 4, row < 1, each, 4, 4, ADD)


@in_interpreter
@pytest.mark.parametrize("add", [False, True])
def test_marks_make_infinities_and_nan(add: bool) -> None:
    out = torch.tensor([[1.0] * 4, [9.0] * 4])
    for attempt, sums in enumerate([[3.0, 3.0, 3.0, 3.0], [0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 1.0, 1.0]]):
        marked[(1,)](torch.tensor([sums, sums]), out, attempt, add)
    finite = 7.0 if add else 6.0
    assert str(out.tolist()) == str([[finite, INF, -INF, NAN], [9.0] * 4])


@triton.jit
def attempts(sums, out):
    tile = (tl.load(sums + tl.arange(0, 4)[:, None] * 4 + tl.arange(0, 4)[None, :]),)
    tl.store(out, attempts_of(tile, 6))


@in_interpreter
@pytest.mark.parametrize(("value", "expected"), [(-3.5, 0), (0.0, 0), (NAN, 6), (INF, 6), (-INF, 6)])
def test_only_sums_that_are_not_finite_ask_for_attempts(value: float, expected: int) -> None:
    sums, out = torch.ones(4, 4), torch.empty(1, dtype=torch.int32)
    sums[2, 1] = value
    attempts[(1,)](sums, out)
    assert out.item() == expected


@triton.jit
def weights_of(weights, seen, out, attempt):
    at = tl.arange(0, 4)
    tl.store(out + at, seen_weights(tl.load(weights + at), tl.load(seen + at), attempt))


@in_interpreter
@pytest.mark.parametrize(("attempt", "expected"), [(0, [0.5, 0.0, 2.0, 0.0]), (1, [1.0, 0.0, 1.0, 1.0])])
def test_what_is_seen_weighs_1_in_later_attempts(attempt: int, expected: list[float]) -> None:
    weights, seen = torch.tensor([0.5, 0.0, 2.0, 0.0]), torch.tensor([True, False, True, True])
    out = torch.empty(4)
    weights_of[(1,)](weights, seen, out, attempt)
    assert out.tolist() == expected


@triton.jit
def products(left, right, scores, sums):
    CHUNKS: tl.constexpr = ((0, 16, None), (16, 16, 24))
    row = tl.arange(0, 16)
    a = load_rows(left, row[:, None] * 24, row < 16, CHUNKS, tl.float32)
    b = load_rows(right, row[:, None] * 24, row < 16, CHUNKS, tl.float32)
    found = product(a, b, tl.float32, "ieee")
    tl.store(scores + row[:, None] * 16 + row[None, :], found)
    zeros = (tl.zeros([16, 16], tl.float32), tl.zeros([16, 16], tl.float32))
    added = add_rows(found, b, zeros, tl.float32, "ieee")
    tl.store(sums + row[:, None] * 32 + row[None, :], added[0])
    tl.store(sums + row[:, None] * 32 + row[None, :] + 16, added[1])


@in_interpreter
def test_products_of_tiles_in_chunks() -> None:
    left, right = torch.randn(16, 24), torch.randn(16, 24)
    scores, sums = torch.empty(16, 16), torch.empty(16, 32)
    products[(1,)](left, right, scores, sums)
    torch.testing.assert_close(scores, left @ right.T)
    torch.testing.assert_close(sums[:, :24], scores @ right)
    assert not sums[:, 24:].any(), "columns that do not exist are 0"


@triton.jit
def weighed(scores, live, p_out, rows_out):
    row, column = tl.arange(0, 4), tl.arange(0, 4)
    at = row[:, None] * 4 + column[None, :]
    high = tl.full([4], float("-inf"), tl.float32)
    p, decay, high = weigh(tl.load(scores + at), tl.load(live + at), high, 2.0, True)
    tl.store(p_out + at, p)
    tl.store(rows_out + row, high)
    tl.store(rows_out + 4 + row, decay)


@in_interpreter
def test_weights_of_a_row_that_sees_nothing_are_0() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, NAN]).repeat(4, 1)
    live = torch.tensor([[True, True, True, False], [True, False, False, False], [False] * 4, [True] * 4])
    p, rows = torch.empty(4, 4), torch.empty(2, 4)
    weighed[(1,)](scores, live, p, rows)
    assert p[:3].tolist() == [[2.0**-4, 2.0**-2, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0] * 4]
    assert rows[0, :3].tolist() == [6.0, 2.0, -INF] and rows[1, :3].tolist() == [0.0] * 3

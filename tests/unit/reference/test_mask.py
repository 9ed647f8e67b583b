"""The reference mask against each term's formula, written again here pair by pair in plain integers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.reference import mask

B = 16
Formula = Callable[[int, int, int], bool]


def splitmix(seed: int, lane: int, qb: int, t: int) -> int:
    wrap = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + lane * 0xBF58476D1CE4E5B9 + qb * 0x94D049BB133111EB + t + 1) & wrap
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & wrap
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & wrap
    return z ^ (z >> 31)


CASES: dict[str, Formula] = {
    "full": lambda i, j, n: True,
    "none": lambda i, j, n: False,
    "causal": lambda i, j, n: j <= i,
    "window(1)": lambda i, j, n: i == j,
    "window(5)": lambda i, j, n: 0 <= i - j < 5,
    "window(5, ahead = 2)": lambda i, j, n: -2 <= i - j < 5,
    "window(2b)": lambda i, j, n: 0 <= i // B - j // B < 2,
    "window(2b, ahead = 1b)": lambda i, j, n: -1 <= i // B - j // B < 2,
    "sink(3)": lambda i, j, n: j < 3,
    "sink(1b)": lambda i, j, n: j // B < 1,
    "sink(0)": lambda i, j, n: False,
    "stride(5, phase = -1)": lambda i, j, n: j % 5 == 4,
    "stride(2b, phase = 3)": lambda i, j, n: j // B % 2 == 1,
    "dilated(3, phase = 4)": lambda i, j, n: (i - j) % 3 == 1,
    "dilated(2b)": lambda i, j, n: (i // B - j // B) % 2 == 0,
    "chunk(7)": lambda i, j, n: i // 7 == j // 7,
    "chunk(7, back = 1)": lambda i, j, n: 0 <= i // 7 - j // 7 <= 1,
    "chunk(7, ahead = 2)": lambda i, j, n: -2 <= i // 7 - j // 7 <= 0,
    "chunk(1b, back = 1, ahead = 1)": lambda i, j, n: abs(i // B - j // B) <= 1,
    "near2d(width = 9, rows = 1, columns = 2)": lambda i, j, n: abs(i // 9 - j // 9) <= 1 and abs(i % 9 - j % 9) <= 2,
    "near2d(width = 9, rows = 0, columns = 9)": lambda i, j, n: i // 9 == j // 9,
    "near2d(width = 4, rows = 2, columns = 0)": lambda i, j, n: abs(i // 4 - j // 4) <= 2 and i % 4 == j % 4,
    "near2d(width = 1, rows = 3, columns = 0)": lambda i, j, n: abs(i - j) <= 3,
    "chunk(2b)": lambda i, j, n: i // 32 == j // 32,
    "columns(2 .. 9)": lambda i, j, n: 2 <= j < 9,
    "columns(-5 ..)": lambda i, j, n: j >= n - 5,
    "columns(.. -5)": lambda i, j, n: j < n - 5,
    "columns(-2b .. -1b)": lambda i, j, n: -(-n // B) - 2 <= j // B < -(-n // B) - 1,
    "rows(2 .. 9)": lambda i, j, n: 2 <= i < 9,
    "rows(-5 ..)": lambda i, j, n: i >= n - 5,
    "rows(1b .. 2b)": lambda i, j, n: i // B == 1,
    "global(3)": lambda i, j, n: i < 3 or j < 3,
    "global(1b)": lambda i, j, n: i // B < 1 or j // B < 1,
    "random(2, seed = 9)": lambda i, j, n: any(
        j // B == splitmix(9, 0, i // B, t) % (i // B + 1) for t in range(2) if i >= 0
    ),
    "random(3, lane = -4)": lambda i, j, n: any(
        j // B == splitmix(0, -4, i // B, t) % (i // B + 1) for t in range(3) if i >= 0
    ),
    "window(5) | sink(2)": lambda i, j, n: 0 <= i - j < 5 or j < 2,
    "causal & stride(3)": lambda i, j, n: j <= i and j % 3 == 0,
    "causal - window(4) - sink(1)": lambda i, j, n: j <= i and not 0 <= i - j < 4 and j >= 1,
    "~causal & ~sink(4)": lambda i, j, n: j > i and j >= 4,
}


@pytest.mark.parametrize("text", CASES)
@pytest.mark.parametrize(("n_q", "n_k", "offset"), [(50, 50, None), (7, 53, None), (20, 12, None), (9, 40, 3)])
def test_term(text: str, n_q: int, n_k: int, offset: int | None) -> None:
    pattern = sparsec.parse(f"pattern p {{ block {B}  attend {text} }}").pattern()
    found = mask(pattern.resolve(1), n_q, n_k, offset)[0]
    start = n_k - n_q if offset is None else offset
    expected = [[CASES[text](start + row, j, n_k) for j in range(n_k)] for row in range(n_q)]
    assert torch.equal(found, torch.tensor(expected))


def test_heads_and_arms() -> None:
    text = "pattern p { heads 8 kv 4  causal  where g in [1, 3] attend full  otherwise attend window(h + 1) }"
    found = sparsec.parse(text).pattern().mask(30, 30)
    for head in range(8):
        expected = [[j <= i and (head // 2 in (1, 3) or i - j < head + 1) for j in range(30)] for i in range(30)]
        assert torch.equal(found[head], torch.tensor(expected))


def test_refusals() -> None:
    pattern = sparsec.parse("pattern p { attend full }").pattern()
    with pytest.raises(CallError, match="at most 268435456 pairs"):
        pattern.mask(2**14, 2**14 + 1, heads=1)
    with pytest.raises(CallError, match="at least 0"):
        pattern.mask(-1, 4, heads=1)
    assert pattern.mask(0, 0, heads=2).shape == (2, 0, 0)
    with pytest.raises(CallError, match=r"expected inputs \['x'\], got \[\]"):
        sparsec.parse("pattern p { input x : length  attend sink(x) }").pattern().mask(4, 4, heads=1)

"""Random contents of inputs: right shapes and numbers, at the density or count asked for."""

from __future__ import annotations

import pytest
import torch

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.reference.mask import mask
from sparsec.reference.parts import InputTensors
from sparsec.runtime.inputs.checks import flat_inputs
from sparsec.sema.inputs import settled
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.shapes import Sizes
from sparsec.testing.contents import Contents

SHARES = {
    "tokens": "x & causal",
    "columns": "x & causal",
    "columns(blocks)": "x & causal",
    "slashes": "x & causal",
    "slashes(blocks)": "x & causal",
    "rows": "x",
    "rows(blocks)": "x & causal",
    "blocks": "x & causal",
    "blocks(32, 8)": "x & causal",
    "labels": "x & causal",
}
N = 640


def resolved(kind: str, attended: str = "x") -> ResolvedPattern:
    return sparsec.parse(f"pattern p {{ block 16 input x : {kind} attend {attended} }}").pattern().resolve(4, 2)


def drawn(
    pattern: ResolvedPattern, contents: Contents, n_q: int, n_k: int, *, ahead: bool = False
) -> dict[str, InputTensors]:
    sizes = Sizes(3, 4, 2, n_q, n_k, n_k, n_k - n_q)
    (decl,) = settled(pattern.inputs, pattern.block)
    return {decl.name: contents.drawn(decl, sizes, pattern.block, ahead=ahead)}


@pytest.mark.parametrize("kind", SHARES)
def test_the_share_of_pairs_is_the_density(kind: str) -> None:
    pattern = resolved(kind, SHARES[kind])
    found = mask(pattern, N, N, inputs=drawn(pattern, Contents(0.2), N, N)).sum()
    assert 0.16 < float(found) / (4 * N * (N + 1) / 2) < 0.24


@pytest.mark.parametrize("kind", ["tokens", "blocks", "labels"])
def test_a_count_of_marks_is_that_of_a_row(kind: str) -> None:
    pattern = resolved(kind)
    found = mask(pattern, N, N, inputs=drawn(pattern, Contents(count=N // 5 // (16 if kind == "blocks" else 1)), N, N))
    assert 0.16 < float(found.double().mean()) < 0.24


@pytest.mark.parametrize("contents", [Contents(0.0), Contents(1.0), Contents(0.3, seed=4), Contents(count=9)])
@pytest.mark.parametrize("kind", [*SHARES, "length", "tree", "slashes(tiles)"])
@pytest.mark.parametrize(("n_q", "n_k"), [(70, 70), (1, 70), (33, 100), (0, 0)])
def test_a_call_takes_them(kind: str, n_q: int, n_k: int, contents: Contents) -> None:
    pattern = resolved(kind, "window(x)" if kind == "length" else "x")
    given = drawn(pattern, contents, n_q, n_k)
    sizes = Sizes(3, 4, 2, n_q, n_k, n_k, n_k - n_q)
    flat_inputs(settled(pattern.inputs, 16), given, sizes, torch.empty(0), block=16)
    again, other = drawn(pattern, contents, n_q, n_k), drawn(pattern, Contents(0.3, seed=5), n_q, n_k)
    torch.testing.assert_close(given, again, rtol=0, atol=0)
    if kind == "blocks" and contents.seed and n_q > 32:
        assert isinstance(given["x"], torch.Tensor) and isinstance(other["x"], torch.Tensor)
        assert not torch.equal(given["x"], other["x"])


def test_a_count_is_that_of_each_list() -> None:
    pattern = resolved("rows")
    rows = drawn(pattern, Contents(count=9), 70, 70)["x"]
    assert isinstance(rows, torch.Tensor) and rows.shape == (1, 2, 70, 9)
    assert (rows >= 0).sum(-1)[0, 0].tolist() == [min(i + 1, 9) for i in range(70)]
    assert bool((rows <= torch.arange(70)[:, None]).all())
    ahead = drawn(pattern, Contents(count=9), 70, 70, ahead=True)["x"]
    assert isinstance(ahead, torch.Tensor) and bool((ahead >= 0).all()) and bool((ahead[0, 0, 0] > 50).any())


def test_weights_are_normal() -> None:
    pattern = sparsec.parse("pattern p { input w : weights key_bias w attend full }").pattern().resolve(4, 2)
    weights = drawn(pattern, Contents(), 100, 100)["w"]
    assert isinstance(weights, torch.Tensor) and weights.shape == (1, 2, 100) and 0.5 < float(weights.std()) < 1.5


def test_too_many_entries() -> None:
    pattern = resolved("rows")
    with pytest.raises(CallError, match=r"expected at most \d+ random entries of input 'x', got 13744734208: fewer"):
        drawn(pattern, Contents(0.05), 1 << 20, 1 << 17)


def test_words() -> None:
    assert (
        str(Contents(0.05)) == "random:density=0.05,seed=0"
        and str(Contents(count=7, seed=2)) == "random:count=7,seed=2"
    )

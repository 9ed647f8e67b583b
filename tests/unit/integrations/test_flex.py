"""The mask and the score that FlexAttention gets are the pattern's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.integrations.flex import FlexUnavailable, mask_mod, score_mod
from sparsec.reference import attention, mask
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.testing.inputs import drawn_inputs

EXAMPLES = Path(__file__).parents[3] / "examples"
TERMS = [
    "full",
    "none",
    "causal",
    "window(70)",
    "window(2b, ahead = 1b)",
    "sink(5 + h)",
    "stride(3, phase = g)",
    "stride(2b, phase = -h)",
    "dilated(7, phase = h)",
    "chunk(100, back = 1)",
    "chunk(9 + h, ahead = 2)",
    "near2d(width = 20 + h, rows = 2 - g, columns = 3)",
    "columns(10 .. -20)",
    "rows(-2b ..)",
    "global(30)",
    "random(2, seed = 5)",
    "causal & ~(window(50) | sink(3)) - stride(5)",
]


INPUTS = {
    "length": "window(x) | columns(3 .. x) | columns(x ..)",
    "tokens": "x",
    "columns": "x",
    "columns(blocks)": "x",
    "slashes": "x",
    "slashes(blocks)": "x - window(20)",
    "slashes(tiles)": "x",
    "rows": "x",
    "rows(blocks)": "x | sink(5 + h)",
    "blocks": "x",
    "blocks(16, 48)": "x",
    "labels": "x",
    "tree": "x",
}


def flex_mask(pattern: ResolvedPattern, n_q: int, n_k: int, cu_seqlens: Sequence[int] | None = None) -> torch.Tensor:
    test = mask_mod(pattern, n_q, n_k, torch.device("cpu"), cu_seqlens=cu_seqlens)
    head = torch.arange(pattern.heads)[:, None, None]
    found = test(torch.zeros_like(head), head, torch.arange(n_q)[None, :, None], torch.arange(n_k)[None, None, :])
    return found.expand(pattern.heads, n_q, n_k)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize(("n_q", "n_k"), [(200, 200), (67, 193)])
def test_each_term_is_the_reference_formula(term: str, n_q: int, n_k: int) -> None:
    pattern = sparsec.parse(f"pattern p {{ block 32 attend {term} }}").pattern().resolve(4, 2)
    assert torch.equal(flex_mask(pattern, n_q, n_k), mask(pattern, n_q, n_k))


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize(("n_q", "n_k"), [(100, 100), (37, 93)])
@pytest.mark.parametrize("seed", range(6))
def test_inputs(kind: str, n_q: int, n_k: int, seed: int) -> None:
    text = f"pattern p {{ block 32 input x : {kind} where h == 1 attend none otherwise attend {INPUTS[kind]} }}"
    pattern = sparsec.parse(text).pattern().resolve(4, 2)
    given = drawn_inputs(pattern, batch=2, n_q=n_q, n_k=n_k, q_offset=n_k - n_q, seed=seed)
    test = mask_mod(pattern, n_q, n_k, torch.device("cpu"), inputs=given)
    axes = [torch.arange(n).view(-1, *[1] * (3 - axis)) for axis, n in enumerate((2, 4, n_q, n_k))]
    assert torch.equal(test(*axes).expand(2, 4, n_q, n_k), mask(pattern, n_q, n_k, inputs=given).expand(2, -1, -1, -1))


def test_inputs_that_are_not_given_or_of_documents_that_restart() -> None:
    pattern = sparsec.parse("pattern p { input x : tokens documents restart attend x }").pattern().resolve(2, 2)
    marks, at = {"x": torch.ones(1, 9, dtype=torch.bool)}, torch.device("cpu")
    for inputs, bounds in ((None, (0, 9)), (marks, (0, 5, 9))):
        with pytest.raises(FlexUnavailable, match="a set with inputs"):
            mask_mod(pattern, 9, 9, at, cu_seqlens=bounds, inputs=inputs)


def test_heads_of_different_shapes_keep_their_own_sets() -> None:
    text = "pattern p { where h == 1 attend full where h < 3 attend causal & window(9 + h) otherwise attend sink(3) }"
    pattern = sparsec.parse(text).pattern().resolve(5, 5)
    assert torch.equal(flex_mask(pattern, 60, 60), mask(pattern, 60, 60))


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("documents", ["documents", "documents restart"])
def test_documents(term: str, documents: str) -> None:
    pattern = sparsec.parse(f"pattern p {{ block 32 {documents} attend {term} }}").pattern().resolve(4, 2)
    for bounds in ((0, 200), (0, 0, 1, 50, 50, 128, 199, 200, 200)):
        assert torch.equal(flex_mask(pattern, 200, 200, bounds), mask(pattern, 200, 200, cu_seqlens=bounds))


@pytest.mark.parametrize(
    ("documents", "n_q", "bounds"),
    [("", 9, (0, 9)), ("documents", 9, None), ("documents", 5, (0, 9)), ("documents restart", 9, (0, 5, 3, 9))],
)
def test_bounds_that_do_not_fit(documents: str, n_q: int, bounds: Sequence[int] | None) -> None:
    pattern = sparsec.parse(f"pattern p {{ {documents} attend causal }}").pattern().resolve(4, 2)
    with pytest.raises(CallError, match="expected"):
        mask_mod(pattern, n_q, 9, torch.device("cpu"), cu_seqlens=bounds)


@pytest.mark.parametrize("modifiers", ["", "softcap 2", "alibi", "alibi [0.5, 0, 2, 0.1, 0.3, 1]", "softcap 0.5 alibi"])
def test_score(modifiers: str) -> None:
    """Through the reference: the log-sum-exp of the scores that FlexAttention would see."""
    pattern = sparsec.parse(f"pattern p {{ {modifiers} attend causal }}").pattern().resolve(6, 6)
    q, k = torch.randn(1, 6, 30, 8), torch.randn(1, 6, 50, 8)
    bend, scores = score_mod(pattern, 20, torch.device("cpu")), q @ k.mT / 8**0.5
    if bend is not None:
        batch, head, i, j = torch.meshgrid(*map(torch.arange, scores.shape), indexing="ij")
        scores = bend(scores, batch, head, i, j)
    live = mask(pattern, 30, 50)
    _, expected = attention(q, k, k, live, pattern.score)
    torch.testing.assert_close(
        scores.masked_fill(~live, -torch.inf).logsumexp(-1).double(), expected, rtol=1e-5, atol=1e-6
    )
    assert (bend is None) == (not modifiers)


def test_weights_of_keys() -> None:
    pattern = sparsec.parse("pattern p { input w : weights key_bias w softcap 2 attend full }").pattern().resolve(4, 2)
    w, scores = torch.randn(1, 2, 9), torch.randn(1, 4, 5, 9)
    bend = score_mod(pattern, 4, torch.device("cpu"), inputs={"w": w})
    assert bend is not None
    bent = bend(scores, *torch.meshgrid(*map(torch.arange, scores.shape), indexing="ij"))
    expected = 2 * torch.tanh(scores / 2) + w.repeat_interleave(2, 1)[:, :, None]
    torch.testing.assert_close(bent, expected)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sparse")), ids=lambda path: path.stem)
def test_every_example(path: Path) -> None:
    program = sparsec.load(path)
    for name in program.patterns:
        declared = program.pattern(name)
        pattern = declared.resolve(*((None, None) if declared.heads else (8, 4)))
        bounds = None if pattern.documents is Documents.NONE else (0, 200, 350, 500)
        n_q = 300 if bounds is None else 500
        assert torch.equal(flex_mask(pattern, n_q, 500, bounds), mask(pattern, n_q, 500, cu_seqlens=bounds)), name

"""The mask that FlexAttention gets is the pattern's own set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sparsec
from sparsec.integrations.flex import mask_mod
from sparsec.reference import mask
from sparsec.sema.model import Documents, Heads

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
    "columns(10 .. -20)",
    "rows(-2b ..)",
    "global(30)",
    "random(2, seed = 5)",
    "causal & ~(window(50) | sink(3)) - stride(5)",
]


def flex_mask(pattern: Heads, n_q: int, n_k: int) -> torch.Tensor:
    test = mask_mod(pattern, n_q, n_k, torch.device("cpu"))
    head = torch.arange(pattern.heads)[:, None, None]
    found = test(torch.zeros_like(head), head, torch.arange(n_q)[None, :, None], torch.arange(n_k)[None, None, :])
    return found.expand(pattern.heads, n_q, n_k)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize(("n_q", "n_k"), [(200, 200), (67, 193)])
def test_each_term_is_the_reference_formula(term: str, n_q: int, n_k: int) -> None:
    pattern = sparsec.parse(f"pattern p {{ block 32 attend {term} }}").pattern().resolve(4, 2)
    assert torch.equal(flex_mask(pattern, n_q, n_k), mask(pattern, n_q, n_k))


def test_heads_of_different_shapes_keep_their_own_sets() -> None:
    text = "pattern p { where h == 1 attend full where h < 3 attend causal & window(9 + h) otherwise attend sink(3) }"
    pattern = sparsec.parse(text).pattern().resolve(5, 5)
    assert torch.equal(flex_mask(pattern, 60, 60), mask(pattern, 60, 60))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sparse")), ids=lambda path: path.stem)
def test_every_example(path: Path) -> None:
    program = sparsec.load(path)
    for name in program.patterns:
        declared = program.pattern(name)
        pattern = declared.resolve(*((None, None) if declared.heads else (8, 4)))
        if pattern.documents is Documents.NONE:
            assert torch.equal(flex_mask(pattern, 300, 500), mask(pattern, 300, 500)), name
        else:
            assert torch.equal(flex_mask(pattern, 500, 500), mask(pattern, 500, 500, cu_seqlens=(0, 500))), name

"""The inputs of a part of a call say of its pairs what those of the whole call say."""

from __future__ import annotations

import pytest
import torch

import sparsec
from sparsec.reference.mask import mask
from sparsec.reference.parts import inputs_of_part
from sparsec.testing.inputs import drawn_inputs

N = 90
KINDS = ["length", "tokens", "columns", "slashes", "rows", "rows(blocks)", "blocks", "blocks(10, 25)", "labels"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("start", [0, 23])
def test_rows_and_keys(kind: str, seed: int, start: int) -> None:
    attended = "window(x)" if kind == "length" else "x"
    text = f"pattern p {{ block 16 input x : {kind} attend {attended} }}"
    pattern = sparsec.parse(text).pattern().resolve(4, 2)
    given = drawn_inputs(pattern, batch=2, n_q=N, n_k=N, q_offset=start, seed=seed)
    whole = mask(pattern, N, N, start, inputs=given)
    for first, last, end in ((0, 1, 1), (5, 33, 33), (31, 48, 90), (89, 90, 90), (0, 90, 64)):
        part = inputs_of_part(pattern, given, queries=(first, last), keys=(0, end), start=start)
        assert torch.equal(mask(pattern, last - first, end, start + first, inputs=part), whole[:, :, first:last, :end])


def test_drafts_are_the_last_of_the_keys() -> None:
    pattern = sparsec.parse("pattern p { input x : tree attend x }").pattern().resolve(1, 1)
    part = inputs_of_part(pattern, {"x": torch.tensor([[-1, 0, 0]])}, queries=(0, 2), keys=(0, 2))
    assert mask(pattern, 2, 2, inputs=part)[0, 0].tolist() == [[True, False], [True, True]]

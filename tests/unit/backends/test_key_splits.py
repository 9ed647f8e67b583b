"""Which gradients of keys programs may share, by the source of their kernels."""

from __future__ import annotations

import pytest

import sparsec
from sparsec.backends.triton.emit import emit_triton_backward
from sparsec.pipeline import Compilation, Lowered

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("causal attend full", [True]),
        ("causal attend window(100)", [False]),
        ("attend window(100, ahead = 50)", [False]),
        ("causal attend window(100) | sink(4)", [True]),
        ("causal block 16 attend stride(4b)", [True]),
        ("attend window(9, ahead = 9) | columns(.. 8)", [True]),
        ("documents causal attend full", [True]),
        ("causal block 16 attend random(2b, seed = 1)", [True]),
        ("causal where h < 2 attend window(9) otherwise attend full", [False, True]),
        ("causal input lean : weights key_bias lean attend full", [False]),
        ("causal input wanted : blocks attend wanted", [False]),
        ("causal input begun : length attend window(9) | sink(begun)", [False]),
    ],
)
def test_key_tiles_that_the_more_queries_see_the_more_there_are(text: str, shared: list[bool]) -> None:
    plan = Compilation(
        Lowered(sparsec.parse(f"pattern p {{ {text} }}").pattern().resolve(4, 2)), 64, 64, "bfloat16", "cuda:90"
    ).backward
    source = emit_triton_backward(plan)
    assert [f"def count_grad_keys_{n}(" in source for n in range(len(plan.transposed))] == shared
    assert source.count("SPLIT: tl.constexpr") == 2 * sum(shared)

"""Kernels for values of another width than keys, compiled ahead of time: they find room on every target."""

from __future__ import annotations

import os

import pytest
from spilling import MOST, OTHERS

from sparsec.backends.triton.backend import BACKEND
from sparsec.pipeline import Compilation, Lowered
from sparsec.sema import model as m

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [pytest.mark.kernels, pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")]
NAMES = {
    "forward": ["forward_0"],
    "backward": ["row_sums", "grad_queries_0", "grad_keys_0", "key_mass_0"],
    "cached": ["attend_0", "decode_0", "merge", "store"],
}
WITHOUT_PRODUCTS = ("row_sums", "merge", "store")

MOST_OF_WIDE = 272
"""Bytes a thread that gradients of heads of more than 256 columns may spill, under any release."""


def check(target: str, head_dim: int, value_dim: int, parts: tuple[str, ...]) -> None:
    """A sink, a window and strided blocks, one phase a KV group of four heads."""
    terms = tuple(
        m.Intersection(
            (m.Causal(), m.Union((m.Sink(64, False), m.Window(8, 0, True), m.Stride(16, -(h // 4) % 16, True))))
        )
        for h in range(8)
    )
    pattern = m.ResolvedPattern(8, 2, terms, 64, (), m.Documents.NONE, m.Score())
    compilation = Compilation(Lowered(pattern), head_dim, value_dim, "bfloat16", target)
    records = BACKEND.build(compilation, parts, lambda part: None).kernels
    assert [record.name for record in records] == [name for part in parts for name in NAMES[part]]
    for record in records:
        assert record.problems == ()
        spilt = max(record.spills or 0, record.stack_bytes or 0)
        most = MOST_OF_WIDE if head_dim > 256 else MOST
        assert spilt <= (OTHERS if record.name.startswith(("forward_", "attend_")) else most), record
        assert (record.tensor_core_instructions or 0) >= 16 or record.name in WITHOUT_PRODUCTS


@pytest.mark.parametrize(("head_dim", "value_dim"), [(192, 128), (576, 512)])
@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"])
def test_both_passes(target: str, head_dim: int, value_dim: int) -> None:
    check(target, head_dim, value_dim, ("forward", "backward"))


@pytest.mark.parametrize(
    ("target", "head_dim", "value_dim"), [("cuda:80", 192, 128), ("cuda:90", 576, 512), ("hip:gfx942", 576, 512)]
)
def test_over_a_cache(target: str, head_dim: int, value_dim: int) -> None:
    check(target, head_dim, value_dim, ("cached",))

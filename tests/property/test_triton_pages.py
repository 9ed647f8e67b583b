"""Attention over pages by the Triton kernels, in Triton's interpreter, of drawn patterns and requests."""

from __future__ import annotations

from functools import cache

import pytest
from cached_patterns import causal_patterns
from hypothesis import given, note
from paged_requests import Drawn, check_paged, drawn_requests
from triton_harness import in_interpreter, passes_in_the_interpreter
from vacuity import examples, wanted

import sparsec
from sparsec.backends.triton.kernel import interpreted
from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import ResolvedPattern
from sparsec.testing import sparse_text

DRAWN = wanted(3, at_night=20)


@pytest.mark.skipif(interpreted(), reason="already there")
def test_in_the_interpreter() -> None:
    passes_in_the_interpreter(__file__)


@cache
def on_triton(text: str, heads: int, kv_heads: int) -> SparseAttention:
    return sparsec.compile(
        text, heads=heads, kv_heads=kv_heads, head_dim=8, value_dim=12, target="triton", device="cpu"
    )


@in_interpreter
def test_drawn_patterns_over_pages() -> None:
    seen: set[str] = set()

    @examples(DRAWN)
    @given(causal_patterns((16, 32), inputs=True, scored=True), drawn_requests(90, most=3))
    def check(pattern: ResolvedPattern, drawn: Drawn) -> None:
        text = sparse_text(pattern)
        note(text)
        seen.add(text)
        check_paged(on_triton(text, pattern.heads, pattern.kv_heads), pattern, drawn, check_inputs=False)

    check()
    assert len(seen) >= DRAWN, len(seen)

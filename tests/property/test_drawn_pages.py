"""Attention over pages, of drawn patterns and requests, against the reference of each request alone."""

from __future__ import annotations

from functools import cache

from cached_patterns import causal_patterns
from hypothesis import given, note
from hypothesis import strategies as st
from paged_requests import Drawn, check_paged, drawn_requests
from vacuity import examples, wanted

import sparsec
from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import ResolvedPattern
from sparsec.testing import sparse_text

ON_TORCH = wanted(20, at_night=300)


@cache
def on_torch(text: str, heads: int, kv_heads: int) -> SparseAttention:
    return sparsec.compile(text, heads=heads, kv_heads=kv_heads, head_dim=8, value_dim=12, target="torch", device="cpu")


def test_drawn_patterns_over_pages_on_torch() -> None:
    seen: set[str] = set()
    freed = 0

    @examples(ON_TORCH * 6 // 5)
    @given(causal_patterns((16, 32), inputs=True, scored=True), drawn_requests(120), st.booleans())
    def check(pattern: ResolvedPattern, drawn: Drawn, check_inputs: bool) -> None:
        nonlocal freed
        text = sparse_text(pattern)
        note(text)
        seen.add(text)
        attn = on_torch(text, pattern.heads, pattern.kv_heads)
        freed += check_paged(attn, pattern, drawn, check_inputs=check_inputs) > 0

    check()
    assert len(seen) >= ON_TORCH and freed >= ON_TORCH / 20, (len(seen), freed)

"""Attention over pages by the generated C++, of drawn patterns and requests, several patterns to a library."""

from __future__ import annotations

import pytest
from cached_patterns import causal_patterns
from hypothesis import given, note, settings
from hypothesis import strategies as st
from paged_requests import check_paged, drawn_requests, paged_modules
from vacuity import wanted

from sparsec.backends.cpu.kernel import has_compiler
from sparsec.backends.cpu.paged import build_paged
from sparsec.sema.model import ResolvedPattern
from sparsec.testing import sparse_text

pytestmark = [pytest.mark.kernels, pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")]
TOGETHER = 4
LIBRARIES = wanted(1, at_night=64)
CALLS = 4


def test_drawn_patterns_over_pages() -> None:
    seen: set[str] = set()

    @settings(max_examples=LIBRARIES, deadline=None)
    @given(
        st.lists(
            causal_patterns((16, 32), inputs=True, scored=True),
            min_size=TOGETHER,
            max_size=TOGETHER,
            unique_by=sparse_text,
        ),
        st.data(),
    )
    def check(patterns: list[ResolvedPattern], data: st.DataObject) -> None:
        modules = paged_modules(patterns, "cpu", 8, 12, lambda plans: build_paged(plans, optimise=1))
        for pattern, attn in zip(patterns, modules, strict=True):
            text = sparse_text(pattern)
            note(text)
            seen.add(text)
            for _ in range(CALLS):
                check_paged(attn, pattern, data.draw(drawn_requests(150)), check_inputs=False)

    check()
    assert len(seen) >= LIBRARIES * TOGETHER * 2 // 5, len(seen)  # small patterns are drawn again and again

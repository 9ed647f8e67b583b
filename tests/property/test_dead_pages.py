"""The dead pages of drawn patterns against the reference mask, and key by key against `dead`."""

from __future__ import annotations

from itertools import pairwise

from cached_patterns import causal_patterns
from hypothesis import given, note
from hypothesis import strategies as st
from test_cache_layout import needed_from
from vacuity import examples, wanted

import sparsec
from sparsec.ir.expr.evaluate import holds
from sparsec.pipeline import Lowered
from sparsec.plan.kv.pages import dead, dead_pages
from sparsec.sema.model import ResolvedPattern
from sparsec.testing import sparse_text

PATTERNS = wanted(100, at_night=5_000)
LENGTH = 150


def test_no_later_query_needs_a_dead_page_and_the_others_are_held() -> None:
    seen: set[str] = set()
    freed = 0

    @examples(PATTERNS * 6 // 5)
    @given(causal_patterns((16, 32)), st.integers(1, LENGTH), st.integers(1, 40))
    def check(pattern: ResolvedPattern, length: int, page_size: int) -> None:
        nonlocal freed
        note(sparse_text(pattern))
        seen.add(sparse_text(pattern))
        layout = Lowered(pattern).layout
        found = dead_pages(layout, length, page_size)
        assert all(each for each in found) and all(a.stop < b.start for a, b in pairwise(found))
        pages = {page for each in found for page in each}
        freed += bool(pages)
        asked = [needed_from(pattern, group, LENGTH)[length - 1] for group in range(pattern.kv_heads)]
        regions = {region for group in layout.groups for region in group}
        for page in range(-(-length // page_size)):
            keys = range(page * page_size, page * page_size + page_size)
            alone = ({"j": j, "end": j + 1, "stop": length} for j in keys)
            held = any(not holds(dead(region), key) for key in alone for region in regions)
            assert (page in pages) != held, (page, found)
            if page in pages:
                assert not any(each[keys.start : keys.stop].any() for each in asked), (page, found)
        assert not pages or max(pages) < -(-length // page_size)

    check()
    assert len(seen) >= PATTERNS and freed >= PATTERNS / 5, (len(seen), freed)


def test_a_window_and_a_sink_need_the_two_ends() -> None:
    layout = Lowered(sparsec.parse("pattern p { causal attend sink(4) | window(100) }").pattern().resolve(2, 1)).layout
    assert dead_pages(layout, 1000, 16) == [range(1, 56)]  # of the last query, the window begins at key 900
    assert dead_pages(layout, 100, 16) == []
    assert dead_pages(layout, 10**8, 16) == [range(1, (10**8 - 100) // 16)]

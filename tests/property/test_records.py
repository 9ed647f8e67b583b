"""Drawn patterns as data, as they leave a process: what comes back is what went; changed data is refused or sound."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, note
from hypothesis import strategies as st
from vacuity import examples, wanted

from sparsec.sema.model import ResolvedPattern
from sparsec.sema.record import heads_data, heads_of
from sparsec.testing import patterns, sparse_text

PATTERNS = wanted(150, at_night=5_000)
ODD = st.sampled_from([None, True, -1, 0, 1, 3, 1 << 31, 0.5, "", "Union", [], {}])


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of nested lists and mappings."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *places(value[key]))]


def test_patterns_come_back() -> None:
    @examples(PATTERNS)
    @given(patterns())
    def check(pattern: ResolvedPattern) -> None:
        note(sparse_text(pattern))
        assert heads_of(json.loads(json.dumps(heads_data(pattern)))) == pattern

    check()


def test_changed_data_is_refused_or_a_pattern() -> None:
    refused = 0

    @examples(PATTERNS)
    @given(patterns(), st.randoms(use_true_random=False), ODD)
    def check(pattern: ResolvedPattern, random: Any, odd: Any) -> None:
        nonlocal refused
        given = json.loads(json.dumps(heads_data(pattern)))
        container, key = random.choice(places(given))
        container[key] = odd
        note(json.dumps(given))
        try:
            found = heads_of(given)
        except ValueError:
            refused += 1
            return
        assert heads_of(json.loads(json.dumps(heads_data(found)))) == found
        assert sparse_text(found), "it can be written in the language"

    check()
    assert refused > PATTERNS // 3

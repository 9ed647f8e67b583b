"""A step of decoding beside what it is timed against: which of these run, and over how many keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sparsec
from sparsec.bench.baselines import make_case
from sparsec.bench.cached import CachedFigures, cached_table, measure_cached
from sparsec.sema.model import ResolvedPattern

PAGES = """
pattern pages {
    block 16
    input picks : rows(blocks)
    causal
    attend picks | window(1b)
}
"""
LENGTH = 128


def measured(against: tuple[str, ...], kv_dtype: str | None = None) -> CachedFigures:
    attn = sparsec.compile(PAGES, heads=4, kv_heads=2, head_dim=16, target="torch")
    pattern: ResolvedPattern = sparsec.parse(PAGES).pattern("pages").resolve(heads=4, kv_heads=2)
    picks = torch.tensor([[[[0, 2]], [[3, 1]]]])  # of one sequence, two KV groups and one query
    case = replace(make_case(pattern, 1, LENGTH, 16, "float32", "cpu"), given={"picks": picks}, kv_dtype=kv_dtype)
    said: list[str] = []
    with pytest.warns(UserWarning, match="the cache keeps every key"):
        return measure_cached(attn, case, 1, against, repeats=2, report=said.append)


def test_a_window_has_as_many_keys_as_the_query_sees() -> None:
    found = measured(("sdpa", "window"))
    assert found.window == 2 * 16 + 16
    assert found.live_keys == 2 * found.window
    assert set(found.seconds) == {"sparsec", "sdpa", "window"} and not found.absent
    assert "the latest 48 keys" in cached_table([found], ("sdpa", "window"))


def test_a_cache_of_another_dtype_has_fewer_bytes() -> None:
    found = measured(("window",), kv_dtype="int8")
    assert found.live_bytes == found.live_keys * 2 * (16 + 4)
    assert found.dense_bytes == found.dense_keys * 2 * 16 * 4
    assert set(found.seconds) == {"sparsec", "window"}


def test_no_window_is_made_unless_it_is_asked_for() -> None:
    found = measured(("sdpa",))
    assert set(found.seconds) == {"sparsec", "sdpa"}
    assert "the latest" not in cached_table([found], ("sdpa",))

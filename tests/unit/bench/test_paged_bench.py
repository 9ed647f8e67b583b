"""A step over a server's pages beside one over a cache: which requests it has, and what the table says."""

from __future__ import annotations

import pytest

import sparsec
from sparsec.bench.baselines import make_case
from sparsec.bench.paged import measure_paged, paged_table, request_lengths


def test_requests_have_lengths_in_even_steps() -> None:
    assert request_lengths(1, 800) == [800]
    assert request_lengths(8, 800) == [800, 700, 600, 500, 400, 300, 200, 100]
    assert min(request_lengths(16, 3)) == 1 and min(request_lengths(16, 100, 90)) == 91


@pytest.mark.parametrize("window", ["full", "window(30)"])
def test_a_step_over_pages_and_one_over_a_cache(window: str) -> None:
    text = f"pattern p {{ causal attend {window} }}"
    attn = sparsec.compile(text, heads=4, kv_heads=2, head_dim=8, target="torch", device="cpu")
    case = make_case(sparsec.parse(text).pattern().resolve(heads=4, kv_heads=2), 3, 64, 8, "float32", "cpu")
    said: list[str] = []
    found = measure_paged(attn, case, (16, 5), repeats=1, report=said.append)
    assert (found.requests, found.shortest, found.longest) == (3, 8, 64)
    assert found.paged.keys() == {16, 5} and min(found.cached, *found.paged.values()) > 0
    table = paged_table([found])
    assert "pages of 16" in table and "8 to 64" in table and f"{found.paged[5] / found.cached:.2f}x" in table
    assert found.by_head.keys() == {16, 5} and "pages of 5, head by head" in table
    assert found.shared == {} and found.as_dict()["seq_len"] == 64 and "filling pages of 5" in said


def test_a_step_over_pages_that_requests_share() -> None:
    text = "pattern p { causal attend full }"
    attn = sparsec.compile(text, heads=4, kv_heads=2, head_dim=8, target="torch", device="cpu")
    case = make_case(sparsec.parse(text).pattern().resolve(heads=4, kv_heads=2), 2, 64, 8, "float32", "cpu")
    found = measure_paged(attn, case, (16,), prefix=40, repeats=1, report=lambda _: None)
    assert (found.shortest, found.prefix) == (41, 40) and found.shared.keys() == {16}
    assert "pages of 16, 40 tokens shared" in paged_table([found])

"""The claims about compiled patterns are proved: of the examples, of drawn patterns, for a GPU, of any numbers."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from cached_patterns import causal, has_cache
from hypothesis import given, note, settings
from hypothesis import strategies as st
from proof_patterns import MODEST, PLAIN, heads_of, statuses
from vacuity import wanted

import sparsec
from sparsec.ir.bands.normalise import TooManyBands
from sparsec.plan.build import TooManyClasses
from sparsec.sema.model import ResolvedPattern
from sparsec.testing import patterns, sparse_text

z3 = pytest.importorskip("z3")

from sparsec.prove import prove, solve  # noqa: E402  # they import z3

EXAMPLES = Path(__file__).parents[2] / "examples"
PATTERNS = [(path, name) for path in sorted(EXAMPLES.glob("*.sparse")) for name in sparsec.load(path).patterns]
DRAWN = wanted(60, at_night=300)
OF_TILES = {"coverage", "disjointness", "fullness", "bounds", "counts", "int32", "signs", "meaning"}
OF_CACHES = {"causality", "storage", "injectivity", "truncation", "slots", "regions", "pages", "int32", "signs"}


@pytest.mark.parametrize(("path", "name"), PATTERNS, ids=[name for _, name in PATTERNS])
def test_every_claim_about_every_example_is_proved(path: Path, name: str) -> None:
    pattern = sparsec.load(path).pattern(name)
    heads = pattern.resolve(pattern.heads or 8, pattern.kv_heads or 2)
    claims = prove(heads, timeout_s=60)
    assert set(statuses(claims)) == {"proved"}, statuses(claims)
    assert {claim.name for claim in claims} == OF_TILES | (OF_CACHES if has_cache(heads) else set())
    launched = {part.strip() for claim in claims for part in claim.about.split(";")[0].split(",")}
    assert {"forward", "gradients of queries", "gradients of keys"} <= launched
    assert {"cached chunks", "cached rows", "KV cache"} <= launched or not has_cache(heads)


def test_claims_about_drawn_patterns_are_proved() -> None:
    """Or left open, of one in a hundred (two of few): when the solver finds a proof is luck. None is refuted."""
    drawn: set[str] = set()
    left_open: list[str] = []

    @settings(max_examples=2 * DRAWN)
    @given(st.one_of(patterns(scored=True), patterns().map(causal)))
    def check(pattern: ResolvedPattern) -> None:
        text = sparse_text(pattern)
        if text in drawn or len(drawn) == DRAWN:
            return
        drawn.add(text)
        note(text)
        try:
            found = statuses(prove(pattern, timeout_s=20))
        except (TooManyBands, TooManyClasses):
            return
        assert "refuted" not in found, found["refuted"]
        left_open.extend([text] if "not proved" in found else [])

    check()
    assert len(drawn) == DRAWN
    assert len(left_open) <= max(2, DRAWN / 100), left_open


def test_claims_about_a_gpu_s_plans_are_proved() -> None:
    heads = sparsec.parse(PLAIN).pattern().resolve()
    claims = prove(heads, dtype="bfloat16", target="cuda:90", timeout_s=60)
    assert set(statuses(claims)) == {"proved"}


@pytest.mark.parametrize(
    "term",
    [
        "dilated(1000)",
        "dilated(1073741824, phase = 1073741823)",
        "window(1073741822)",
        "window(3, ahead = 2147483647)",
        "window(60000000b)",
        "chunk(1000000000, back = 3)",
        "chunk(1073741823, back = 1)",
        "chunk(1073741823, back = 1, ahead = 1)",
        "near2d(width = 1000000000, rows = 2, columns = 70)",
        "columns(-1073741823..)",
        "rows(1073741824..)",
    ],
)
def test_numbers_of_any_size_are_proved(term: str) -> None:
    found = statuses(prove(heads_of(f"pattern p {{ heads 1  block 16  attend {term} }}"), timeout_s=20))
    assert set(found) == {"proved"}, found


@pytest.mark.parametrize("short", ["no time", "few steps"])
def test_what_takes_too_long_is_not_proved(short: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if short == "few steps":
        monkeypatch.setattr(solve, "_attempts", lambda: itertools.repeat((2, 1)))
    found = statuses(prove(heads_of(MODEST), timeout_s=0 if short == "no time" else 0.05))
    assert set(found) == {"proved", "not proved"}  # some claims fold to a truth that needs no solver
    kinds = {name.split(" ")[0] for name in found["not proved"]}
    assert {"coverage", "fullness", "meaning", "storage", "injectivity"} <= kinds
    assert {name.split(" ")[0] for name in found["proved"]} <= {
        *("counts", "int32", "signs", "bounds", "regions", "disjointness")
    }

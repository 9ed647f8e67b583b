"""A page's script, in V8 without a browser: what it counts, and what it says of a pair, are those of Python."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from closed_forms import PATTERNS, VIEWS, as_script
from py_mini_racer import MiniRacer

import sparsec
from sparsec._resources import read_data
from sparsec.analysis.coverage import View, coverage_of_bands, distinct_heads, whole_view
from sparsec.ir.bands.draws import drawn_blocks, split_mix
from sparsec.ir.bands.liveness import is_causal
from sparsec.ir.expr import nodes as x
from sparsec.ir.expr.evaluate import evaluate, holds
from sparsec.pictures.javascript import js_bands, js_expression, js_value
from sparsec.pictures.labels import place_text, ticks
from sparsec.pictures.page import pattern_script

MANY_PARTS = View((0, 1_000_000), (0, 1_000_000), 1_000_000, tuple(range(0, 1_000_001, 1000)), True)
"""1,000 documents, of which rows are sampled in each of 3 parts."""


@pytest.fixture(scope="module")
def engine() -> Iterator[MiniRacer]:
    with MiniRacer() as made:
        made.eval(read_data("templates/pictures/counts.js"))
        yield made


@pytest.mark.parametrize(
    ("body", "views"),
    [*((body, VIEWS) for body in PATTERNS), ("causal attend rows(9 .. 60) & window(9)", (MANY_PARTS,))],
)
def test_coverage_is_that_of_python(engine: MiniRacer, body: str, views: tuple[View, ...]) -> None:
    lowered = sparsec.parse(f"pattern p {{ {body} }}").pattern().lowered(2, 2)
    for view in views:
        bands, heads = list(distinct_heads(lowered).items())[-1]
        causal = js_value(all(map(is_causal, bands)))
        for cells in (1, 12):
            expected = coverage_of_bands(bands, heads, view, (cells, cells), share=2)
            call = f"coverageOf({js_bands(bands)}, {as_script(view)}, {cells}, 2, {causal})"
            found = json.loads(str(engine.eval(f"JSON.stringify({call})")))
            assert found["rows"] == expected.rows.tolist() and found["columns"] == expected.columns.tolist()
            assert np.allclose(found["live"], expected.live, rtol=1e-9, atol=0)
            assert found["total"] == pytest.approx(expected.live_pairs, rel=1e-9)
            assert (found["causal"], found["exact"]) == (expected.causal, expected.exact)


@pytest.mark.parametrize("body", PATTERNS)
def test_a_pair_is_seen_where_the_mask_has_it(engine: MiniRacer, body: str) -> None:
    pattern = sparsec.parse(f"pattern p {{ {body} }}").pattern()
    bands = next(iter(distinct_heads(pattern.lowered(1, 1))))
    call = f"""(() => {{ const bands = {js_bands(bands)}, view = {as_script(whole_view(140))}, found = [];
        for (let i = 0; i < 140; i++) for (let j = 0; j < 140; j++) found.push(holdsAt(bands, rowOf(view, i), j));
        return JSON.stringify(found); }})()"""
    assert json.loads(str(engine.eval(call))) == pattern.mask(140, 140, heads=1).flatten().tolist()


def test_draws_and_causal_pairs(engine: MiniRacer) -> None:
    for seed, lane, block, t in ((0, 0, 0, 0), (3, 7, 12, 1), (2**31 - 1, 4095, 2**20, 5)):
        found = str(engine.eval(f"splitMix({seed}, {lane}, {block}, {t}).toString()"))
        assert found == str(split_mix(seed, lane, block, t))
    listed = "{count: 5, seed: 9, lane: 2}"
    for block in (-1, 0, 1, 77):
        drawn = set(json.loads(str(engine.eval(f"JSON.stringify(drawnBlocks({listed}, {block}))"))))
        assert drawn == set(drawn_blocks(5, 9, 2, block)) - {-1}
    for view in VIEWS:
        assert engine.eval(f"causalPairs({as_script(view)})") == view.causal_pairs


def test_every_kind_of_expression(engine: MiniRacer) -> None:
    i, nk, three = x.Var("i"), x.Var("nk"), x.Int(3)
    test = x.Or(x.And(x.Less(i, nk), x.Not(x.Less(i, three))), x.Truth(False))
    trees = [
        x.Add(i, x.Int(-4)),
        x.Sub(x.Mul(i, three), nk),
        x.FloorDiv(i, three, nonneg=False),
        x.Mod(i, three, nonneg=False),
        x.Min(i, nk),
        x.Max(i, nk),
        x.Select(test, i, nk),
    ]
    for values in ({"i": -7, "nk": 5}, {"i": 4, "nk": 5}, {"i": 2**28 + 1, "nk": 2**28}):
        names = ", ".join(f"{name} = {value}" for name, value in values.items())
        for tree in trees:
            found = engine.eval(f"(() => {{ const {names}; return {js_expression(tree)}; }})()")
            assert found == evaluate(tree, values)
        assert engine.eval(f"(() => {{ const {names}; return {js_expression(test)}; }})()") == holds(test, values)


def test_strings_in_a_script_cannot_end_it(engine: MiniRacer) -> None:
    text = "</script><!-- \u2028 ' \" \\ &"
    assert "<" not in js_value(text) and engine.eval(js_value(text)) == text


def test_a_page_names_the_terms_of_each_head(engine: MiniRacer) -> None:
    pattern = sparsec.parse("pattern p { causal\n attend window(9) | stride(8, phase = -h) }").pattern()
    script = pattern_script([("p", pattern.lowered(2, 2))], whole_view(64))
    heads = json.loads(str(engine.eval(f"(() => {{ {script} return JSON.stringify(PICTURE.patterns[0].heads); }})()")))
    assert [[term["text"] for term in head["terms"]] for head in heads] == [
        ["line 2: window(9)", "line 2: stride(8)", "line 1: causal"],
        ["line 2: window(9)", "line 2: stride(8, phase=7)", "line 1: causal"],
    ]


def test_labels_of_the_page_are_those_of_images(engine: MiniRacer) -> None:
    text = read_data("templates/pictures/page.js")
    begin, end = text.index("  const position ="), text.index("  const percent =")
    first, last = text.index("  function ticks("), text.index("  // A closed rectangle")
    for numbers in ((0, 1000), (100, 101), (0, 131_072), (4096, 8192)):
        span = numbers[1] - numbers[0]
        parts = f"{text[begin:end]} {text[first:last]}"
        script = (
            f"(() => {{ {parts} return JSON.stringify(ticks(...{list(numbers)}).map(n => position(n, {span}))); }})()"
        )
        assert json.loads(str(engine.eval(script))) == [place_text(n, span) for n in ticks(*numbers)]

"""Drawings in every form: text, SVG, pages and JSON say the same, and hold no text that is not escaped."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import sparsec
from sparsec.analysis.coverage import pattern_coverage, whole_view
from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.interpreter import pairs
from sparsec.pictures import given
from sparsec.pictures.caches import held_band
from sparsec.pictures.drawing import Drawing
from sparsec.pictures.labels import name_heads, place_text, ticks
from sparsec.pictures.shades import LEVELS, levels
from sparsec.pictures.svg import level_paths
from sparsec.pictures.text import ASCII, BLOCKS, draw, shades_for

NAMESPACE = "{http://www.w3.org/2000/svg}"
S2 = "pattern s2 { block 32 causal attend window(2b) | stride(4b, phase = -h) }"


def drawing(body: str, length: int, **how: object) -> Drawing:
    return sparsec.parse(f"pattern p {{ {body} }}").pattern().show(length, **how)  # type: ignore[arg-type]


def test_text_of_a_window_and_a_sink() -> None:
    text = drawing("causal attend window(64) | sink(32)", 512, heads=2).text(40)
    assert text.splitlines()[:6] == [
        "p: 512 queries, 512 keys",
        "",
        "heads 0-1, 34% live",
        "    0       128     256     384",
        "  0 +=..............................",
        "    ##+=............................",
    ]
    assert text.splitlines()[-3].startswith("# all live  + half or more")


def test_less_than_a_tile_is_drawn_pair_by_pair() -> None:
    text = drawing("causal attend window(3)", 8, heads=1).text()
    assert [line[2:] for line in text.splitlines()[4:8]] == ["#.......", "##......", "###.....", ".###...."]


def test_pictures_stand_side_by_side_within_the_width() -> None:
    lowered = sparsec.parse("pattern p { causal attend window(9 + h) }").pattern().lowered(4, 4)
    found = pattern_coverage(lowered, 320, (10, 10))
    lines = draw(found, whole_view(320), 50, BLOCKS).splitlines()
    assert lines[0].count("head ") == 2 and max(map(len, lines[:11])) <= 50
    assert draw(found, whole_view(320), 5, BLOCKS).splitlines()[0].startswith("head 0, ")


def test_shades_follow_the_encoding() -> None:
    assert shades_for("utf-8") == BLOCKS
    assert shades_for("ascii") == shades_for(None) == shades_for("no such") == ASCII


def test_names_and_positions() -> None:
    assert name_heads((3,)) == "head 3"
    assert name_heads((0, 2, 4, 5, 6)) == "heads 0, 2, 4-6"
    assert name_heads(tuple(range(0, 40, 2))) == "heads 0, 2, 4, 6, 8, ... 38"
    assert [place_text(n, 1 << 22) for n in (0, 96, 4096, 5000, 3 << 20)] == ["0", "96", "4k", "5000", "3M"]
    assert place_text(3072, 300) == "3072"
    assert list(ticks(0, 1000)) == [0, 256, 512, 768, 1000]
    assert list(ticks(100, 101)) == [100]


def test_levels_are_ordered_and_keep_none_and_all_apart() -> None:
    found = levels(np.array([0, 1e-9, 0.01, 0.011, 0.5, 0.9999, 1]))
    assert found.tolist() == [0, 1, 1, 2, 7, LEVELS - 1, LEVELS]


def test_svg_draws_every_live_cell_at_its_size() -> None:
    shown = drawing("causal attend window(64) | sink(32)", 160, heads=1)
    root = ElementTree.fromstring(shown.svg())
    area = 0
    for path in root.iter(f"{NAMESPACE}path"):
        if path.get("class") == "s-ink0":
            for run in path.attrib["d"].split("M")[1:]:
                area += int(run.split("h")[1].split("v")[0]) * int(run.split("v")[1].split("h")[0])
    (head,) = shown.coverage((128, 128))
    cells = np.diff(head.rows)[:, None] * np.diff(head.columns)
    assert area == int(cells[head.live > 0].sum())
    texts = [text.text for text in root.iter(f"{NAMESPACE}text")]
    assert {"p: 160 queries, 160 keys", "head 0", "0", "160", "key j →"} <= set(texts)


def test_the_last_cells_have_their_own_size() -> None:
    rows = np.array([0, 64, 100])
    assert dict(level_paths(np.array([[0, 0], [0, 10]]), rows, rows)) == {10: "M64 64h36v36h-36z"}


def test_density_at_a_long_length_is_no_dense_picture() -> None:
    long = sparsec.parse(S2.replace("2b", "32b").replace("4b", "32b")).pattern().show(131_072, heads=2)
    head = long.coverage((64, 64))[0]
    assert 0.02 < head.live[40, 5] < 0.045
    assert levels(head.live)[40, 5] == 3
    assert "% of the causal pairs" in long.svg()


def test_heads_that_see_the_same_are_drawn_once() -> None:
    short = sparsec.parse(S2).pattern().show(60, heads=4)
    assert [head.heads for head in short.coverage((16, 16))] == [(0, 1, 2, 3)]
    assert len(sparsec.parse(S2).pattern().show(600, heads=4).coverage((16, 16))) == 4


def test_json_is_what_the_mask_says() -> None:
    pattern = sparsec.parse(S2).pattern()
    data = json.loads(pattern.show(100, heads=2, rows=(90, 100), columns=(3, 40)).json())
    for head in data["heads"]:
        for number in head["heads"]:
            mask = pattern.mask(100, 100, heads=2)[number, 90:100, 3:40]
            assert head["live"] == mask.double().tolist() and head["live_pairs"] == int(mask.sum())


def test_a_row_of_a_call_and_documents() -> None:
    body = "causal attend window(4) | sink(1)"
    assert "1 query at 9, 12 keys" in (one := drawing(body, 12, heads=1, queries=1, q_offset=9)).text()
    assert one.coverage((64, 64))[0].live.tolist() == [[1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0]]
    packed = drawing("documents restart " + body, 12, heads=1, cu_seqlens=[0, 6, 12])
    assert packed.coverage((64, 64))[0].live[8].tolist() == [0] * 6 + [1, 1, 1] + [0] * 3
    assert "2 documents, positions restart" in packed.svg()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"seq_len": 0}, "seq_len between 1 and"),
        ({"head": 9}, "head between 0 and 7"),
        ({"rows": (5, 5)}, "rows that are not empty"),
        ({"columns": (0, 101)}, "columns between 0 and 100"),
        ({"cu_seqlens": [0, 100]}, "packs no documents"),
        ({"queries": 0}, "queries between 1 and"),
    ],
)
def test_wrong_arguments(how: dict[str, object], message: str) -> None:
    with pytest.raises(CallError, match=message):
        sparsec.parse(S2).pattern().show(**{"seq_len": 100, **how})  # type: ignore[arg-type]


def test_inputs_of_a_call_by_example() -> None:
    pattern = sparsec.parse("pattern p { input picks : columns  causal attend picks | window(2) }").pattern()
    lists = torch.tensor([[[3, 7, -1]]])
    shown = pattern.show(20, heads=2, inputs={"picks": lists})
    mask = pattern.mask(20, 20, heads=2, inputs={"picks": lists})[0, 0]
    (head,) = shown.coverage((64, 64))
    assert head.heads == (0, 1) and head.live.tolist() == mask.double().tolist()
    assert "<script" not in shown.html() and shown.svg() in shown.html()
    with pytest.raises(CallError, match="expected inputs"):
        pattern.show(20, inputs={"pick": lists})


def test_a_cache_is_drawn_as_its_regions_are_needed() -> None:
    pattern = sparsec.parse("pattern p { block 16 causal attend sink(5) | window(20) | stride(4b) }").pattern()
    drawn = pattern.show_cache(120, heads=2)
    (kind,) = drawn.kinds
    assert kind.groups == (0, 1) and len(kind.regions) >= 2
    at = np.arange(120)
    held = np.zeros((120, 120), np.bool_)
    for region in kind.regions:
        held |= pairs((held_band(region),), {}, at, at, 120)
    mask = pattern.mask(120, 120, heads=2)[0].numpy()
    needed = (np.cumsum(mask[::-1], axis=0)[::-1] > 0) & (at <= at[:, None])
    assert not (needed & ~held).any(), "a key that a later query sees is held"
    assert np.allclose(sum(kind.own(n) for n in range(len(kind.regions))), kind.unions[-1].live)
    assert kind.unions[-1].live_pairs == held.sum()
    assert "the latest 20 keys" in drawn.svg() and "tokens so far" in drawn.text()
    assert json.loads(drawn.json())["groups"][0]["groups"] == [0, 1]


MODEL = """
pattern dense { causal attend full }
pattern near(w = 64) { causal attend window(w) }
model m { layers 5  where l == 2 use dense  where l == 3 use near(w = 8)  otherwise use near }
"""


def test_words_that_do_not_fit_beside_each_other_have_a_line_each() -> None:
    def places(shown: Drawing, *texts: str) -> list[tuple[str, str]]:
        root = ElementTree.fromstring(shown.svg())
        found = {text.text: (text.attrib["x"], text.attrib["y"]) for text in root.iter(f"{NAMESPACE}text")}
        return [found[text] for text in texts]

    many = drawing("causal attend window(128 + 9 * (h % 9))", 400, heads=36)
    note = f"{next(each.note for each in many.picture().panels if each.title == 'heads 3, 12, 21, 30')}"
    title, below = places(many, "heads 3, 12, 21, 30", note)
    assert title[0] == below[0] and float(below[1]) - float(title[1]) >= 12
    few = drawing("causal attend window(2b)", 400, heads=2)
    title, beside = places(few, "heads 0-1", few.picture().panels[0].note)
    assert title[1] == beside[1] and float(beside[0]) > float(title[0]) + 100


def test_positions_that_would_meet_are_left_out() -> None:
    shown = drawing("causal attend window(2b)", 1_000_000, heads=1, rows=(900_001, 900_130), columns=(899_896, 900_050))
    root = ElementTree.fromstring(shown.svg())
    columns = [
        text for text in root.iter(f"{NAMESPACE}text") if (text.text or "").isdigit() and "-anchor" in str(text.attrib)
    ]
    across = [(float(text.attrib["x"]), text.text) for text in columns if text.attrib["text-anchor"] == "middle"]
    assert [text for _, text in across] == ["899896", "899968", "900050"]
    (name,) = (text for text in root.iter(f"{NAMESPACE}text") if text.text == "← query i")
    edge = min(float(text.attrib["x"]) for text in columns if text.attrib["text-anchor"] == "end") - 6.4 * 6
    assert float(name.attrib["x"]) + 3 <= edge, "the axis' name stands beyond its positions"


@pytest.mark.parametrize(("heads", "cells"), [(1, 128), (3, 64), (16, 64), (20, 32)])
def test_equal_cells_are_drawn_equally_wide(heads: int, cells: int) -> None:
    root = ElementTree.fromstring(drawing("causal attend window(64 + 64 * h)", 64 * cells, heads=heads).svg())
    scales = [each.attrib["transform"] for each in root.iter(f"{NAMESPACE}g")]
    assert len(scales) == heads
    for scale in scales:
        across = float(scale.split("scale(")[1].split()[0]) * 64
        assert across == int(across) > 0, scale


def test_a_model_has_a_strip_a_layer() -> None:
    drawn = sparsec.parse(MODEL).model().show(256, heads=2)
    lines = drawn.text().splitlines()
    assert lines[0] == "m: 5 layers, 256 tokens"
    assert [line.split()[:3] for line in lines[2:5]] == [
        ["layer", "0", "near"],
        ["layer", "1", "near"],
        ["layer", "2", "dense"],
    ]
    assert "near 2" in lines[5] and "near 1" in lines[2]
    root = ElementTree.fromstring(drawn.svg())
    words = [text.text for text in root.iter(f"{NAMESPACE}text")]
    assert sum(text.startswith("layer ") and not text.endswith("live") for text in words) >= 5
    strips, panels = root.findall(f"{NAMESPACE}g")
    assert "m: 5 layers, 256 tokens" in strips.itertext() and "One layer of each pattern" in panels.itertext()
    assert [part["layers"] for part in json.loads(drawn.json())["parts"]] == [[0, 1, 4], [2], [3]]
    assert '"near 2"' in drawn.html()


def test_a_model_says_how_inputs_of_a_call_are_counted() -> None:
    text = """pattern chosen { block 16  causal  input pages : rows(blocks)  attend pages }
    pattern near { causal attend window(64) }
    model m { layers 2  where l == 0 use near  otherwise use chosen }"""
    said = "inputs as if they named every pair that they may"
    drawn = sparsec.parse(text).model().show(256, heads=2)
    assert said in drawn.text() and said in drawn.svg() and said in drawn.html()
    assert said not in sparsec.parse(MODEL).model().show(256, heads=2).svg()


def test_notebooks_show_values_and_never_raise() -> None:
    program = sparsec.parse(MODEL)
    assert program._repr_html_().count("<svg") == 2 and "model m {" in program._repr_html_()
    assert program.pattern("near")._repr_html_().startswith("<svg")
    assert "layer 4" in program.model()._repr_html_()
    assert 'sandbox="allow-scripts"' in program.pattern("near").show(64)._repr_html_()
    odd = sparsec.parse("pattern p { where h == 9 attend full otherwise attend causal }").pattern()
    assert odd._repr_html_().startswith("<pre>Pattern(")


def test_a_module_and_its_report_in_a_notebook() -> None:
    attn = sparsec.compile(sparsec.parse(S2).pattern(), heads=2, kv_heads=2, head_dim=16, target="reference")
    assert "target reference" in attn._repr_html_() and "<svg" in attn._repr_html_()
    report = attn.explain(1000)._repr_html_()
    assert "<td>1</td>" in report and "causal pairs" in report


@pytest.mark.parametrize("height", [128, 5, 1])
def test_sampled_tiles_of_a_call_with_inputs_reach_each_row_of_cells(
    height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """97 rows of cells are of 8 queries each, and the budget is 1 tile of 4 for each of them."""
    monkeypatch.setattr(given, "TILE", 4)
    pattern = sparsec.parse("pattern p { causal  input s : labels  attend full & s }").pattern().resolve(2, 2)
    labels = (torch.arange(772) // 150 % 2).expand(1, 2, 772).clone()
    labels[0, 1] = torch.arange(772) // 40
    inputs = {"s": (labels, labels)}
    exact = given.given_coverage(pattern, inputs, 772, (height, 4))
    monkeypatch.setattr(given, "PAIRS", 1)
    found = given.given_coverage(pattern, inputs, 772, (height, 4))
    assert [head.heads for head in found] == [(0,), (1,)]
    for one, whole in zip(found, exact, strict=True):
        assert whole.exact and not one.exact and one.causal
        assert (one.live.sum(1) > 0).all() and np.array_equal(one.rows, whole.rows)
        weighed = (one.live * np.diff(one.rows)[:, None] * np.diff(one.columns)).sum()
        assert one.live_pairs == pytest.approx(weighed)
        assert one.live_pairs == pytest.approx(whole.live_pairs, rel=0.02 if height > 5 else 0.15)

"""Counts and pictures of tiles agree with the reference mask."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

import sparsec
from sparsec.analysis import coverage as module
from sparsec.analysis.coverage import HeadCoverage, coverage, pattern_coverage
from sparsec.cli.picture import ASCII, BLOCKS, draw, name_heads, shades_for
from sparsec.cli.picture_svg import draw_html, draw_svg
from sparsec.pipeline import Lowered
from sparsec.reference import mask
from sparsec.sema import model as m
from sparsec.sema.model import ResolvedPattern

PATTERNS = [
    "causal attend full",
    "attend full",
    "attend none",
    "causal attend sink(5) | window(40)",
    "block 32 causal attend window(2b) | stride(4b, phase = -h)",
    "attend dilated(3) & window(90, ahead = 20)",
    "block 32 causal attend random(2, seed = 3) | window(1b)",
    "where h == 2 attend full otherwise attend causal & window(9 + h)",
    "attend columns(100 .. ) - rows(-40 ..)",
]


def resolved(body: str, heads: int = 4) -> ResolvedPattern:
    return sparsec.parse(f"pattern p {{ {body} }}").pattern().resolve(heads, heads)


def covered(pattern: ResolvedPattern, length: int, cells: tuple[int, int] = (1000, 1000)) -> tuple[HeadCoverage, ...]:
    plan = Lowered(pattern).plan_forward(head_dim=64, dtype="float32", query_tile=32, key_tile=32)
    return coverage(plan.classes, length, cells)


@pytest.mark.parametrize("body", PATTERNS)
@pytest.mark.parametrize("length", [1, 250, 256])
def test_counts_are_those_of_the_mask(body: str, length: int) -> None:
    pattern = resolved(body)
    expected = mask(pattern, length, length)
    found = covered(pattern, length)
    assert sorted(head for each in found for head in each.heads) == list(range(pattern.heads))
    for each in found:
        for head in each.heads:
            assert each.exact
            assert each.live_pairs == int(expected[head].sum())
            assert each.causal == (not bool(expected[head].triu(1).any()))
        live = expected[each.heads[0]]
        size = each.query_tile, each.key_tile
        for row in range(each.full.shape[0]):
            for column in range(each.full.shape[1]):
                tile = live[row * size[0] :, column * size[1] :][: size[0], : size[1]]
                whole = bool(tile.all()) and tile.shape[1] == size[1]
                visited = each.full[row, column] + each.partial[row, column]
                assert visited == int(tile.any()), (row, column)
                assert not each.full[row, column] or whole
                assert each.tiles[row, column] == 1


def test_cells_add_up_their_tiles() -> None:
    pattern = resolved("block 32 causal attend window(2b) | stride(4b, phase = -h)")
    for fine, coarse in zip(covered(pattern, 1000), covered(pattern, 1000, (7, 5)), strict=True):
        assert coarse.full.shape == (7, 5)
        assert coarse.full.sum() == fine.full.sum()
        assert coarse.partial.sum() == fine.partial.sum()
        assert coarse.tiles.sum() == fine.tiles.sum() == 32 * 32
        assert coarse.live_pairs == fine.live_pairs


def test_a_long_sequence_is_sampled_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = resolved("block 32 causal attend window(70) | stride(8b, phase = -h)", heads=1)
    (exact,) = covered(pattern, 8000)
    monkeypatch.setattr(module, "QUERY_TILE_LIMIT", 60)
    (sampled,) = covered(pattern, 8000)
    assert exact.exact
    assert not sampled.exact
    assert sampled.live_pairs == pytest.approx(exact.live_pairs, rel=0.05)
    monkeypatch.setattr(module, "PAIR_LIMIT", 40 * 32 * 32)
    (thinned,) = covered(pattern, 8000)
    assert thinned.live_pairs == pytest.approx(exact.live_pairs, rel=0.2)


def test_only_one_head() -> None:
    pattern = resolved("causal attend window(9 + h)")
    plan = Lowered(pattern).plan_forward(head_dim=64, dtype="float32", query_tile=32, key_tile=32)
    (found,) = coverage(plan.classes, 100, (10, 10), only=2)
    assert found.heads == (2,)
    assert found.live_pairs == int(mask(pattern, 100, 100)[2].sum())


def test_picture_of_a_window_and_a_sink() -> None:
    text = draw(covered(resolved("causal attend window(64) | sink(32)"), 160), 80, ASCII)
    assert text.splitlines()[:7] == ["heads 0-3", "+....", "#+...", "##+..", "#+#+.", "#.+#+", ""]
    assert "# full tile  + partial  . skipped" in text


def test_pictures_stand_side_by_side_within_the_width() -> None:
    found = covered(resolved("causal attend window(9 + h)"), 320)
    lines = draw(found, 30, BLOCKS).splitlines()
    assert lines[0].split() == ["head", "0", "head", "1"]
    assert max(len(line) for line in lines[:11]) == 22
    assert draw(found, 5, BLOCKS).splitlines()[0] == "head 0"


def test_shades_follow_the_encoding() -> None:
    assert shades_for("utf-8") == BLOCKS
    assert shades_for("ascii") == shades_for(None) == shades_for("no such") == ASCII


def test_names_of_heads() -> None:
    assert name_heads((3,)) == "head 3"
    assert name_heads((0, 2, 4, 5, 6)) == "heads 0, 2, 4-6"
    assert name_heads(tuple(range(0, 40, 2))) == "heads 0, 2, 4, 6, 8, ... 38"


def test_svg_is_well_formed_and_draws_every_visited_cell() -> None:
    found = covered(resolved("causal attend window(64) | sink(32)"), 160)
    text = draw_svg(found, "a < b")
    root = ElementTree.fromstring(text)
    paths = root.findall(".//{http://www.w3.org/2000/svg}path")
    drawn = 0
    for path in paths:
        for run in path.attrib["d"].split("M")[1:]:
            drawn += int(run.split("h")[1].split("v")[0])
    assert drawn == int(((found[0].full + found[0].partial) > 0).sum())
    assert "a &lt; b" in draw_html(found, "a < b")


def test_inputs_count_as_if_they_named_all_that_they_may() -> None:
    rows = m.InputDecl("picks", m.InputKind.ROWS, 1, 1)
    term = m.Intersection((m.Causal(), m.Union((m.Window(20, 0, False), m.Input(0)))))
    lowered = Lowered(m.ResolvedPattern(1, 1, (term,), 64, (rows,), m.Documents.NONE, m.Score()))
    (found,) = pattern_coverage(lowered, 200)
    assert found.live_pairs == 200 * 201 / 2 and found.causal and found.exact

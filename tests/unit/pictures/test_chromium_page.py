"""A page of `sparsec show` in headless Chromium: it draws what Python draws, and its controls and pointer work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from chromium import browser, wants_chromium

import sparsec
from sparsec.pictures.shades import levels
from sparsec.pictures.svg import level_paths

pytestmark = [pytest.mark.kernels, wants_chromium]

TEXT = "pattern p {\n causal\n attend window(40) | stride(16, phase = -h)\n}"
SCRIPT = """
const report = {};
const snapshot = name => {
  report[name] = {
    drawn: document.body.dataset.drawn,
    title: document.querySelector("h1").textContent,
    details: document.getElementById("details").textContent,
    panels: [...document.querySelectorAll("figure")].map(figure => ({
      caption: figure.querySelector("figcaption").textContent,
      paths: [...figure.querySelectorAll("path.ink")].map(path => path.getAttribute("d")),
    })),
    hover: document.getElementById("hover").textContent,
  };
};
const choose = (id, value) => {
  const field = document.getElementById(id);
  field.value = value;
  field.dispatchEvent(new Event("change"));
};
const at = (type, x, y) => {
  const plot = document.querySelector("rect.plot"), box = plot.getBoundingClientRect();
  const place = {clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true};
  plot.dispatchEvent(new PointerEvent(type, place));
};
snapshot("first");
choose("head", "1");
snapshot("head");
choose("length", "500");
at("pointermove", 100.5 / 500, 300.5 / 500);
snapshot("hover");
at("click", 0.5, 0.5);
snapshot("near");
document.getElementById("whole").click();
choose("length", "0");
snapshot("whole");
return report;
"""


def test_a_page_draws_what_python_draws_and_answers_its_reader(tmp_path: Path) -> None:
    pattern = sparsec.parse(TEXT).pattern()
    file = tmp_path / "page.html"
    file.write_text(pattern.show(300, heads=2).html())
    with browser(tmp_path / "profile") as page:
        page.open(file.as_uri())
        report = page.run(SCRIPT)

    assert report["first"]["drawn"] == "p all 300" and report["first"]["title"] == "p: 300 tokens"
    for panel, head in zip(report["first"]["panels"], pattern.show(300, heads=2).coverage((128, 128)), strict=True):
        expected = [path for _, path in level_paths(levels(head.live), head.rows, head.columns)]
        assert panel["paths"] == expected
    share = float(pattern.mask(300, 300, heads=2).double().mean()) * 300 * 2 / 301
    assert f"live: {float(f'{100 * share:.3g}'):g}% of the causal pairs" in report["first"]["details"]

    assert [panel["caption"].split("%")[0][:6] for panel in report["head"]["panels"]] == ["head 1"]
    assert report["hover"]["title"] == "p: 500 tokens"
    seen = bool(pattern.mask(500, 500, heads=2)[1, 300, 100])
    assert report["hover"]["hover"].startswith(f"head 1: query 300 {'sees' if seen else 'does not see'} key 100\n")
    assert "terms that hold: line 2: causal" in report["hover"]["hover"]
    assert "tile (4, 1) of 64 x 64: masked" in report["hover"]["hover"]
    assert re.search(r", queries 18[78]\.\.31[23] and keys 18[78]\.\.31[23]$", report["near"]["title"])
    assert report["near"]["hover"].startswith("Point at a pair"), "nothing is said of another view"
    assert report["whole"]["title"] == "p: 500 tokens"

"""Images and pages in headless Chromium, light and dark, wide and narrow: no text meets another, nothing is cut."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from chromium import Browser, browser, wants_chromium

import sparsec

pytestmark = [pytest.mark.kernels, wants_chromium]

STRIDED = """pattern strided {
    causal
    attend window(16b) | stride(16b, phase = -h)
}"""
MODEL = """
pattern a_window_that_has_quite_a_long_name { causal attend window(1k) }
pattern everything { causal attend full }
model m {
    layers 24
    where l % 3 == 2 use everything
    otherwise use a_window_that_has_quite_a_long_name
}"""
LOOKS = """
const shown = "svg text, h1, p, figcaption, figcaption span, label, button";
const boxes = [...document.querySelectorAll(shown)].filter(each => each.textContent.trim())
  .map(each => [each, each.getBoundingClientRect()]);
const problems = [], root = document.documentElement;
if (root.tagName !== "svg" && root.scrollWidth > window.innerWidth) problems.push(`wider: ${root.scrollWidth}`);
boxes.forEach(([one, a], n) => {
  const image = one.closest("svg.sparsec") && one.closest("svg.sparsec").getBoundingClientRect();
  if (image && (a.left < image.left || a.right > image.right || a.bottom > image.bottom)) {
    problems.push(`cut: ${one.textContent}`);
  }
  for (const [other, b] of boxes.slice(n + 1)) {
    if (one.contains(other)) continue;
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (width > 0.5 && height > 2.5) problems.push(`meet: ${one.textContent} | ${other.textContent}`);
  }
});
const style = (at, name) => getComputedStyle(at)[name];
const page = document.querySelector(".s-page");
const back = root.tagName === "svg" ? style(page, "fill") : style(document.body, "backgroundColor");
return {count: boxes.length, problems, back, words: [...new Set(boxes.map(([each]) =>
  style(each, each.namespaceURI.endsWith("svg") ? "fill" : "color")))]};
"""


def luminance(colour: str) -> float:
    """The WCAG's relative luminance of `rgb(r, g, b)`."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def look(page: Browser, file: Path) -> None:
    for width in (400, 1280) if file.suffix == ".html" else (1400,):
        backs = set()
        for scheme in ("light", "dark"):
            page.screen(width, scheme)
            page.open(file.as_uri())
            seen = page.run(LOOKS)
            assert not seen["problems"] and seen["count"] > 10, (file.name, width, scheme, seen)
            back = luminance(seen["back"])
            for words in map(luminance, seen["words"]):
                assert (max(words, back) + 0.05) / (min(words, back) + 0.05) >= 4.5, (file.name, scheme, seen)
            backs.add(back > 0.5)
        assert backs == {False, True}


def test_words_are_whole_and_apart_in_both_schemes(tmp_path: Path) -> None:
    strided, model = sparsec.parse(STRIDED).pattern(), sparsec.parse(MODEL).model()
    drawings = {
        "many": strided.show(131072, heads=32, kv_heads=8),
        "near": strided.show(1_000_000, heads=2, rows=(900_001, 900_130), columns=(899_896, 900_050)),
        "row": strided.show(9000, heads=2, queries=1, q_offset=8999),
        "model": model.show(8192, heads=2),
    }
    with browser(tmp_path / "profile") as page:
        for name, drawing in drawings.items():
            for form in ("svg", "html"):
                file = tmp_path / f"{name}.{form}"
                file.write_text(getattr(drawing, form)())
                look(page, file)

"""A model -> a picture: one strip a layer, with the keys that its last queries see, and each pattern once below.

Invariant: a strip shows the mean over the heads of its layer; layers of one pattern are counted once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sparsec.analysis.coverage import TILE, HeadCoverage, View, of_pairs, pattern_coverage, whole_view
from sparsec.diagnostics.progress import no_progress, told_of_kinds
from sparsec.diagnostics.tables import count, percent
from sparsec.pictures.drawing import framed_page
from sparsec.pictures.labels import live_share, name_members, share_text
from sparsec.pictures.page import page, pattern_script
from sparsec.pictures.saving import save_drawing
from sparsec.pictures.shades import levels
from sparsec.pictures.svg import (
    Image,
    Layer,
    Panel,
    Picture,
    background,
    draw_svg,
    framed,
    heading,
    image_of,
    label,
    shaded,
    stacked,
    text_width,
)
from sparsec.pictures.text import ASCII, Shades, shade_of
from sparsec.pipeline import Lowered

STRIPS = 128
"""A model of more layers has a strip for each run of equal ones, and no more runs than these."""
_CELLS, _WIDE, _HIGH, _STEP, _LEFT, _RIGHT, _TOP = 256, 512, 12, 15, 210, 80, 64


@dataclass(frozen=True, slots=True)
class LayerPart:
    """A pattern and the layers that have it."""

    name: str
    layers: tuple[int, ...]
    lowered: Lowered


@dataclass(frozen=True)
class ModelDrawing:
    """The layers of a model at `keys` tokens; `told` of each part that is counted."""

    name: str
    parts: tuple[LayerPart, ...]
    keys: int
    told: Callable[[str], None] = field(default=no_progress, repr=False, compare=False)

    def strips(self, cells: int) -> tuple[HeadCoverage, ...]:
        """Of each part: the mean over its heads of what the last queries see, in one row of at most so many cells."""
        view = View((max(self.keys - TILE, 0), self.keys), (0, self.keys), self.keys)
        return self._counted((1, cells), view)

    @cached_property
    def whole(self) -> tuple[HeadCoverage, ...]:
        """Of each part: the mean over its heads of all pairs."""
        return self._counted((64, 64))

    def _counted(self, cells: tuple[int, int], view: View | None = None) -> tuple[HeadCoverage, ...]:
        found = []
        for done, part in enumerate(self.parts):
            told_of_kinds(self.told, "counting live pairs", part.name, done, len(self.parts))
            found.append(mean_coverage(pattern_coverage(part.lowered, self.keys, cells, view=view)))
        return tuple(found)

    @property
    def title(self) -> str:
        layers = sum(len(part.layers) for part in self.parts)
        return f"{self.name}: {count(layers, 'layer')}, {count(self.keys, 'token')}"

    @property
    def live(self) -> str:
        """`live: 41% of the causal pairs`, over all layers and heads; and how inputs of a call are counted."""
        view = whole_view(self.keys)
        causal = all(each.causal for each in self.whole)
        dense = view.causal_pairs if causal else view.pairs
        layers = [len(part.layers) for part in self.parts]
        live = sum(n * each.live_pairs for n, each in zip(layers, self.whole, strict=True))
        about = "" if all(each.exact for each in self.whole) else "about "
        given = any(part.lowered.pattern.inputs for part in self.parts)
        said = "; inputs as if they named every pair that they may" if given else ""
        return f"live: {about}{percent(live / (dense * sum(layers)))} of {of_pairs(causal)}{said}"

    @property
    def rows(self) -> tuple[tuple[str, int], ...]:
        """What each strip is of: the name of its layers, and the number of their part."""
        part_of = {layer: n for n, part in enumerate(self.parts) for layer in part.layers}
        order = sorted(part_of)
        if len(order) <= STRIPS:
            return tuple((f"layer {layer}", part_of[layer]) for layer in order)
        runs: list[list[int]] = []
        for layer in order:
            if runs and part_of[runs[-1][0]] == part_of[layer]:
                runs[-1].append(layer)
            else:
                runs.append([layer])
        return tuple((name_members("layer", run), part_of[run[0]]) for run in runs[:STRIPS])

    def text(self, width: int = 80, shades: Shades = ASCII) -> str:
        """A line a layer."""
        rows, names = self.rows, [part.name for part in self.parts]
        margin = max(len(f"{text}  {names[n]}") for text, n in rows)
        strips = self.strips(max(min(64, width - margin - 12), 16))
        lines = []
        for text, n in rows:
            drawn = "".join(shade_of(share, shades) for share in strips[n].live[0].tolist())
            lines.append(f"{f'{text}  {names[n]}':<{margin}}  {drawn}  {self._share(n)}")
        said = f"keys run right; a line shows what the last {min(TILE, self.keys)} queries of a layer see"
        return "\n".join([self.title, "", *lines, "", said, self.live, ""])

    def svg(self) -> str:
        """The strips, and below them each pattern at full size."""
        return framed(stacked(self.title, (self._strips(), image_of(self._panels()))))

    def html(self) -> str:
        """A page: the strips, and the patterns, whose heads and length can be changed in it."""
        script = pattern_script([(part.name, part.lowered) for part in self.parts], whole_view(self.keys))
        return page(self.title, [draw_svg(self._panels())], script, before=framed(self._strips()))

    def json(self) -> str:
        """The share of each column of keys that the last queries see, by pattern, with the layers that have it."""
        parts = [
            {
                "pattern": part.name,
                "layers": list(part.layers),
                "columns": strip.columns.tolist(),
                "live": [round(share, 6) for share in strip.live[0].tolist()],
                "live_share": live_share([whole], whole_view(self.keys))[0],
            }
            for part, strip, whole in zip(self.parts, self.strips(_CELLS), self.whole, strict=True)
        ]
        return json.dumps({"of": self.title, "parts": parts})

    save = save_drawing

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return framed_page(self.html(), self._panels())

    def _share(self, part: int) -> str:
        return share_text([self.whole[part]], whole_view(self.keys))

    def _strips(self) -> Image:
        names = [f"{text}  {self.parts[n].name}" for text, n in self.rows]
        left = max(_LEFT, max(map(text_width, names)))
        said = f"{self.live}; a strip shows the last queries of a layer"
        lines, at, strips = [heading(16, 24, self.title), label(16, 42, said)], _TOP, self.strips(_CELLS)
        for name, (_, n) in zip(names, self.rows, strict=True):
            strip = strips[n]
            panel = Panel("", strip.rows, strip.columns, (Layer(0, levels(strip.live)),))
            lines += [label(16, at + 10, name), background(left, at, _WIDE, _HIGH)]
            lines += shaded(panel, (left, at, _WIDE, _HIGH))
            lines.append(label(left + _WIDE + 8, at + 10, f"{self._share(n)} live"))
            at += _STEP
        lines += [label(left, at + 12, "key 0"), label(left + _WIDE, at + 12, f"key {self.keys}", end=True)]
        width = max(left + _WIDE + _RIGHT + 16, text_width(self.title, 16), text_width(said))
        return Image(self.title, width, at + 24, tuple(lines))

    def _panels(self) -> Picture:
        panels = tuple(
            Panel(
                part.name,
                whole.rows,
                whole.columns,
                (Layer(0, levels(whole.live)),),
                name_members("layer", part.layers),
            )
            for part, whole in zip(self.parts, self.whole, strict=True)
        )
        return Picture("One layer of each pattern", "the mean over its heads", panels)


def model_drawing(name: str, layers: Sequence[tuple[str, Lowered]], keys: int) -> ModelDrawing:
    """Of the pattern of each layer, by name; equal ones are one object, and others of one name get numbers."""
    found: dict[int, tuple[str, Lowered, list[int]]] = {}
    for layer, (pattern, lowered) in enumerate(layers):
        found.setdefault(id(lowered), (pattern, lowered, []))[2].append(layer)
    names = [pattern for pattern, _, _ in found.values()]
    parts, seen = [], Counter[str]()
    for pattern, lowered, those in found.values():
        seen[pattern] += 1
        shown = f"{pattern} {seen[pattern]}" if names.count(pattern) > 1 else pattern
        parts.append(LayerPart(shown, tuple(those), lowered))
    return ModelDrawing(name, tuple(parts), keys)


def mean_coverage(found: Sequence[HeadCoverage]) -> HeadCoverage:
    """The mean over all heads, as one."""
    heads = sum(len(each.heads) for each in found)
    live = sum((len(each.heads) * each.live for each in found), np.zeros_like(found[0].live)) / heads
    pairs = sum(len(each.heads) * each.live_pairs for each in found) / heads
    causal, exact = all(each.causal for each in found), all(each.exact for each in found)
    return HeadCoverage(tuple(range(heads)), found[0].rows, found[0].columns, live, pairs, causal, exact)

"""Panels of shaded cells -> one SVG image with axes, titles and a legend; light or dark as the reader's screen is.

Invariant: the text holds numbers and given labels alone, these escaped; equal panels give equal text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sparsec.pictures.labels import place_text, ticks
from sparsec.pictures.shades import LEVELS, OPACITY, level_texts

Ints = npt.NDArray[np.int64]

INKS = ("#0b4a8f", "#b4540a", "#1d7a46", "#7b2d8e")
DARK_INKS = ("#7cc0ff", "#ffb070", "#6fdc9c", "#d9a0ec")
_PAGE, _CELL, _WORDS, _LINES = ("#ffffff", "#0d1117"), ("#eff1f4", "#1a212b"), ("#1f2328", "#e6edf3"), ("#8b949e",) * 2
_MARGIN, _TITLE, _NOTE, _AXIS, _HEAD, _LEGEND = 16, 20, 15, 18, 52, 58
_LARGE, _SMALL = 256, 192
"""Units of a plot's side: whole ones for each of 128, 64 or 32 cells, so that equal cells are drawn equally wide."""
_BESIDE = 4
"""Panels of the large kind in a row; more than two such rows are drawn small."""
_WIDEST = 1300
"""Units that panels beside each other take at most."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one ink draws: a level for each cell."""

    ink: int
    levels: Ints


@dataclass(frozen=True, slots=True)
class Panel:
    """One grid of cells between edges; `title` above it, `note` after it."""

    title: str
    rows: Ints
    columns: Ints
    layers: tuple[Layer, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """Panels under a title and a second line; `inks` says what each ink stands for, none: one for all."""

    title: str
    details: str
    panels: tuple[Panel, ...]
    row_name: str = "query i"
    column_name: str = "key j"
    inks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """The elements of an image of so many units; `framed` makes a document of it."""

    title: str
    width: int
    height: int
    body: tuple[str, ...]


def draw_svg(picture: Picture) -> str:
    """The image: large panels side by side, or small ones in more columns."""
    return framed(image_of(picture))


def image_of(picture: Picture) -> Image:
    """The elements of `draw_svg`; words that do not fit beside each other, or above a panel, get the room they need."""
    many = len(picture.panels)
    side = _LARGE if many <= 2 * _BESIDE else _SMALL
    sizes = [_plot_size(panel, side) for panel in picture.panels]
    titles, notes = ([_bold(panel.title) for panel in picture.panels], [_wide(panel.note) for panel in picture.panels])
    apart = any(note and title + note + 8 > side for title, note in zip(titles, notes, strict=True))
    head = _TITLE + (_NOTE if apart else 0)
    named = _name_place(panel.rows for panel in picture.panels)
    pitch = named + 8 + max(side, *titles, *notes, 0) + _MARGIN
    across = max(min(many, _BESIDE if side == _LARGE else 6, max(_WIDEST // pitch, 1)), 1)
    places, top = [], _HEAD
    for first in range(0, many, across):
        for n in range(first, min(first + across, many)):
            places.append((_MARGIN + (n - first) * pitch + named + 8, top + head))
        top += head + max(height for _, height in sizes[first : first + across]) + 2 * _AXIS + 8
    beyond = max((_wide(place_text(int(x.columns[-1]), _span(x.columns))) // 2 for x in picture.panels), default=0)
    width = max(
        text_width(picture.title, 16), text_width(picture.details), 470, 2 * _MARGIN + _inks_width(picture.inks)
    )
    width = max(width, across * pitch + max(_MARGIN, beyond + 2))
    body = [
        _text(_MARGIN, 24, picture.title, "title"),
        _text(_MARGIN, 42, picture.details, "small"),
        *(
            line
            for panel, size, place in zip(picture.panels, sizes, places, strict=True)
            for line in _panel(panel, size, place, _Words(picture.row_name, picture.column_name, named, apart))
        ),
        *_legend(_MARGIN, top + 14, picture.inks),
    ]
    return Image(picture.title, width, top + _LEGEND + (18 if picture.inks else 0), tuple(body))


def stacked(title: str, images: Sequence[Image]) -> Image:
    """Images one below the other."""
    body, top = [], 0
    for image in images:
        body += [f'<g transform="translate(0 {top})">', *image.body, "</g>"]
        top += image.height
    return Image(title, max(image.width for image in images), top, tuple(body))


def text_width(text: str, size: int = 11) -> int:
    """The units that a line of text at most takes, with its margins."""
    return 2 * _MARGIN + round(0.62 * size * len(text))


def _wide(text: str) -> int:
    """The units that a small text at most takes."""
    return 7 * len(text)


def _bold(text: str) -> int:
    """The units that the words above a panel at most take."""
    return round(8.4 * len(text))


def framed(image: Image) -> str:
    """A document of the image, with the styles that its classes name."""
    width, height = image.width, image.height
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="sparsec" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="system-ui, sans-serif" font-size="12" role="img">',
            f"<title>{escape(image.title)}</title>",
            f"<style>{_style()}</style>",
            f'<rect class="s-page" width="{width}" height="{height}" fill="{_PAGE[0]}"/>',
            *image.body,
            "</svg>",
            "",
        ]
    )


def _style() -> str:
    """The dark colours; the light ones are attributes, for programs that read no styles."""
    rules = [
        f".sparsec .s-page{{fill:{_PAGE[1]}}}",
        f".sparsec .s-none{{fill:{_CELL[1]}}}",
        f".sparsec text{{fill:{_WORDS[1]}}}",
        *(f".sparsec .s-ink{n}{{fill:{ink}}}" for n, ink in enumerate(DARK_INKS)),
    ]
    return f"@media (prefers-color-scheme: dark){{{''.join(rules)}}}"


def _plot_size(panel: Panel, side: int) -> tuple[int, int]:
    rows, columns = (int(edges[-1] - edges[0]) for edges in (panel.rows, panel.columns))
    return side, max(min(round(side * rows / columns), 2 * side), 14)


@dataclass(frozen=True, slots=True)
class _Words:
    """The names of the axes, how far left of a plot that of its rows stands, and whether notes have their own line."""

    rows: str
    columns: str
    named: int
    apart: bool


def _panel(panel: Panel, size: tuple[int, int], place: tuple[int, int], words: _Words) -> Iterator[str]:
    (width, height), (left, top) = size, place
    yield _text(left, top - 6 - (_NOTE if words.apart else 0), panel.title, "words")
    if panel.note and words.apart:
        yield _text(left, top - 6, panel.note, "small")
    elif panel.note:
        yield _text(left + width, top - 6, panel.note, "small", "end")
    yield f'<rect class="s-none" x="{left}" y="{top}" width="{width}" height="{height}" fill="{_CELL[0]}"/>'
    yield from shaded(panel, (left, top, width, height))
    yield (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="{_LINES[0]}" '
        'stroke-width="1"/>'
    )
    lines = []
    for text, x in _tick_places(panel.columns, width, across=True):
        lines.append(f"M{left + x:g} {top + height}v4")
        yield _text(left + x, top + height + 15, text, "small", "middle")
    for text, y in _tick_places(panel.rows, height, across=False):
        lines.append(f"M{left} {top + y:g}h-4")
        yield _text(left - 7, top + y + 4, text, "small", "end")
    yield f'<path d="{"".join(lines)}" fill="none" stroke="{_LINES[0]}"/>'
    yield _text(left + width / 2, top + height + 28, f"{words.columns} →", "small", "middle")
    if height >= 80:
        x, y = left - words.named, top + height / 2
        yield _text(x, y, f"← {words.rows}", "small", "middle", f' transform="rotate(-90 {x:g} {y:g})"')


def _span(edges: Ints) -> int:
    return int(edges[-1] - edges[0])


def _name_place(edges: Iterable[Ints]) -> int:
    """How far left of the plots the name of their rows stands: beyond every position on that axis."""
    written = (_wide(place_text(at, _span(each))) for each in edges for at in ticks(int(each[0]), int(each[-1])))
    return max(38, 10 + max(written, default=0))


def _tick_places(edges: Ints, size: int, *, across: bool) -> Iterator[tuple[str, float]]:
    """Positions, as written, and where they lie in so many units; those that would meet another are left out."""
    first, stop = int(edges[0]), int(edges[-1])
    found = []
    for at in ticks(first, stop):
        text, place = place_text(at, stop - first), (at - first) * size / (stop - first)
        half = (_wide(text) + 6) / 2 if across else 6.5
        found.append((text, place, place - half, place + half))
    free, last = -math.inf, len(found) - 1
    for n, (text, place, start, end) in enumerate(found):
        if start >= free and (n in (0, last) or end <= found[last][2]):
            yield text, place
            free = end


def shaded(panel: Panel, box: tuple[float, float, float, float]) -> Iterator[str]:
    """The cells of a panel in a box (left, top, width, height): a path an ink and level."""
    left, top, width, height = box
    first_row, first_column = int(panel.rows[0]), int(panel.columns[0])
    down, right = int(panel.rows[-1]) - first_row, int(panel.columns[-1]) - first_column
    inner = [
        f'<path class="s-ink{layer.ink}" fill="{INKS[layer.ink]}" fill-opacity="{OPACITY[level - 1]}" d="{path}"/>'
        for layer in panel.layers
        for level, path in level_paths(layer.levels, panel.rows - first_row, panel.columns - first_column)
    ]
    if inner:
        yield (
            f'<g transform="translate({left:g} {top:g}) scale({width / right:.9g} {height / down:.9g})" '
            f'shape-rendering="crispEdges">{"".join(inner)}</g>'
        )


def level_paths(levels: Ints, rows: Ints, columns: Ints) -> Iterator[tuple[int, str]]:
    """The cells of each level, in units of pairs: a closed rectangle for each run of equal cells in a row of them."""
    across, down = columns.tolist(), rows.tolist()
    paths: dict[int, list[str]] = {}
    for n, row in enumerate(levels):
        ends = [0, *(np.nonzero(np.diff(row))[0] + 1).tolist(), len(row)]
        for start, stop in pairwise(ends):
            if row[start]:
                x, y = across[start], down[n]
                width, height = across[stop] - x, down[n + 1] - y
                paths.setdefault(int(row[start]), []).append(f"M{x} {y}h{width}v{height}h{-width}z")
    for level in sorted(paths):
        yield level, "".join(paths[level])


def _legend(left: int, top: int, inks: tuple[str, ...]) -> Iterator[str]:
    """The shade of each level; with several inks, what each stands for."""
    if inks:
        across = float(left)
        for number, meaning in enumerate(inks):
            size = 'width="12" height="12"'
            yield f'<rect class="s-ink{number}" x="{across:g}" y="{top - 10}" {size} fill="{INKS[number]}"/>'
            yield _text(across + 17, top, meaning, "small")
            across += _ink_width(meaning)
        top += 18
    yield _text(left, top, "share of a cell's pairs that are live, up to", "small")
    for level, meaning in enumerate(level_texts()):
        x, ink = left + level * 40, "s-none" if level == 0 else "s-ink0"
        shade = "" if level == 0 else f' fill-opacity="{OPACITY[level - 1]}"'
        fill = _CELL[0] if level == 0 else INKS[0]
        yield f'<rect class="{ink}" x="{x}" y="{top + 6}" width="40" height="12" fill="{fill}"{shade}/>'
        yield _text(x + 20, top + 31, meaning, "small", "middle")


def _ink_width(meaning: str) -> float:
    """The units that an ink of a legend takes."""
    return 36 + 6.2 * len(meaning)


def _inks_width(inks: tuple[str, ...]) -> int:
    return round(sum(map(_ink_width, inks)))


_SIZES = {"title": ' font-size="16" font-weight="600"', "words": ' font-weight="600"', "small": ' font-size="11"'}


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start", more: str = "") -> str:
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" fill="{_WORDS[0]}"{_SIZES[kind]}{where}{more}>{escape(text)}</text>'


def label(x: float, y: float, text: str, *, end: bool = False) -> str:
    """A small label at a point, to its right or, at its `end`, to its left."""
    return _text(x, y, text, "small", "end" if end else "start")


def heading(x: float, y: float, text: str) -> str:
    """A title at a point."""
    return _text(x, y, text, "title")


def background(left: float, top: float, width: float, height: float) -> str:
    """A cell without a live pair."""
    return f'<rect class="s-none" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" fill="{_CELL[0]}"/>'


assert len(OPACITY) == LEVELS

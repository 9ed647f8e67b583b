"""Head coverages -> a picture as text: one character a cell, heads side by side as the width allows.

Invariant: lines are at most `width` wide as long as one picture is; the text holds no user text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sparsec.analysis.coverage import HeadCoverage, View
from sparsec.pictures.labels import live_line, name_members, place_text, share_text

Shades = tuple[str, str, str, str, str]
"""The characters of a cell: no pair live; less than a quarter; less than half; less than all; all."""

BLOCKS: Shades = ("·", "░", "▒", "▓", "█")
ASCII: Shades = (".", "-", "=", "+", "#")
_PARTS = 4
"""The rows and the columns with their positions: about so many."""


def shades_for(encoding: str | None) -> Shades:
    """BLOCKS where the encoding has them."""
    try:
        "".join(BLOCKS).encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return BLOCKS


def draw(
    heads: Sequence[HeadCoverage], view: View, width: int, shades: Shades, *, what: str = "head", rows: str = "queries"
) -> str:
    """The pictures with their titles and one legend; `what` has them, and `rows` run down."""
    pictures = [_picture(head, view, shades, what) for head in heads]
    lines: list[str] = []
    while pictures:
        column = max(len(line) for line in pictures[0])
        number = max((width + 2) // (column + 2), 1)
        beside, pictures = pictures[:number], pictures[number:]
        height = max(len(picture) for picture in beside)
        padded = [picture + [""] * (height - len(picture)) for picture in beside]
        lines += ["  ".join(line.ljust(column) for line in row).rstrip() for row in zip(*padded, strict=True)]
        lines.append("")
    return "\n".join([*lines, _legend(heads, shades, rows)])


def text_picture(
    found: Sequence[HeadCoverage], view: View, width: int, shades: Shades, *, limit: int | None = None
) -> str:
    """Pictures, legend and live shares; `limit`: at most so many pictures."""
    parts = [draw(found[:limit], view, width, shades)]
    if limit is not None and len(found) > limit:
        parts.append(f"{len(found) - limit} more distinct heads: sparsec show draws them all")
    return "\n".join([*parts, live_line(found, view)])


def _picture(head: HeadCoverage, view: View, shades: Shades, what: str) -> list[str]:
    down = int(head.rows[-1] - head.rows[0])
    named = {
        row: place_text(int(head.rows[row]), down) for row in range(0, len(head.live), -(-len(head.live) // _PARTS))
    }
    margin = max(map(len, named.values()))
    rows = [
        f"{named.get(row, ''):>{margin}} {''.join(shade_of(share, shades) for share in shares)}"
        for row, shares in enumerate(head.live.tolist())
    ]
    return [
        f"{name_members(what, head.heads)}, {share_text([head], view)} live",
        " " * (margin + 1) + _axis(head),
        *rows,
    ]


def _axis(head: HeadCoverage) -> str:
    """The positions of some columns, each above the first of its cells."""
    cells, line = head.live.shape[1], ""
    for cell in range(0, cells, -(-cells // _PARTS)):
        text = place_text(int(head.columns[cell]), int(head.columns[-1] - head.columns[0]))
        if len(line) <= cell and cell + len(text) <= max(cells, len(text)):
            line = line.ljust(cell) + text + " "
    return line.rstrip()


def shade_of(share: float, shades: Shades) -> str:
    """The character of a cell with that share of live pairs."""
    if share <= 0:
        return shades[0]
    return shades[4 if share >= 1 - 1e-9 else 3 if share >= 0.5 else 2 if share >= 0.25 else 1]


def _legend(heads: Sequence[HeadCoverage], shades: Shades, down: str) -> str:
    none, few, some, many, full = shades
    sizes = sorted({(_largest(head.rows.tolist()), _largest(head.columns.tolist())) for head in heads})
    shown = "; or ".join(f"{rows} x {columns} pairs" for rows, columns in sizes)
    return (
        f"{full} all live  {many} half or more  {some} a quarter or more  {few} less  {none} none\n"
        f"{down} run down, keys run right; a character is {shown}"
    )


def _largest(edges: list[int]) -> int:
    return max(stop - start for start, stop in pairwise(edges))

"""Head coverages -> a picture as text: one character a cell, heads side by side as the width allows.

Invariant: lines are at most `width` wide as long as one picture is; the text holds no user text.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.analysis.coverage import HeadCoverage


@dataclass(frozen=True, slots=True)
class Shades:
    """The characters of a cell: every tile full; half or more of the tiles visited; fewer; none."""

    full: str
    many: str
    few: str
    none: str


BLOCKS = Shades("█", "▓", "░", "·")
ASCII = Shades("#", "+", "-", ".")


def shades_for(encoding: str | None) -> Shades:
    """BLOCKS where the encoding has them."""
    try:
        "█▓░·".encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return BLOCKS


def draw(heads: tuple[HeadCoverage, ...], width: int, shades: Shades) -> str:
    """The pictures with their titles and one legend."""
    pictures = [_picture(head, shades) for head in heads]
    lines: list[str] = []
    while pictures:
        column = max(len(line) for line in pictures[0])
        count = max((width + 2) // (column + 2), 1)
        beside, pictures = pictures[:count], pictures[count:]
        height = max(len(picture) for picture in beside)
        padded = [picture + [""] * (height - len(picture)) for picture in beside]
        lines += ["  ".join(line.ljust(column) for line in row).rstrip() for row in zip(*padded, strict=True)]
        lines.append("")
    return "\n".join([*lines, _legend(heads, shades)])


def name_heads(heads: tuple[int, ...]) -> str:
    """`head 3`, `heads 0-7`, `heads 0, 2, 4-6`."""
    runs: list[list[int]] = []
    for head in heads:
        if runs and runs[-1][1] == head - 1:
            runs[-1][1] = head
        else:
            runs.append([head, head])
    shown = [f"{first}" if first == last else f"{first}-{last}" for first, last in runs]
    if len(shown) > 6:
        shown = [*shown[:5], f"... {shown[-1]}"]
    return ("head " if len(heads) == 1 else "heads ") + ", ".join(shown)


def _picture(head: HeadCoverage, shades: Shades) -> list[str]:
    rows = []
    for full, partial, tiles in zip(head.full.tolist(), head.partial.tolist(), head.tiles.tolist(), strict=True):
        cells = zip(full, partial, tiles, strict=True)
        rows.append("".join(_cell(f, p, t, shades) for f, p, t in cells))
    return [name_heads(head.heads), *rows]


def _cell(full: int, partial: int, tiles: int, shades: Shades) -> str:
    visited = full + partial
    if visited == 0:
        return shades.none
    if full == tiles:
        return shades.full
    return shades.many if 2 * visited >= tiles else shades.few


def _legend(heads: tuple[HeadCoverage, ...], shades: Shades) -> str:
    sizes = sorted({(head.query_tile, head.key_tile, *head.tiles_per_cell) for head in heads})
    scaled = any(rows * columns > 1 for _, _, rows, columns in sizes)
    if scaled:
        meaning = (
            f"{shades.full} all tiles full  {shades.many} half or more live  {shades.few} some live  {shades.none} none"
        )
    else:
        meaning = f"{shades.full} full tile  {shades.many} partial  {shades.none} skipped"
    shapes = [
        f"{query} x {key} pairs" + ("" if rows * columns == 1 else f", a character is {rows} x {columns} tiles")
        for query, key, rows, columns in sizes
    ]
    return f"{meaning}\nqueries run down, keys run right; a tile is {'; or '.join(shapes)}"

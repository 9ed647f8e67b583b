"""Head coverages -> one SVG image, or an HTML page around it: a path a head and shade, a rectangle a run of cells.

Invariant: the text holds numbers and the given title alone, and that escaped.
"""

from __future__ import annotations

from html import escape

from sparsec.analysis.coverage import HeadCoverage
from sparsec.cli.picture import name_heads

_SIDE, _GAP, _TITLE = 256, 24, 20
_COLOURS = (("full", "#1f4e79", "every tile full"), ("partial", "#7fb2dd", "some live"))


def draw_svg(heads: tuple[HeadCoverage, ...], title: str) -> str:
    """Pictures of 256 x 256 units, four to a row."""
    columns = min(len(heads), 4)
    rows = -(-len(heads) // columns)
    width, height = columns * (_SIDE + _GAP) + _GAP, rows * (_SIDE + _TITLE + _GAP) + 2 * _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *(_head(head, n % columns, n // columns) for n, head in enumerate(heads)),
        *(
            f'<rect x="{_GAP + n * 160}" y="{height - _GAP - 12}" width="12" height="12" fill="{colour}"/>'
            f'<text x="{_GAP + n * 160 + 18}" y="{height - _GAP - 1}">{meaning}</text>'
            for n, (_, colour, meaning) in enumerate(_COLOURS)
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def draw_html(heads: tuple[HeadCoverage, ...], title: str) -> str:
    """The image on a page of its own."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title></head>\n'
        f'<body style="font-family: sans-serif"><h1>{escape(title)}</h1>\n{draw_svg(heads, title)}</body></html>\n'
    )


def _head(head: HeadCoverage, column: int, row: int) -> str:
    left, top = _GAP + column * (_SIDE + _GAP), _GAP + row * (_SIDE + _TITLE + _GAP) + _TITLE
    height, width = head.full.shape
    paths = "".join(
        f'<path fill="{colour}" d="{_runs(head, shade)}"/>' for shade, colour, _ in _COLOURS if _runs(head, shade)
    )
    return (
        f'<text x="{left}" y="{top - 6}">{name_heads(head.heads)}</text>'
        f'<rect x="{left}" y="{top}" width="{_SIDE}" height="{_SIDE}" fill="#f2f2f2"/>'
        f'<g transform="translate({left} {top}) scale({_SIDE / width:.6g} {_SIDE / height:.6g})" '
        f'shape-rendering="crispEdges">{paths}</g>'
    )


def _runs(head: HeadCoverage, shade: str) -> str:
    """One closed rectangle for each run of equal cells in a row."""
    path = []
    all_full = (head.full == head.tiles) & (head.tiles > 0)
    wanted = all_full if shade == "full" else (head.full + head.partial > 0) & ~all_full
    for y, cells in enumerate(wanted.tolist()):
        start = None
        for x, on in enumerate([*cells, False]):
            if on and start is None:
                start = x
            elif not on and start is not None:
                path.append(f"M{start} {y}h{x - start}v1h{start - x}z")
                start = None
    return "".join(path)

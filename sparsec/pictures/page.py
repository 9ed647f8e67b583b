"""Images, and what a script needs to draw others -> one HTML page that refers to nothing else.

Invariant: a name or a text of a file reaches the page escaped, as text or as a string of the script; the script holds
closed forms, so that it draws any length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from sparsec._resources import read_data
from sparsec.analysis.coverage import TILE, View, distinct_heads, without_inputs
from sparsec.ir.bands.band import Band
from sparsec.ir.bands.liveness import is_causal
from sparsec.ir.bands.lower import lower
from sparsec.ir.bands.normalise import Effort
from sparsec.pictures.javascript import js_bands, js_value
from sparsec.pictures.labels import details_of, name_heads
from sparsec.pictures.shades import LIMITS, OPACITY, level_texts
from sparsec.pipeline import Lowered
from sparsec.plan.build import fitting_tiles
from sparsec.sema.model import At, Documents, Term
from sparsec.sema.terms import leaves, ordinals_of, parts_of

HEADS = 64
"""The most distinct heads of a pattern that a page draws."""
TERMS = 24
"""The most terms of a head that it names under the pointer."""
EFFORT = 20_000
"""What the terms of a page may cost to lower."""


def page(title: str, images: Sequence[str], script: str = "", *, before: str = "") -> str:
    """A page of images; with a `script`, as `pattern_script` gives it, it draws them itself where scripts run, but for
    the image `before` them."""
    body = "\n".join(map(_scrolled, images))
    if script:
        counts, drawing = (read_data(f"templates/pictures/{name}.js") for name in ("counts", "page"))
        body = f'<div id="static">\n{body}</div>\n<script>\n{counts}\n{script}\n{drawing}</script>'
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{read_data('templates/pictures/page.css')}</style>\n</head>\n"
        f"<body>\n{_scrolled(before) if before else ''}{body}\n</body>\n</html>\n"
    )


def _scrolled(image: str) -> str:
    """An image that is moved by itself where the window is narrower."""
    return f'<div class="image">\n{image}</div>\n'


def pattern_script(patterns: Sequence[tuple[str, Lowered]], view: View, only: int | None = None) -> str:
    """The statement that gives a page its patterns in closed form, and what it draws first.

    Raises TooManyBands, TooManyClasses.
    """
    first = {
        "rows": view.rows,
        "columns": view.columns,
        "keys": view.keys,
        "documents": view.documents,
        "restart": view.restart,
    }
    shades = {"limits": LIMITS, "opacity": OPACITY, "texts": level_texts()}
    given = ",".join(_pattern(name, lowered, view, only) for name, lowered in patterns)
    return f"const PICTURE={{view:{js_value(first)},shades:{js_value(shades)},patterns:[{given}]}};"


def _pattern(name: str, lowered: Lowered, view: View, only: int | None) -> str:
    effort = Effort(EFFORT)
    pattern = lowered.pattern
    found = [(bands, heads) for bands, heads in distinct_heads(lowered).items() if only is None or only in heads]
    heads = [
        f"{{name:{js_value(name_heads(heads))},heads:{js_value(heads)},"
        f"causal:{'true' if all(map(is_causal, bands)) else 'false'},bands:{js_bands(bands)},"
        f"terms:[{','.join(_terms(lowered, heads[0], effort))}]}}"
        for bands, heads in found[:HEADS]
    ]
    about = {
        "name": name,
        "details": details_of(pattern, view),
        "more": len(found) - len(heads),
        "tile": fitted_tiles(lowered),
        "inputs": bool(pattern.inputs),
        "restart": pattern.documents is Documents.RESTART,
    }
    return f"{{about:{js_value(about)},heads:[{','.join(heads)}]}}"


def _terms(lowered: Lowered, head: int, effort: Effort) -> Iterator[str]:
    """The terms of a head as the file has them, each with bands of its own."""
    pattern = lowered.pattern
    for n, term in enumerate(dict.fromkeys(written_terms(pattern.terms[head]))):
        if n == TERMS:
            return
        bands: tuple[Band, ...] = lower(term, pattern.block, effort, pattern.inputs)
        asks = any(ordinals_of(leaf) for leaf in leaves(term))
        text = js_value(str(term.origin))
        yield f"{{text:{text},asks:{'true' if asks else 'false'},bands:{js_bands(without_inputs(bands))}}}"


def fitted_tiles(lowered: Lowered) -> tuple[int, int]:
    """Queries and keys of a tile, of at most TILE each, that the pattern's blocks allow."""
    return fitting_tiles(lowered.mask, TILE, TILE)


def written_terms(term: Term) -> Iterator[At]:
    """The leaf terms of a head's set with their places in the file."""
    if isinstance(term, At):
        yield term
        return
    for part in parts_of(term):
        yield from written_terms(part)

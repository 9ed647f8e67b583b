"""A pattern and the part of it to look at -> one drawing, which writes itself as text, SVG, a page or JSON.

Invariant: every form of a drawing is of the same pairs and heads; heads that share a picture are drawn once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from sparsec.analysis.coverage import HeadCoverage, View, distinct_heads, pattern_coverage
from sparsec.diagnostics.arguments import integer, optional
from sparsec.diagnostics.model import CallError
from sparsec.pictures.labels import details_of, live_line, live_share, name_heads, share_text, title_of
from sparsec.pictures.page import fitted_tiles, page, pattern_script
from sparsec.pictures.saving import save_drawing
from sparsec.pictures.shades import levels
from sparsec.pictures.svg import Layer, Panel, Picture, draw_svg
from sparsec.pictures.text import ASCII, Shades, text_picture
from sparsec.pipeline import Lowered
from sparsec.sema.model import Documents, ResolvedPattern

if TYPE_CHECKING:
    from sparsec.reference.parts import InputTensors

LONGEST = 1 << 26
"""The most keys, and queries, of a picture."""
DOCUMENTS = 4096
"""The most packed documents of a picture."""
PANELS = 64
"""The most distinct heads that an image or a page draws."""
_TEXT_WIDTH = 80

Cells = tuple[int, int]
Counted = Callable[[Cells], tuple[HeadCoverage, ...]]
"""The coverage of each distinct head on grids of at most so many rows and columns of cells."""


@dataclass(frozen=True)
class Drawing:
    """A pattern's heads within a view. `only`: the heads like this one; `given`: their coverage with inputs of a call,
    and `said` what these are."""

    name: str
    lowered: Lowered
    view: View
    only: int | None = None
    given: Counted | None = None
    said: str = ""

    @property
    def title(self) -> str:
        return title_of(self.name, self.view) + (f", {self.said}" if self.said else "")

    def coverage(self, cells: Cells) -> tuple[HeadCoverage, ...]:
        """Of each distinct head. Raises TooManyBands, TooManyClasses."""
        if self.given is not None:
            return self.given(cells)
        return as_pictures(pattern_coverage(self.lowered, self.view.keys, cells, only=self.only, view=self.view))

    def text(self, width: int = _TEXT_WIDTH, shades: Shades = ASCII, *, limit: int | None = None) -> str:
        """The picture in characters, with its legend and the live share."""
        found = self.coverage(self.text_cells(width))
        return f"{self.title}\n\n{text_picture(found, self.view, width, shades, limit=limit)}\n"

    def text_cells(self, width: int) -> Cells:
        """Rows and columns of a picture in text."""
        number = 1 if self.only is not None else len(distinct_heads(self.lowered))
        if number == 1 and self.only is None and self.given is not None:
            number = self.lowered.pattern.kv_heads
        # A character is about twice as high as it is wide.
        return (32, 64) if number == 1 and width >= 72 else (16, 32)

    def picture(self) -> Picture:
        """The panels of an image."""
        found = self.coverage(_cells_of(1 if self.only is not None else len(distinct_heads(self.lowered))))
        tile = "tiles of {} x {}".format(*fitted_tiles(self.lowered))
        details = f"{details_of(self.lowered.pattern, self.view)}; {tile}; {live_line(found, self.view)}"
        if len(found) > PANELS:
            details += f"; {len(found) - PANELS} more distinct heads are not drawn"
        return Picture(self.title, details, tuple(panel_of(head, self.view) for head in found[:PANELS]))

    def with_inputs(self, inputs: Mapping[str, InputTensors], said: str = "inputs of a call") -> Drawing:
        """The same with the tensors of a call of as many queries as keys. Raises CallError for what does not fit."""
        from sparsec.pictures.given import given_coverage, on_cpu

        pattern, view, only = self.lowered.pattern, self.view, self.only
        if not 0 <= view.rows[0] < view.rows[1] <= view.keys:
            raise CallError(f"expected queries within the {view.keys} keys of a whole call, got {view.rows}")
        given = on_cpu(pattern, inputs, view.keys)

        def counted(cells: Cells) -> tuple[HeadCoverage, ...]:
            return given_coverage(pattern, given, view.keys, cells, only=only, view=view)

        return replace(self, given=counted, said=said)

    def svg(self) -> str:
        """One image."""
        return draw_svg(self.picture())

    def html(self) -> str:
        """A page of its own, without a reference to another: heads, length and place can be changed in it."""
        if self.given is not None:
            return page(self.title, [self.svg()])
        script = pattern_script([(self.name, self.lowered)], self.view, self.only)
        return page(self.title, [self.svg()], script)

    def json(self) -> str:
        """The shares of live pairs by cell, with the edges of the cells: what the pictures show."""
        found = self.coverage(_cells_of(1))
        share, of = live_share(found, self.view)
        heads = [
            {
                "heads": list(head.heads),
                "rows": head.rows.tolist(),
                "columns": head.columns.tolist(),
                "live": [[round(value, 6) for value in row] for row in head.live.tolist()],
                "live_pairs": head.live_pairs,
                "causal": head.causal,
                "exact": head.exact,
            }
            for head in found
        ]
        return json.dumps({"of": self.title, "live_share": share, "share_of": of, "heads": heads})

    save = save_drawing

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """For a notebook: the page in a frame of its own, which reaches nothing outside."""
        return framed_page(self.html(), self.picture())


def framed_page(text: str, picture: Picture) -> str:
    """A page as an element of another one."""
    rows = -(-len(picture.panels) // 3)
    return (
        f'<iframe sandbox="allow-scripts" style="width:100%;height:{min(260 + 340 * rows, 900)}px;border:0" '
        f'srcdoc="{escape(text)}"></iframe>'
    )


def panel_of(head: HeadCoverage, view: View) -> Panel:
    """One head, or the mean of several, as a panel."""
    note = f"{share_text([head], view)} live"
    return Panel(name_heads(head.heads), head.rows, head.columns, (Layer(0, levels(head.live)),), note)


def as_pictures(found: Sequence[HeadCoverage]) -> tuple[HeadCoverage, ...]:
    """Heads that share a picture and the number of live pairs as one."""
    merged: dict[object, HeadCoverage] = {}
    for n, head in enumerate(found):
        # An estimate does not tell that two sets are equal.
        key = (levels(head.live).tobytes(), head.live_pairs) if head.exact else n
        old = merged.get(key)
        merged[key] = head if old is None else replace(old, heads=tuple(sorted(old.heads + head.heads)))
    return tuple(merged.values())


def _cells_of(panels: int) -> Cells:
    """Finer grids for fewer panels."""
    return (128, 128) if panels <= 2 else (64, 64) if panels <= 16 else (32, 32)


def checked_view(
    pattern: ResolvedPattern,
    seq_len: int,
    queries: int | None = None,
    q_offset: int | None = None,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
    cu_seqlens: Sequence[int] | None = None,
) -> View:
    """`picture_view`, of a caller's numbers. Raises CallError for what is out of range."""
    keys = integer("seq_len", seq_len, 1, LONGEST)
    documents = () if cu_seqlens is None else tuple(integer("cu_seqlens", n, 0, keys) for n in cu_seqlens)
    if documents and pattern.documents is Documents.NONE:
        raise CallError("expected no cu_seqlens, since the pattern packs no documents")
    rising = all(a < b for a, b in pairwise(documents))
    if cu_seqlens is not None and not (rising and len(documents) > 1 and documents[0] == 0 and documents[-1] == keys):
        raise CallError(f"expected cu_seqlens that rise from 0 to {keys}, got {documents!r:.80}")
    if len(documents) > DOCUMENTS + 1:
        raise CallError(f"expected at most {DOCUMENTS} documents, got {len(documents) - 1}")
    view = picture_view(
        keys,
        queries=optional("queries", queries, 1, LONGEST),
        q_offset=optional("q_offset", q_offset, -LONGEST, LONGEST),
        documents=documents,
        restart=pattern.documents is Documents.RESTART,
    )
    return replace(view, rows=_within("rows", rows, view.rows), columns=_within("columns", columns, view.columns))


def _within(name: str, given: tuple[int, int] | None, limits: tuple[int, int]) -> tuple[int, int]:
    if given is None:
        return limits
    first, stop = (integer(name, at, *limits) for at in given)
    if first >= stop:
        raise CallError(f"expected {name} that are not empty, got {first}..{stop}")
    return first, stop


def picture_view(
    keys: int,
    *,
    queries: int | None = None,
    q_offset: int | None = None,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
    documents: Sequence[int] = (),
    restart: bool = False,
) -> View:
    """The part of the pairs that a call has: `queries` of them, the last of the keys if `q_offset` does not say where
    they begin. `rows` and `columns` are absolute positions, half-open."""
    first = q_offset if q_offset is not None else 0 if queries is None else keys - queries
    stop = first + (queries if queries is not None else max(keys - first, 1))
    return View(rows or (first, stop), columns or (0, keys), keys, tuple(documents), restart)

"""Bands -> how much of each distinct head is live in a part of its pairs, and where: the stuff of pictures and ratios.

Invariant: every row that is looked at is counted in closed form; where there are more rows than a picture can pay for,
evenly spread ones stand for the others and `exact` is False. Nothing of the size of a sequence is ever held.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sparsec.analysis.rows import GOLDEN, RowPlaces, keys_seen, row_edges, sampled_rows
from sparsec.ir.bands.band import Band
from sparsec.ir.bands.classes import BlockMask
from sparsec.ir.bands.liveness import is_causal
from sparsec.pipeline import Lowered

TILE = 64
"""Rows and columns of the tiles in which a pattern is counted."""

ROWS_A_CELL, ROWS_A_TOTAL = 16, 1024
"""Rows looked at for one row of cells, and for all pairs: at least so many of each of their parts, for few parts."""
FEW_ROWS = 2
"""Rows of a part at least, for many parts."""
GRID_WORK, TOTAL_WORK = 1 << 22, 1 << 21
"""Rows times points times bands, of all heads of a picture and of their totals; beyond, rows are sampled."""
SEVERAL = 16
"""What a point costs where several residues hold together, of what it costs where one does."""
CHUNK = 1 << 20
"""Rows times points that are held at a time."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class View:
    """The pairs of rows first <= i < stop and of such columns, among `keys` keys; ranges are half-open.

    `documents`: 0, then where each packed document ends; none: the sequence is one. `restart`: positions of the
    pattern count from the start of a row's document.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    keys: int
    documents: tuple[int, ...] = ()
    restart: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is of as many queries as keys, and of all."""
        return self.rows == self.columns == (0, self.keys)

    @property
    def causal_pairs(self) -> int:
        """Pairs with j <= i."""
        (first, stop), (left, right) = self.rows, self.columns
        start, full = max(first, left), max(first, right - 1)
        rising = max(min(stop, full) - start, 0)  # rows whose keys end at their own
        return rising * (2 * (start - left) + rising + 1) // 2 + max(stop - max(full, first), 0) * (right - left)

    @property
    def pairs(self) -> int:
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    def at(self, rows: Ints) -> RowPlaces:
        """Where those query positions stand."""
        if not self.documents:
            return RowPlaces.of_one_document(rows, self.keys)
        bounds = np.asarray(self.documents, np.int64)
        which = np.clip(np.searchsorted(bounds, rows, side="right") - 1, 0, len(bounds) - 2)
        begin, end = bounds[which], bounds[which + 1]
        if self.restart:
            return RowPlaces(rows, begin, end, begin, end - begin)
        return RowPlaces(rows, begin, end, np.zeros_like(rows), np.full_like(rows, self.keys))

    def row_edges(self, bands: tuple[Band, ...]) -> tuple[int, ...]:
        """Rows between two of which the sets of `bands` have one form."""
        if not self.documents:
            return row_edges(bands, self.keys)
        found = set(self.documents)
        if not self.restart:
            return tuple(sorted(found | set(row_edges(bands, self.keys))))
        of_size: dict[int, tuple[int, ...]] = {}
        for begin, end in pairwise(self.documents):
            size = end - begin
            if size not in of_size:
                of_size[size] = tuple(edge for edge in row_edges(bands, size) if 0 < edge < size)
            found |= {begin + edge for edge in of_size[size]}
        return tuple(sorted(found))


def whole_view(length: int) -> View:
    """All pairs of `length` queries on as many keys."""
    return View((0, length), (0, length), length)


@dataclass(frozen=True, slots=True)
class HeadCoverage:
    """One distinct head within a view.

    `live` is the share of live pairs by cell, [rows - 1, columns - 1], where `rows` and `columns` are the edges of the
    cells: positions, ascending. `live_pairs` is of one head and the whole view; an estimate unless `exact`. `causal`:
    no pair has j > i.
    """

    heads: tuple[int, ...]
    rows: Ints
    columns: Ints
    live: Floats
    live_pairs: float
    causal: bool
    exact: bool


def of_pairs(causal: bool) -> str:
    """The pairs that a share is of."""
    return "the causal pairs" if causal else "all pairs"


def dense_pairs(found: Iterable[HeadCoverage], view: View) -> tuple[int, bool]:
    """The pairs of dense attention that these heads, all of a pattern's, are held against, and whether it is causal.

    Causal if no head looks ahead.
    """
    heads = tuple(found)
    causal = all(head.causal for head in heads)
    return sum(len(head.heads) for head in heads) * (view.causal_pairs if causal else view.pairs), causal


def spread(count: int, limit: int) -> list[int]:
    """All of range(count), or `limit` of them, one at a varying place of each equal part: no stride can hide."""
    if count <= limit:
        return list(range(count))
    return sorted({min(int((n + n * GOLDEN % 1) * count / limit), count - 1) for n in range(limit)})


def cell_edges(first: int, stop: int, cells: int) -> Ints:
    """The edges of at most `cells` + 1 cells of first <= x < stop, at multiples of one power of two."""
    step = 1
    while -(-(stop - first) // step) > cells:
        step *= 2
    inner = np.arange(first // step + 1, -(-stop // step), dtype=np.int64) * step
    return np.concatenate([[first], inner, [stop]]).astype(np.int64)


def distinct_heads(lowered: Lowered) -> dict[tuple[Band, ...], tuple[int, ...]]:
    """The bands of each distinct head, and the heads that have them, in the order of their first; inputs name every
    pair that they may. Raises TooManyBands, TooManyClasses."""
    lowered.within_limits()
    named: dict[int, tuple[Band, ...]] = {}
    found: dict[tuple[Band, ...], list[int]] = {}
    for head, bands in enumerate(lowered.bands):
        if id(bands) not in named:
            named[id(bands)] = without_inputs(bands)
        found.setdefault(named[id(bands)], []).append(head)
    return {bands: tuple(heads) for bands, heads in found.items()}


def pattern_coverage(
    lowered: Lowered,
    length: int,
    cells: tuple[int, int] = (1, 1),
    *,
    only: int | None = None,
    view: View | None = None,
    most: int | None = None,
) -> tuple[HeadCoverage, ...]:
    """The coverage of each distinct head (or just of the one like head `only`; or of `most` heads) in a view, by
    default of all pairs of `length` queries on as many keys; inputs count as if they named every pair that they may.

    `cells`: the largest numbers of rows and of columns of the grids. Raises TooManyBands, TooManyClasses.
    """
    distinct = distinct_heads(lowered)
    wanted = [(bands, heads) for bands, heads in distinct.items() if only is None or only in heads][:most]
    view = view or whole_view(length)
    return tuple(coverage_of_bands(bands, heads, view, cells, share=len(wanted)) for bands, heads in wanted)


def coverage_of_bands(
    bands: tuple[Band, ...], heads: tuple[int, ...], view: View, cells: tuple[int, int], *, share: int = 1
) -> HeadCoverage:
    """The coverage of a set of pairs; `share`: how many of them share what a picture may cost."""
    rows, columns = cell_edges(*view.rows, cells[0]), cell_edges(*view.columns, cells[1])
    edges = view.row_edges(bands)
    width = len(columns) + 1 + sum(2 + sum(2 * test.draws.count for test in band.lists) for band in bands)
    together = sum(len(band.congruences) for band in bands) > 1
    cost = max(width * max(len(bands), 1) * share * (SEVERAL if together else 1), 1)
    height = len(rows) - 1
    total_cost = max(cost * (width - len(columns) + 2) // width, 1)
    # With one cell, or few, the grid and the total are one count.
    work = TOTAL_WORK if len(columns) == 2 else GRID_WORK
    samples = [
        _sampled(int(rows[n]), int(rows[n + 1]), edges, work // (cost * height), ROWS_A_CELL) for n in range(height)
    ]
    at, weights = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    cell = np.repeat(np.arange(height), [len(of_cell) for of_cell, _ in samples])
    exact, ahead, live = len(at) == rows[-1] - rows[0], False, np.zeros((height, len(columns) - 1))
    for part in _chunks(len(at), width):
        seen, beyond, counted = keys_seen(bands, view.at(at[part]), columns)
        exact, ahead = exact and counted, ahead or bool(beyond.any())
        np.add.at(live, cell[part], weights[part, None] * seen)
    total = float(live.sum())
    if not exact and len(columns) > 2:
        total, ahead, exact = _total(bands, view, edges, TOTAL_WORK // total_cost, width - len(columns) + 2)
    live /= np.diff(rows)[:, None] * np.diff(columns)[None, :]
    return HeadCoverage(heads, rows, columns, live, total, not ahead or all(map(is_causal, bands)), exact)


def _total(
    bands: tuple[Band, ...], view: View, edges: tuple[int, ...], rows: int, width: int
) -> tuple[float, bool, bool]:
    """The live pairs of the view, whether any has j > i, and whether every row was counted."""
    ends = np.asarray(view.columns, np.int64)
    at, weights = _sampled(*view.rows, edges, rows, ROWS_A_TOTAL)
    exact, ahead, total = len(at) == view.rows[1] - view.rows[0], False, 0.0
    for part in _chunks(len(at), width):
        seen, beyond, counted = keys_seen(bands, view.at(at[part]), ends)
        exact, ahead = exact and counted, ahead or bool(beyond.any())
        total += float(weights[part] @ seen[:, 0])
    return total, ahead, exact


def _sampled(first: int, stop: int, edges: tuple[int, ...], most: int, each: int) -> tuple[Ints, Floats]:
    """Some `most` of the rows, and `each` of a part while there are at most four."""
    parts = bisect_left(edges, stop) - bisect_right(edges, first) + 1
    return sampled_rows(first, stop, edges, max(most, each), max(min(4 * each // parts, each), FEW_ROWS))


def _chunks(count: int, width: int) -> Iterable[slice]:
    step = max(CHUNK // width, 1)
    return (slice(first, first + step) for first in range(0, count, step))


def without_inputs(bands: tuple[Band, ...]) -> tuple[Band, ...]:
    """The bands without their tests of inputs: every pair that they may name."""
    return tuple(dict.fromkeys(replace(band, inputs=()) for band in bands))


def whatever_inputs_name(mask: BlockMask) -> BlockMask:
    """The mask without its tests of inputs: every pair that they may name."""
    return replace(mask, classes=tuple(replace(of, bands=without_inputs(of.bands)) for of in mask.classes))

"""Dense bands of one tile of rows -> their ranges of tiles -> ordered, disjoint intervals of visited and full tiles."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from sparsec.ir.bands.band import Band
from sparsec.ir.bands.bounds import Base, Bound, constant, end, highest, most_above, never_above
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.nodes import ZERO, Expr
from sparsec.ir.expr.scalars import TRANSPOSED, Interval, Scalars
from sparsec.ir.tiles.band_rows import maybe_live, surely_live

FULL_BAND_LIMIT = 6
"""Dense bands, at most, whose full tiles are told apart; further ones run masked, as segments grow quadratically."""


def visited_ranges(scalars: Scalars, dense: tuple[Band, ...], closed: bool) -> list[Interval]:
    """Of each dense band the tiles that it may touch.

    `closed`: the last one reaches the end of its upper bound even where the band itself is empty.
    """
    found = []
    for band in dense:
        tokens, some = maybe_live(scalars, band)
        start = scalars.minimum(scalars.floor_tile(tokens.start), scalars.floor_tile(scalars.frame.end))
        stop = scalars.ceil_tile(tokens.stop)
        if not (closed and band is dense[-1]):
            stop = x.select(x.less(tokens.start, tokens.stop), stop, start)
        start, stop = x.select(some, start, ZERO), x.select(some, stop, ZERO)
        start = scalars("from", start)
        found.append(Interval(start, scalars("to", scalars.maximum(start, stop)), band.origin))
    return found


def disjoint(scalars: Scalars, ranges: list[Interval], ordered: bool) -> list[Interval]:
    """Ordered disjoint intervals with the tiles of the ranges; `ordered`: their starts never decrease."""
    result: list[Interval] = []
    reached: Expr = ZERO
    for tiles in ranges if ordered else in_start_order(scalars, ranges):
        start = scalars("start", scalars.maximum(tiles.start, reached))
        reached = scalars("stop", scalars.maximum(start, tiles.stop))
        result.append(Interval(start, reached, tiles.origin))
    return result


def full_intervals(scalars: Scalars, dense: tuple[Band, ...], ordered: bool) -> dict[Band, Interval]:
    """Ordered disjoint intervals of full tiles; touching sure intervals are joined before they are cut to tiles.

    Those of `ordered` bands that lie apart are each band's own; else only their order says anything.
    """
    raw = []
    wide = _wide_enough([b for b in dense if not b.congruences], scalars.column_tile, scalars.frame is not TRANSPOSED)
    for band in wide[:FULL_BAND_LIMIT]:
        tokens, every = surely_live(scalars, band)
        start = scalars("sure_lo", x.select(every, tokens.start, ZERO))
        stop = scalars("sure_hi", x.select(every, scalars.maximum(tokens.start, tokens.stop), ZERO))
        raw.append(Interval(start, stop, band.origin))
    if not ordered:
        raw = in_start_order(scalars, raw)
    result: dict[Band, Interval] = {}
    run_start: Expr = ZERO
    run_stop: Expr = ZERO
    cut: Expr = ZERO
    for band, tokens in zip(wide, raw, strict=False):
        if result:
            joins = x.at_most(tokens.start, run_stop)
            run_start = scalars("run_lo", x.select(joins, run_start, tokens.start))
            run_stop = scalars("run_hi", scalars.maximum(run_stop, tokens.stop))
        else:
            run_start, run_stop = tokens.start, tokens.stop
        start = scalars("full_from", scalars.maximum(scalars.ceil_tile(run_start), cut))
        cut = scalars("full_to", scalars.maximum(start, scalars.floor_tile(run_stop)))
        result[band] = Interval(start, cut, tokens.origin)
    return result


def all_apart(ordered: tuple[Band, ...]) -> bool:
    """Whether each band is proved to end before the next one begins, in every row and head."""
    return all(_ends_before(a, b) for a, b in pairwise(ordered))


def _wide_enough(bands: list[Band], tile: int, from_zero: bool) -> list[Band]:
    """The bands that may hold a full tile, alone or with those that may touch them; as of `in_order`.

    Bands that are proved to lie apart cannot hold a tile together, nor can bands of fewer columns than it has.
    """
    groups: list[list[Band]] = []
    for band in bands:
        near = [group for group in groups if not all(_apart(band, other) for other in group)]
        groups = [group for group in groups if group not in near] + [[band, *(b for group in near for b in group)]]
    found = []
    for group in groups:
        widths = [_most_columns(band, from_zero) for band in group]
        if any(width is None for width in widths) or sum(width for width in widths if width is not None) >= tile:
            found += group
    return [band for band in bands if band in found]


def _apart(a: Band, b: Band) -> bool:
    """Whether the two are proved to have a column between them, in every row and head."""
    return _ends_before(a, b) or _ends_before(b, a)


def _ends_before(a: Band, b: Band) -> bool:
    pairs = ((high, low) for high in a.upper for low in b.lower)
    return any((most := most_above(high, low)) is not None and most < 0 for high, low in pairs)


def _most_columns(band: Band, from_zero: bool) -> int | None:
    """How many columns of a row the band holds at most, where that is proved."""
    lower, upper = band.lower, band.upper
    if from_zero:
        lower, upper = (*lower, constant(0)), (*upper, end(0))
    found = [most for high in upper for low in lower if (most := most_above(high, low)) is not None]
    return max(0, min(found)) if found else None


def in_start_order(scalars: Scalars, intervals: list[Interval]) -> list[Interval]:
    """The intervals in order of their starts, by exchanges; used where no order is proved for every row."""
    items = list(intervals)
    origin = " | ".join(dict.fromkeys(i.origin for i in items))
    for n, m in exchanges(len(items)):
        a, b = items[n], items[m]
        swap = x.less(b.start, a.start)
        items[n] = Interval(
            scalars("low", x.minimum(a.start, b.start)),
            scalars("low_end", x.select(swap, b.stop, a.stop)),
            origin,
        )
        items[m] = Interval(
            scalars("high", x.maximum(a.start, b.start)),
            scalars("high_end", x.select(swap, a.stop, b.stop)),
            origin,
        )
    return items


def exchanges(count: int) -> Iterator[tuple[int, int]]:
    """Pairs (low, high) of places that sort any `count` values when exchanged in turn where they stand the wrong way.

    Batcher's merge exchange (Knuth, The Art of Computer Programming, volume 3, algorithm 5.2.2M).
    """
    top = 1 << max(count - 1, 0).bit_length() >> 1
    step = top
    while step:
        width, residue, distance = top, 0, step
        while True:
            yield from ((low, low + distance) for low in range(count - distance) if low & step == residue)
            if width == step:
                break
            distance, width, residue = width - step, width >> 1, step
        step >>= 1


def in_order(dense: tuple[Band, ...], *, from_zero: bool) -> tuple[tuple[Band, ...], bool]:
    """The bands in an order in which lower bounds never decrease, and whether that is proved for every row and head.

    `from_zero`: no column lies before position 0; queries may, where there are more of them than keys.
    """
    later = [{m for m, b in enumerate(dense) if a is not b and not _starts_before(a, b, from_zero)} for a in dense]
    remaining = list(range(len(dense)))
    result: list[int] = []
    while remaining:
        least = next((n for n in remaining if later[n].isdisjoint(remaining)), None)
        if least is None:
            return tuple(dense[n] for n in (*result, *remaining)), False
        remaining.remove(least)
        result.append(least)
    return tuple(dense[n] for n in result), True


def _starts_before(a: Band, b: Band, from_zero: bool) -> bool:
    """Whether a.lower <= b.lower is proved for the rows at which each is evaluated; `from_zero`: both at least 0.

    Each is evaluated at its own first row of the tile, and a band of which the tile has no row may stand anywhere.
    """
    rows = all(any(never_above(first, other) for other in b.first_row) for first in a.first_row)
    return all(
        (from_zero and _starts_at_zero(low))
        or any(never_above(low, other) and (rows or low.base is not Base.ROW) for other in b.lower)
        for low in a.lower
    )


def _starts_at_zero(bound: Bound) -> bool:
    return bound.base is Base.START and highest(bound.offset) <= 0

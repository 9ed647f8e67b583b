"""Bands -> tile program: which column tiles a tile of rows visits, full or masked, each exactly once.

Dense bands become ordered, disjoint tile intervals (`dense`); strided bands enumerate their residue's tiles in the gaps
between those (`strided`); random terms come next, minus all of these (`listed`), and last what inputs name (`asked`).

Invariant: see `ir.tiles.program.TileProgram`.
"""

from __future__ import annotations

from sparsec.ir.bands.band import Band, Draws
from sparsec.ir.bands.classes import BandClass
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.nodes import FALSE, TRUE, ZERO, Bool, Let, Var
from sparsec.ir.expr.scalars import DOCUMENT, FORWARD, TRANSPOSED, Interval, Scalars, gaps
from sparsec.ir.tiles.asked import add_asked, asks_inputs, gathers, input_tests, source_of
from sparsec.ir.tiles.band_rows import band_predicate, maybe_live
from sparsec.ir.tiles.dense import all_apart, disjoint, full_intervals, in_order, visited_ranges
from sparsec.ir.tiles.listed import add_listed, add_scan, list_specs
from sparsec.ir.tiles.program import Gather, ListSpec, Ranges, Segment, TileProgram, lets_for, names_read
from sparsec.ir.tiles.strided import (
    Segments,
    Strided,
    add_strided,
    begins_within,
    closed_by,
    enumerator,
    residue_of,
    strided,
    strided_visits,
    touches,
)

CONDITION_LIMIT = 64
"""Conditions, at most, that keep the loops of strided and listed bands off each other's tiles and the dense ones'."""


def project(
    mask: BandClass, query_tile: int, key_tile: int, *, in_document: bool = False, gathers_columns: bool = False
) -> TileProgram:
    """The key tiles of a query tile, for one head class. Tiles must divide the block size of every random term.

    `in_document`: only keys from `begin` to `end` (inputs of the program) are visited; a tile that straddles either end
    runs masked, and the kernel leaves the keys outside them out, as it does those from nk on. `gathers_columns`: single
    keys that an input lists for all queries are gathered, else the tiles that hold one are visited.
    """
    return _project(mask, Scalars(query_tile, key_tile, DOCUMENT if in_document else FORWARD), gathers_columns)


def project_transposed(
    mask: BandClass, query_tile: int, key_tile: int, *, gathers_columns: bool = False
) -> TileProgram:
    """The query tiles of a key tile, for one class of transposed bands (`grouped_mask(..., transposed=True)`)."""
    return _project(mask, Scalars(key_tile, query_tile, TRANSPOSED), gathers_columns)


def _project(mask: BandClass, scalars: Scalars, gathers_columns: bool) -> TileProgram:
    row_tile, column_tile, frame = scalars.row_tile, scalars.column_tile, scalars.frame
    gathered = tuple(b for b in mask.bands if source_of(b, columns=gathers_columns) is not None)
    of_tiles = tuple(b for b in mask.bands if b not in gathered)
    asked = tuple(filter(asks_inputs, of_tiles))
    closed_form = tuple(b for b in of_tiles if b not in asked)
    listed = tuple(b for b in closed_form if any(not test.negated for test in b.lists))
    sparse = tuple(b for b in closed_form if b not in listed and enumerator(b, row_tile, column_tile) is not None)
    dense, ordered = in_order(
        tuple(b for b in closed_form if b not in listed and b not in sparse), from_zero=frame is not TRANSPOSED
    )
    lists, inputs = list_specs(mask), input_tests(mask)
    segments = Segments([], [])

    closed = ordered and bool(dense) and any(closed_by(b, dense[-1]) for b in sparse)
    touched = visited_ranges(scalars, dense, closed)
    visited = disjoint(scalars, touched, ordered)
    surely = full_intervals(scalars, dense, ordered)
    when = _sole_filter(scalars, of_tiles, dense)
    _add_dense(scalars, segments, visited, surely, dense if ordered and all_apart(dense) else (), when)
    ranges = _read_ranges(scalars, segments, touched, list(surely.values()))
    scanned = (*sparse, *listed)
    if len(scanned) * (len(scanned) + len(visited)) > CONDITION_LIMIT:
        taken = add_scan(scalars, segments, scanned, lists, visited)
    else:
        taken = _add_each(scalars, segments, sparse, listed, lists, visited, dense[-1] if closed else None)
    if asked:
        for tiles in visited:
            taken = x.either(taken, x.both(x.at_most(tiles.start, Var("tile")), x.less(Var("tile"), tiles.stop)))
        add_asked(scalars, segments, asked, lists, inputs, taken)
    live: Bool = FALSE
    for band in of_tiles:
        live = x.either(live, band_predicate(band, tuple(draws for _, draws in lists), inputs, frame))
    own = gathers(scalars, gathered, lists, inputs, live, columns=gathers_columns)
    return TileProgram(
        column_tile if frame is TRANSPOSED else row_tile,
        row_tile if frame is TRANSPOSED else column_tile,
        _read_lets(scalars, segments, own),
        tuple(segments.full),
        tuple(segments.masked),
        live,
        tuple(spec for spec, _ in lists),
        ranges,
        inputs,
        own,
    )


def _add_each(
    scalars: Scalars,
    segments: Segments,
    sparse: tuple[Band, ...],
    listed: tuple[Band, ...],
    lists: list[tuple[ListSpec, Draws]],
    visited: list[Interval],
    closing: Band | None,
) -> Bool:
    """Adds loops for each strided and each listed band; `closing`: the last dense band, if its tiles reach its end.

    Returns whether one of them visits tile `tile`, as far as it is in no interval of `visited`.
    """
    earlier: list[Strided] = []
    for band in sparse:
        described = strided(scalars, band)
        within = closing is not None and closed_by(band, closing)
        right = closing is None or not (within and begins_within(closing, band))
        add_strided(scalars, segments, described, gaps(visited)[: -1 if within else None], tuple(earlier), right)
        earlier.append(described)
    seen: Bool = FALSE
    for band in listed:
        seen = add_listed(scalars, segments, band, lists, visited, tuple(earlier), seen)
    for each in earlier:
        seen = x.either(seen, strided_visits(scalars, each, Var("tile")))
    return seen


def _add_dense(
    scalars: Scalars,
    segments: Segments,
    visited: list[Interval],
    surely: dict[Band, Interval],
    apart: tuple[Band, ...],
    when: Bool,
) -> None:
    """`apart`: the bands of `visited`, if a full tile of one is never visited for another."""
    for tiles in surely.values():
        _add(scalars, segments.full, tiles, TRUE)
    for n, tiles in enumerate(visited):
        full = [surely[band] for band in (apart[n : n + 1] if apart else surely) if band in surely]
        for gap in gaps(full):
            _add(scalars, segments.masked, scalars.meet(tiles, gap), when)


def _add(scalars: Scalars, segments: list[Segment], tiles: Interval, when: Bool) -> None:
    """Appends a contiguous segment, unless it is plainly empty."""
    count = scalars.maximum(x.sub(tiles.stop, tiles.start), ZERO)
    if tiles.stop != ZERO and count != ZERO:
        segments.append(Segment(scalars("count", count), x.add(tiles.start, Var("n")), when, True, None, tiles.origin))


def _sole_filter(scalars: Scalars, bands: tuple[Band, ...], dense: tuple[Band, ...]) -> Bool:
    """For a set of one dense band: whether a tile holds a token of each of its congruences. Else TRUE."""
    when: Bool = TRUE
    for band in dense if len(bands) == 1 else ():
        tokens, _ = maybe_live(scalars, band)
        for congruence in band.congruences:
            when = x.both(when, touches(scalars, residue_of(scalars, congruence), Var("tile"), tokens))
    return when


def _read_ranges(scalars: Scalars, segments: Segments, visited: list[Interval], full: list[Interval]) -> Ranges:
    """The ranges whose ends the dense segments read, if they are names; none where these leave out tiles of ranges."""
    read: set[str] = set()
    for segment in (*segments.full, *segments.masked):
        if segment.when == TRUE:
            read |= names_in(segment.count) | names_in(segment.tile)
    read.update(let.name for let in lets_for(scalars.items, read))

    def kept(ranges: list[Interval]) -> tuple[Interval, ...]:
        return tuple(each for each in ranges if names_in(each.start) | names_in(each.stop) <= read)

    return Ranges(kept(visited), kept(full))


def _read_lets(scalars: Scalars, segments: Segments, own: tuple[Gather, ...]) -> tuple[Let, ...]:
    """The lets that a segment or a gather reads, by itself or through another."""
    return lets_for(scalars.items, names_read((*segments.full, *segments.masked), own))

"""Random terms: their tables of draws, and the drawn tiles that no closed form visits."""

from __future__ import annotations

from sparsec.ir.bands.band import Band, Draws, ListTest
from sparsec.ir.bands.classes import BandClass
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.nodes import ZERO, Bool, Int, Listed, Var
from sparsec.ir.expr.scalars import TRANSPOSED, Interval, Scalars
from sparsec.ir.tiles.band_rows import lower_bound, maybe_live, rows_within, upper_bound
from sparsec.ir.tiles.program import ListSpec, Segment
from sparsec.ir.tiles.strided import Segments, Strided, residue_of, strided_visits, touches


def lane_rows(mask: BandClass) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The head constants that say which row of each random term's table is a head's (see ListSpec)."""
    rows = []
    for spec, draws in list_specs(mask):
        lanes = _lanes(draws, mask)
        rows.append((spec.lane_row, tuple(spec.lanes.index(lane) for lane in lanes)))
    return tuple(rows)


def list_specs(mask: BandClass) -> list[tuple[ListSpec, Draws]]:
    found = dict.fromkeys(test.draws for band in mask.bands for test in band.lists)
    return [
        (ListSpec(draws.count, draws.block, tuple(dict.fromkeys(_lanes(draws, mask))), f"row{n}"), draws)
        for n, draws in enumerate(found)
    ]


def _lanes(draws: Draws, mask: BandClass) -> tuple[tuple[int, int], ...]:
    """(seed, lane) of each head of the class."""
    if isinstance(draws.lane, int):
        return ((draws.seed, draws.lane),) * len(mask.heads)
    return tuple((draws.seed, lane) for lane in dict(mask.constants)[draws.lane.name])


def ordinal_of(test: ListTest, lists: list[tuple[ListSpec, Draws]]) -> int:
    return next(n for n, (_, draws) in enumerate(lists) if draws == test.draws)


def reach(
    scalars: Scalars, band: Band, lists: list[tuple[ListSpec, Draws]], tests: tuple[ListTest, ...]
) -> tuple[Interval, Bool]:
    """The tiles that the band's bounds allow; and whether tile `tile` is one that holds a token of each congruence of
    the band and that passes `tests`."""
    tile = Var("tile")
    tokens, some = maybe_live(scalars, band)
    some = x.both(some, x.less(tokens.start, tokens.stop))
    start = scalars("from", scalars.floor_tile(tokens.start))
    stop = scalars("to", x.select(some, scalars.ceil_tile(tokens.stop), start))
    inside = x.both(x.at_most(start, tile), x.less(tile, stop))
    for c in band.congruences:
        inside = x.both(inside, touches(scalars, residue_of(scalars, c), tile, tokens))
    for test in tests:
        drawn: Bool = Listed(ordinal_of(test, lists))
        inside = x.both(inside, x.negate(drawn) if test.negated else drawn)
    return Interval(start, stop, band.origin), inside


def add_scan(
    scalars: Scalars,
    segments: Segments,
    bands: tuple[Band, ...],
    lists: list[tuple[ListSpec, Draws]],
    visited: list[Interval],
) -> Bool:
    """Adds the tiles of many strided and listed bands in one loop that asks of every tile whether some band reaches it;
    returns that test, which holds of none in `visited`.

    Loops of their own would each have to leave out the tiles of all bands before.
    """
    tile = Var("tile")
    first, *others = (reach(scalars, band, lists, band.lists) for band in bands)
    tiles, when = first
    start, stop = tiles.start, tiles.stop
    for more, inside in others:
        start = scalars("scan_from", scalars.minimum(start, more.start))
        stop = scalars("scan_to", scalars.maximum(stop, more.stop))
        when = x.either(when, inside)
    for dense in visited:
        when = x.both(when, x.negate(x.both(x.at_most(dense.start, tile), x.less(tile, dense.stop))))
    origin = " | ".join(dict.fromkeys(band.origin for band in bands))
    segments.masked.append(
        Segment(scalars("count", x.sub(stop, start)), x.add(start, Var("n")), when, True, None, origin)
    )
    return when


def add_listed(
    scalars: Scalars,
    segments: Segments,
    band: Band,
    lists: list[tuple[ListSpec, Draws]],
    visited: list[Interval],
    strided: tuple[Strided, ...],
    seen: Bool,
) -> Bool:
    """Adds the drawn tiles that nothing else visits; returns `seen` extended by this band's tiles."""
    tile = Var("tile")
    first_test = next(t for t in band.lists if not t.negated)
    ordinal = ordinal_of(first_test, lists)
    spec, _ = lists[ordinal]
    _, inside = reach(scalars, band, lists, tuple(test for test in band.lists if test is not first_test))
    when = inside
    for interval in visited:
        when = x.both(when, x.negate(x.both(x.at_most(interval.start, tile), x.less(tile, interval.stop))))
    for other in strided:
        when = x.both(when, x.negate(strided_visits(scalars, other, tile)))
    when = x.both(when, x.negate(seen))
    seen = x.either(seen, x.both(Listed(ordinal), inside))
    if scalars.frame is TRANSPOSED:  # a table lists the keys of a query, so every query tile has to be asked
        when = x.both(when, Listed(ordinal))
        segments.masked.append(Segment(scalars.ceil_tile(scalars.frame.end), Var("n"), when, True, None, band.origin))
        return seen
    per_block = spec.block // scalars.column_tile
    count = Int(spec.width * per_block)
    found = x.add(x.mul(Var("entry"), Int(per_block)), x.mod(Var("n"), Int(per_block), nonneg=True))
    when = x.both(x.less(Int(-1), Var("entry")), when)
    if band.congruences or band.inputs or len(band.lists) > 1:
        segments.masked.append(Segment(count, found, when, False, ordinal, band.origin))
        return seen
    first, last = scalars.frame.first, scalars.frame.last
    sure = Interval(
        scalars("lo", lower_bound(scalars, band, last)), scalars("hi", upper_bound(scalars, band, first)), band.origin
    )
    _, _, _, every = rows_within(scalars, band)
    whole = x.both(
        x.at_most(scalars("full_from", scalars.ceil_tile(sure.start)), tile),
        x.less(tile, scalars("full_to", x.select(every, scalars.floor_tile(sure.stop), ZERO))),
    )
    segments.full.append(Segment(count, found, x.both(when, whole), False, ordinal, band.origin))
    segments.masked.append(Segment(count, found, x.both(when, x.negate(whole)), False, ordinal, band.origin))
    return seen

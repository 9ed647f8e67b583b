"""Bands of an input -> one loop over the tiles of their bounds that asks the inputs of each; and lists of rows, of
columns and of caches.

Invariant: a tile that a closed form visits, or a random term, is not visited again; a pair of a list is one that no
tile holds and that comes in no earlier list.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

from sparsec.ir.bands.band import Asks, Band, Draws, InputTest, plain
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.ir.bands.classes import BandClass
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.nodes import FALSE, TRUE, ZERO, Bool, Extent, Picked, Var
from sparsec.ir.expr.scalars import TRANSPOSED, Interval, Scalars
from sparsec.ir.tiles.band_rows import band_predicate, maybe_live, surely_live
from sparsec.ir.tiles.listed import reach
from sparsec.ir.tiles.program import Gather, ListSpec, Segment
from sparsec.ir.tiles.strided import Segments


def input_tests(mask: BandClass) -> tuple[InputTest, ...]:
    """What the bands ask inputs, each once, without negations."""
    return tuple(dict.fromkeys(plain(test) for band in mask.bands for test in band.inputs))


def asks_inputs(band: Band) -> bool:
    """Whether the band holds pairs that an input names: no closed form bounds its tiles well."""
    return any(not test.negated for test in band.inputs)


def source_of(band: Band, *, columns: bool) -> InputTest | None:
    """The list whose entries hold all pairs of the band, if there is one: the cache's, or of rows, or of `columns`."""
    kinds = (Asks.KEPT, Asks.ROW, Asks.COLUMN) if columns else (Asks.KEPT, Asks.ROW)
    lists = [test for test in band.inputs if test.asks in kinds and not test.negated]
    lists = [test for test in lists if test.asks is not Asks.COLUMN or test.width == 1]
    return min(lists, key=lambda test: kinds.index(test.asks), default=None)


def add_asked(
    scalars: Scalars,
    segments: Segments,
    bands: tuple[Band, ...],
    lists: list[tuple[ListSpec, Draws]],
    inputs: tuple[InputTest, ...],
    taken: Bool,
) -> None:
    """Adds the tiles of bands that ask inputs: full where one of them surely holds all pairs, masked where one may
    hold some. `taken`: whether another loop visits tile `tile`."""
    tile = Var("tile")
    some: Bool = FALSE
    every: Bool = FALSE
    hull: Interval | None = None
    for band in bands:
        tiles, inside = reach(scalars, band, lists, band.lists)
        hull = tiles if hull is None else _hull(scalars, hull, tiles)
        some = x.either(some, x.both(inside, _all(band, inputs, Extent.SOME)))
        if band.congruences or band.lists:
            continue
        tokens, sure = surely_live(scalars, replace(band, inputs=()))
        start = scalars("full_from", scalars.ceil_tile(tokens.start))
        stop = scalars("full_to", x.select(sure, scalars.floor_tile(tokens.stop), ZERO))
        whole = x.both(x.at_most(start, tile), x.less(tile, stop))
        every = x.either(every, x.both(whole, _all(band, inputs, Extent.EVERY)))
    assert hull is not None, "there is a band"
    free = x.negate(taken)
    count, at = scalars("count", x.sub(hull.stop, hull.start)), x.add(hull.start, Var("n"))
    origin = " | ".join(dict.fromkeys(band.origin for band in bands))
    if every != FALSE:
        segments.full.append(Segment(count, at, x.both(every, free), True, None, origin))
    segments.masked.append(Segment(count, at, x.both(x.both(some, x.negate(every)), free), True, None, origin))


def gathers(
    scalars: Scalars,
    bands: tuple[Band, ...],
    lists: list[tuple[ListSpec, Draws]],
    inputs: tuple[InputTest, ...],
    live: Bool,
    *,
    columns: bool,
) -> tuple[Gather, ...]:
    """The lists with their pairs, those of columns first; `live`: the predicate of the pairs that tiles hold."""
    found: list[Gather] = []
    draws = tuple(each for _, each in lists)
    taken = live
    order = (Asks.COLUMN, Asks.ROW, Asks.KEPT)  # marks of kept keys are asked of their entries alone
    sources = dict.fromkeys(source for band in bands if (source := source_of(band, columns=columns)) is not None)
    for source in sorted(sources, key=lambda each: order.index(each.asks)):
        own: Bool = FALSE
        ours = [band for band in bands if source_of(band, columns=columns) == source]
        for band in ours:
            rest = replace(band, inputs=tuple(test for test in band.inputs if test != source))
            own = x.either(own, band_predicate(rest, draws, inputs, scalars.frame))
        origin = " | ".join(dict.fromkeys(band.origin for band in ours))
        ordinal = inputs.index(source)
        reached = _reached(scalars, ours, lists) if source.asks is Asks.COLUMN else None
        found.append(Gather(ordinal, x.both(own, x.negate(taken)), origin, reached))
        taken = x.either(taken, x.both(Picked(ordinal, Extent.PAIR), own))
    return tuple(found)


def _reached(scalars: Scalars, bands: list[Band], lists: list[tuple[ListSpec, Draws]]) -> Interval:
    """See `Gather.reach`."""
    hull: Interval | None = None
    for band in bands:
        if scalars.frame is TRANSPOSED:
            apart = copy(scalars)  # it names the same lets
            apart.row_tile = POSITION_LIMIT
            own, _ = reach(apart, band, lists, ())
        else:
            tokens, some = maybe_live(scalars, band)
            own = replace(tokens, stop=x.select(some, tokens.stop, tokens.start))
        hull = own if hull is None else _hull(scalars, hull, own)
    assert hull is not None, "there is a band"
    return hull


def _all(band: Band, inputs: tuple[InputTest, ...], scope: Extent) -> Bool:
    """Whether the tile passes all of the band's input tests, of SOME or of EVERY pair; of a negated one the other."""
    result: Bool = TRUE
    other = Extent.SOME if scope is Extent.EVERY else Extent.EVERY
    for test in band.inputs:
        ordinal = inputs.index(plain(test))
        result = x.both(result, x.negate(Picked(ordinal, other)) if test.negated else Picked(ordinal, scope))
    return result


def _hull(scalars: Scalars, a: Interval, b: Interval) -> Interval:
    """The least interval that has both, where an empty one may lie anywhere."""
    start = scalars("hull_from", scalars.minimum(a.start, b.start))
    return Interval(start, scalars("hull_to", scalars.maximum(a.stop, b.stop)), a.origin)

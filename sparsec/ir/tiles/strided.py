"""Strided bands of one tile of rows -> the tiles of their residues, in the gaps between dense intervals."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.ir.bands.band import Band, Congruence
from sparsec.ir.bands.bounds import Base, Bound, never_above, number_expr
from sparsec.ir.bands.normalise import upper_before
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.nodes import FALSE, ONE, TRUE, ZERO, Bool, Expr, Int, Var
from sparsec.ir.expr.scalars import Gap, Interval, Scalars
from sparsec.ir.tiles.band_rows import maybe_live, surely_live
from sparsec.ir.tiles.program import Segment


@dataclass(frozen=True, slots=True)
class Segments:
    """The loops of a tile program in the making."""

    full: list[Segment]
    masked: list[Segment]


@dataclass(frozen=True, slots=True)
class Residue:
    """A congruence over one tile of rows: tokens [offset + r*period, offset + r*period + width) for every integer r.

    `width_limit` is the largest value that `width` can take.
    """

    offset: Expr
    period: int
    width: Expr
    width_limit: int


@dataclass(frozen=True, slots=True)
class Strided:
    """A strided band over one tile of rows: its tokens and tiles, the tiles that are full, the residue to enumerate."""

    tokens: Interval
    may: Interval
    must: Interval | None
    residue: Residue
    exact: bool
    others: tuple[Residue, ...]


def residue_of(scalars: Scalars, c: Congruence) -> Residue:
    """The congruence's live tokens for the rows of this tile."""
    phase, origin = number_expr(c.phase), scalars.frame.origin
    if not c.moving:
        offset = _from_origin(x.mul(phase, Int(c.unit)), origin, c)
        return Residue(scalars("offset", offset), c.period * c.unit, Int(c.width * c.unit), c.width * c.unit)
    spanned = blocks_spanned(c, scalars.row_tile)
    first, last = x.floor_div(scalars.frame.first, Int(c.unit)), x.floor_div(scalars.frame.last, Int(c.unit))
    offset = _from_origin(x.mul(x.mod(x.add(first, phase), Int(c.period)), Int(c.unit)), origin, c)
    blocks: Expr = Int(c.width) if spanned == 1 else x.add(x.sub(last, first), Int(c.width))
    return Residue(
        scalars("offset", offset),
        c.period * c.unit,
        scalars("width", x.mul(blocks, Int(c.unit))),
        (spanned - 1 + c.width) * c.unit,
    )


def _from_origin(offset: Expr, origin: Expr, c: Congruence) -> Expr:
    """The offset counted from `origin`, again within one period."""
    return offset if origin == ZERO else x.mod(x.sub(offset, origin), Int(c.period * c.unit))


def blocks_spanned(c: Congruence, row_tile: int) -> int:
    """The most units of a moving congruence that the rows of one tile lie in; 1 for one that does not move."""
    if not c.moving or c.unit % row_tile == 0:
        return 1
    return row_tile // c.unit if row_tile % c.unit == 0 else (row_tile - 2) // c.unit + 2


def enumerator(band: Band, row_tile: int, column_tile: int) -> Congruence | None:
    """The band's sparsest congruence that leaves whole tiles out, if there is one."""
    sparse = [
        c for c in band.congruences if (c.period - blocks_spanned(c, row_tile) + 1 - c.width) * c.unit >= column_tile
    ]
    return max(sparse, key=lambda c: c.period / c.width, default=None)


def aligned(scalars: Scalars, c: Congruence) -> bool:
    """Whether the congruence's runs start and end on key tiles, for every row of the tile alike."""
    return c.unit % scalars.column_tile == 0 and (not c.moving or c.unit % scalars.row_tile == 0)


def strided(scalars: Scalars, band: Band) -> Strided:
    """What `add_strided` needs to know of a band that has an enumerator."""
    chosen = enumerator(band, scalars.row_tile, scalars.column_tile)
    assert chosen is not None
    tokens, some = maybe_live(scalars, band)
    some = x.both(some, x.less(tokens.start, tokens.stop))
    start = scalars("from", scalars.floor_tile(tokens.start))
    stop = scalars("to", x.select(some, scalars.ceil_tile(tokens.stop), start))
    exact = aligned(scalars, chosen)
    must = None
    if exact and band.congruences == (chosen,):
        sure, every = surely_live(scalars, band)
        sure_start = scalars.ceil_tile(sure.start)
        if every != FALSE:
            must = Interval(
                scalars("full_from", sure_start),
                scalars("full_to", x.select(every, scalars.floor_tile(sure.stop), sure_start)),
                band.origin,
            )
    others = tuple(residue_of(scalars, c) for c in band.congruences if c != chosen)
    return Strided(tokens, Interval(start, stop, band.origin), must, residue_of(scalars, chosen), exact, others)


def add_strided(
    scalars: Scalars, segments: Segments, band: Strided, gaps: list[Gap], earlier: tuple[Strided, ...], right: bool
) -> None:
    """Adds the band's tiles in the gaps between dense intervals; unless `right`, none lies past the sure ones."""
    tile = Var("tile")
    when: Bool = TRUE
    for other in band.others:
        when = x.both(when, touches(scalars, other, tile, band.tokens))
    for other_band in earlier:
        when = x.both(when, x.negate(strided_visits(scalars, other_band, tile)))
    for gap in gaps:
        inside = scalars.meet(band.may, gap)
        if inside.stop in (ZERO, inside.start):
            continue
        if band.must is None or when != TRUE:
            add_run(scalars, segments.masked, inside, band, when)
            continue
        stop = scalars("until", inside.stop)
        if band.must.start != band.may.start:
            left = Interval(inside.start, scalars("until", scalars.minimum(stop, band.must.start)), inside.origin)
            add_run(scalars, segments.masked, left, band, when)
        start = scalars("at", scalars.maximum(inside.start, band.must.start))
        middle = scalars("until", scalars.minimum(stop, band.must.stop))
        add_run(scalars, segments.full, Interval(start, middle, inside.origin), band, TRUE)
        if right:
            rest = scalars("at", scalars.maximum(start, band.must.stop))
            add_run(scalars, segments.masked, Interval(rest, stop, inside.origin), band, when)


def add_run(scalars: Scalars, segments: list[Segment], tiles: Interval, band: Strided, when: Bool) -> None:
    """Appends the residue's tiles within `tiles`, unless they are plainly none."""
    start = scalars("at", tiles.start)
    within = Interval(start, scalars("until", scalars.maximum(tiles.stop, start)), tiles.origin)
    count, tile, in_run = (_by_tile if band.exact else _by_run)(scalars, within, band)
    span = within if band.exact else None
    count = scalars("count", count)
    if count != ZERO:
        segments.append(Segment(count, tile, x.both(in_run, when), False, None, tiles.origin, span))


def _by_tile(scalars: Scalars, within: Interval, band: Strided) -> tuple[Expr, Expr, Bool]:
    """Iterations and the tile of iteration n, for runs that start and end on tiles: `width` tiles of every `period`."""
    first, period, width = run_of_tiles(scalars, band.residue)
    skipped = scalars("skipped", tiles_before(scalars, within.start, first, period, width))
    count = x.sub(tiles_before(scalars, within.stop, first, period, width), skipped)
    iteration = x.add(Var("n"), skipped)
    turn = x.mul(x.floor_div(iteration, Int(width), nonneg=True), Int(period))
    return count, x.add(x.sub(x.add(turn, x.mod(iteration, Int(width), nonneg=True)), Int(period)), first), TRUE


def run_of_tiles(scalars: Scalars, residue: Residue) -> tuple[Expr, int, int]:
    """First tile, period and width in tiles, of a residue whose runs start and end on tiles; 0 <= first < period."""
    period, width = residue.period // scalars.column_tile, residue.width_limit // scalars.column_tile
    return scalars("first_tile", x.mod(scalars.floor_tile(residue.offset), Int(period), nonneg=True)), period, width


def _moved(tile: Expr, first: Expr, period: int) -> Expr:
    """How many tiles it lies after tile first - period: 0 or more, of tiles from 0 on."""
    return x.sub(x.add(tile, Int(period)), first)


def _by_run(scalars: Scalars, within: Interval, band: Strided) -> tuple[Expr, Expr, Bool]:
    """Iterations and the tile of iteration n, for runs anywhere: as many slots for each run as tiles it can touch.

    Runs lie at least a tile apart (see `enumerator`), so no tile belongs to two. A slot past the run's last tile, or
    outside the tokens or tiles asked for, is left out by the condition.
    """
    residue, tile, size = band.residue, Var("tile"), Int(scalars.column_tile)
    slots = Int((residue.width_limit + scalars.column_tile - 2) // scalars.column_tile + 1)
    period = Int(residue.period)
    before = x.sub(x.mul(within.start, size), x.add(residue.offset, x.sub(residue.width, ONE)))
    run = scalars("run", x.ceil_div(before, period))
    after = x.ceil_div(x.sub(x.mul(within.stop, size), residue.offset), period)
    count = x.select(x.less(within.start, within.stop), x.mul(x.maximum(x.sub(after, run), ZERO), slots), ZERO)
    turn = x.add(run, x.floor_div(Var("n"), slots, nonneg=True))
    token = x.add(residue.offset, x.mul(turn, period))
    found = x.add(x.floor_div(token, size), x.mod(Var("n"), slots, nonneg=True))
    tile_start = x.maximum(x.mul(tile, size), band.tokens.start)
    in_run = x.both(x.less(tile_start, x.add(token, residue.width)), x.less(token, band.tokens.stop))
    in_gap = x.both(x.at_most(within.start, tile), x.less(tile, within.stop))
    return count, found, x.both(in_run, in_gap)


def tiles_before(scalars: Scalars, tile: Expr, first: Expr, period: int, width: int) -> Expr:
    """Tiles of the residue in [first - period, tile), for 0 <= first < period and tile >= 0."""
    if tile == ZERO:
        return ONE if width == 1 else x.minimum(x.sub(Int(period), first), Int(width))
    moved = _moved(tile, first, period)
    if width == 1:
        return x.ceil_div(moved, Int(period), nonneg=True)
    turns = x.mul(x.floor_div(moved, Int(period), nonneg=True), Int(width))
    return x.add(turns, x.minimum(x.mod(moved, Int(period), nonneg=True), Int(width)))


def touches(scalars: Scalars, residue: Residue, tile: Expr, tokens: Interval) -> Bool:
    """Whether a live token of the residue lies in both the tile and `tokens`, which share at least one."""
    start = x.maximum(x.mul(tile, Int(scalars.column_tile)), tokens.start)
    stop = x.minimum(x.mul(x.add(tile, ONE), Int(scalars.column_tile)), tokens.stop)
    to_run_end = x.mod(x.sub(x.add(residue.offset, x.sub(residue.width, ONE)), start), Int(residue.period))
    return x.less(to_run_end, x.add(x.sub(stop, start), x.sub(residue.width, ONE)))


def strided_visits(scalars: Scalars, band: Strided, tile: Expr) -> Bool:
    """Whether `add_strided` visits the tile for this band, outside the dense intervals."""
    result = x.both(x.at_most(band.may.start, tile), x.less(tile, band.may.stop))
    if band.exact:
        first, period, width = run_of_tiles(scalars, band.residue)
        result = x.both(result, x.less(x.mod(_moved(tile, first, period), Int(period), nonneg=True), Int(width)))
    for each in band.others if band.exact else (band.residue, *band.others):
        result = x.both(result, touches(scalars, each, tile, band.tokens))
    return result


def closed_by(strided: Band, dense: Band) -> bool:
    """Whether no key of `strided` is proved to lie past the upper bound of `dense`, for any row."""
    return not (strided.gated or dense.gated) and upper_before(strided, dense)


def begins_within(dense: Band, strided: Band) -> bool:
    """Whether `dense` is proved to start no later than `strided` stops, as long as both lie before nk."""
    zero = Bound(Base.START, 1, 0)
    return all(never_above(low, up) for low in dense.lower or (zero,) for up in strided.upper)

"""Bands -> tile program: which key tiles a query tile visits, full or masked, each exactly once.

Dense bands become ordered, disjoint tile intervals; strided bands enumerate their residue's tiles in the gaps between
those; random terms come last, minus all of these. Within a query tile, a band may be live on [lower(i0), upper(i1)) and
is surely live on [lower(i1), upper(i0)), because bounds never decrease.

Invariant: see `ir.tiles.TileProgram`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.ir import expr as x
from sparsec.ir.bounds import Base, Bound, PerHead, bound_expr, never_above, number_expr
from sparsec.ir.classes import BandClass
from sparsec.ir.expr import FALSE, ONE, TRUE, ZERO, Bool, Expr, Int, Let, Var
from sparsec.ir.nodes import Band, Congruence, Draws, ListTest
from sparsec.ir.normalise import upper_before
from sparsec.ir.tiles import ListSpec, Piece, TileProgram

I0, I1, NK = Var("i0"), Var("i1"), Var("nk")
FULL_BAND_LIMIT = 6
"""Dense bands, at most, whose full tiles are told apart; further ones run masked, as pieces grow quadratically."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Tiles (or tokens) [start, stop) with start <= stop."""

    start: Expr
    stop: Expr
    origin: str


@dataclass(frozen=True, slots=True)
class Residue:
    """A congruence over one query tile: tokens [offset + r*period, offset + r*period + width) for every integer r.

    `width_limit` is the largest value that `width` can take.
    """

    offset: Expr
    period: int
    width: Expr
    width_limit: int


@dataclass(frozen=True, slots=True)
class Strided:
    """A strided band over one query tile: its tokens and tiles, the tiles that are full, the residue to enumerate."""

    tokens: Interval
    may: Interval
    must: Interval | None
    residue: Residue
    exact: bool
    others: tuple[Residue, ...]


class _Lets:
    """Collects lets and hands out their variables; equal values share one, literals and variables need none."""

    def __init__(self) -> None:
        self.items: list[Let] = []
        self.known: dict[Expr, Var] = {}
        self.values: dict[str, Expr] = {}

    def __call__(self, name: str, value: Expr) -> Expr:
        if isinstance(value, Int | Var):
            return value
        if value not in self.known:
            taken = sum(let.name.rstrip("0123456789") == name for let in self.items)
            self.known[value] = Var(f"{name}{taken}")
            self.items.append(Let(f"{name}{taken}", value))
            self.values[f"{name}{taken}"] = value
        return self.known[value]

    def definition(self, value: Expr) -> Expr:
        """What a variable stands for, if it is one of the lets."""
        return self.values.get(value.name, value) if isinstance(value, Var) else value

    def nonneg(self, value: Expr) -> bool:
        """Whether the value is known to be at least 0."""
        match self.definition(value):
            case Int(number):
                return number >= 0
            case Var("nk" | "n"):
                return True
            case x.Add(a, b) | x.Mul(a, b) | x.Min(a, b):
                return self.nonneg(a) and self.nonneg(b)
            case x.Max(a, b):
                return self.nonneg(a) or self.nonneg(b)
            case x.FloorDiv(a, _, nonneg):
                return nonneg or self.nonneg(a)
            case x.Mod():
                return True
            case x.Select(_, a, b):
                return self.nonneg(a) and self.nonneg(b)
        return False


def project(mask: BandClass, query_tile: int, key_tile: int) -> TileProgram:
    """The tile program of one head class. Tiles must divide the block size of every random term."""
    return _Projection(query_tile, key_tile).program(mask)


def lane_rows(mask: BandClass) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The head constants that say which row of each random term's table is a head's (see ListSpec)."""
    rows = []
    for spec, draws in _list_specs(mask):
        lanes = _lanes(draws, mask)
        rows.append((spec.lane_row, tuple(spec.lanes.index(lane) for lane in lanes)))
    return tuple(rows)


class _Projection:
    def __init__(self, query_tile: int, key_tile: int) -> None:
        self.query_tile = query_tile
        self.key_tile = key_tile
        self.let = _Lets()
        self.full: list[Piece] = []
        self.masked: list[Piece] = []

    def program(self, mask: BandClass) -> TileProgram:
        bands = mask.bands
        listed = tuple(b for b in bands if any(not t.negated for t in b.lists))
        strided = tuple(b for b in bands if b not in listed and self.enumerator(b) is not None)
        dense = tuple(b for b in bands if b not in listed and b not in strided)
        dense, ordered = _in_order(dense)
        lists = _list_specs(mask)

        closed = ordered and bool(dense) and any(_closed_by(b, dense[-1]) for b in strided)
        visited = self.visited_intervals(dense, ordered, closed)
        surely = self.full_intervals(dense, ordered)
        self.add_dense(visited, surely, self.dense_filter(dense) if len(bands) == 1 else TRUE)
        earlier: list[Strided] = []
        for band in strided:
            described = self.strided(band)
            last = closed and _closed_by(band, dense[-1])
            right = not (last and _begins_within(dense[-1], band))
            self.add_strided(described, _gaps(visited)[: -1 if last else None], tuple(earlier), right)
            earlier.append(described)
        seen: Bool = FALSE
        for band in listed:
            seen = self.add_listed(band, lists, visited, tuple(earlier), seen)
        live = FALSE
        for band in bands:
            live = x.either(live, band_predicate(band, lists))
        return TileProgram(
            self.query_tile,
            self.key_tile,
            tuple(self.let.items),
            tuple(self.full),
            tuple(self.masked),
            live,
            tuple(spec for spec, _ in lists),
        )

    def maximum(self, a: Expr, b: Expr) -> Expr:
        if (a == ZERO and self.let.nonneg(b)) or (b == ZERO and self.let.nonneg(a)):
            return b if a == ZERO else a
        return x.maximum(a, b)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        if (a == ZERO and self.let.nonneg(b)) or (b == ZERO and self.let.nonneg(a)):
            return ZERO
        return x.minimum(a, b)

    # Rows and bounds of a band within the query tile

    def rows(self, band: Band) -> tuple[Expr, Expr, Bool, Bool]:
        """First and last row of the tile inside the band's row bounds; whether any row is; whether all are."""
        first, last, every = I0, I1, TRUE
        for bound in band.first_row:
            value = bound_expr(bound, ZERO, NK)
            first, every = x.maximum(first, value), x.both(every, x.at_most(value, I0))
        for bound in band.last_row:
            value = bound_expr(bound, ZERO, NK)
            last, every = x.minimum(last, x.sub(value, ONE)), x.both(every, x.less(I1, value))
        some = TRUE if not (band.first_row or band.last_row) else x.at_most(first, last)
        return self.let("first", first), self.let("last", last), some, every

    def bound(self, bound: Bound, row: Expr) -> Expr:
        """The bound's value at `row`; rows of one tile share the unit that they all lie in."""
        shared = row == I1 and bound.base is Base.QUERY and bound.unit % self.query_tile == 0
        return bound_expr(bound, I0 if shared else row, NK)

    def lower(self, band: Band, row: Expr) -> Expr:
        value: Expr = ZERO
        for bound in band.lower:
            value = self.maximum(value, self.bound(bound, row))
        return value

    def upper(self, band: Band, row: Expr) -> Expr:
        value: Expr = NK
        for bound in band.upper:
            value = x.minimum(value, self.bound(bound, row))
        return self.maximum(value, ZERO)

    def maybe_live(self, band: Band) -> tuple[Interval, Bool]:
        """Tokens live for some row; and whether any row is in the band at all."""
        first, last, some, _ = self.rows(band)
        return Interval(
            self.let("lo", self.lower(band, first)), self.let("hi", self.upper(band, last)), band.origin
        ), some

    def surely_live(self, band: Band) -> tuple[Interval, Bool]:
        """Tokens live for every row, as far as bounds tell; and whether all rows are in the band."""
        _, _, _, every = self.rows(band)
        if band.lists:
            every = FALSE
        return Interval(self.let("lo", self.lower(band, I1)), self.let("hi", self.upper(band, I0)), band.origin), every

    def floor_tile(self, token: Expr) -> Expr:
        """token // key_tile, pushed through maxima and minima, where it often cancels against a multiple."""
        match self.let.definition(token):
            case x.Max(a, b):
                return self.maximum(self.floor_tile(a), self.floor_tile(b))
            case x.Min(a, b):
                return self.minimum(self.floor_tile(a), self.floor_tile(b))
            case value:
                kept = (
                    token
                    if x.floor_div(value, Int(self.key_tile)) == x.FloorDiv(value, Int(self.key_tile), False)
                    else value
                )
                return x.floor_div(kept, Int(self.key_tile), nonneg=self.let.nonneg(value))

    def ceil_tile(self, token: Expr) -> Expr:
        """ceil(token / key_tile), likewise."""
        match self.let.definition(token):
            case x.Max(a, b):
                return self.maximum(self.ceil_tile(a), self.ceil_tile(b))
            case x.Min(a, b):
                return self.minimum(self.ceil_tile(a), self.ceil_tile(b))
            case value:
                return x.ceil_div(value, Int(self.key_tile), nonneg=self.let.nonneg(value))

    # Dense bands

    def visited_intervals(self, dense: tuple[Band, ...], ordered: bool, closed: bool) -> list[Interval]:
        """Ordered disjoint tile intervals whose union is every tile that a dense band may touch.

        `closed`: the last one reaches the end of its upper bound even where the band itself is empty.
        """
        raw = []
        for band in dense:
            tokens, some = self.maybe_live(band)
            start = self.minimum(self.floor_tile(tokens.start), self.floor_tile(NK))
            stop = self.ceil_tile(tokens.stop)
            if not (closed and band is dense[-1]):
                stop = x.select(x.less(tokens.start, tokens.stop), stop, start)
            start, stop = x.select(some, start, ZERO), x.select(some, stop, ZERO)
            start = self.let("from", start)
            raw.append(Interval(start, self.let("to", self.maximum(start, stop)), band.origin))
        if not ordered:
            raw = self.sorted(raw)
        result: list[Interval] = []
        reached: Expr = ZERO
        for tiles in raw:
            start = self.let("start", self.maximum(tiles.start, reached))
            reached = self.let("stop", self.maximum(start, tiles.stop))
            result.append(Interval(start, reached, tiles.origin))
        return result

    def full_intervals(self, dense: tuple[Band, ...], ordered: bool) -> list[Interval]:
        """Ordered disjoint intervals of full tiles; touching sure intervals are joined before they are cut to tiles."""
        raw = []
        for band in [b for b in dense if not b.congruences][:FULL_BAND_LIMIT]:
            tokens, every = self.surely_live(band)
            start = self.let("sure_lo", x.select(every, tokens.start, ZERO))
            stop = self.let("sure_hi", x.select(every, self.maximum(tokens.start, tokens.stop), ZERO))
            raw.append(Interval(start, stop, band.origin))
        if not ordered:
            raw = self.sorted(raw)
        result: list[Interval] = []
        run_start = run_stop = cut = ZERO
        for tokens in raw:
            if result:
                joins = x.at_most(tokens.start, run_stop)
                run_start = self.let("run_lo", x.select(joins, run_start, tokens.start))
                run_stop = self.let("run_hi", self.maximum(run_stop, tokens.stop))
            else:
                run_start, run_stop = tokens.start, tokens.stop
            start = self.let("full_from", self.maximum(self.ceil_tile(run_start), cut))
            cut = self.let("full_to", self.maximum(start, self.floor_tile(run_stop)))
            result.append(Interval(start, cut, tokens.origin))
        return result

    def sorted(self, intervals: list[Interval]) -> list[Interval]:
        """The intervals in order of their starts, by exchanges; used where no order is proved for every row."""
        items = list(intervals)
        origin = " | ".join(dict.fromkeys(i.origin for i in items))
        for n in range(len(items)):
            for m in range(n + 1, len(items)):
                a, b = items[n], items[m]
                swap = x.less(b.start, a.start)
                items[n] = Interval(
                    self.let("low", x.minimum(a.start, b.start)),
                    self.let("low_end", x.select(swap, b.stop, a.stop)),
                    origin,
                )
                items[m] = Interval(
                    self.let("high", x.maximum(a.start, b.start)),
                    self.let("high_end", x.select(swap, a.stop, b.stop)),
                    origin,
                )
        return items

    def dense_filter(self, dense: tuple[Band, ...]) -> Bool:
        """For the sole band of a set: whether a tile holds a token of each of its congruences."""
        when: Bool = TRUE
        for band in dense:
            tokens, _ = self.maybe_live(band)
            for c in band.congruences:
                when = x.both(when, self.touches(self.residue(c), Var("tile"), tokens))
        return when

    def add_dense(self, visited: list[Interval], surely: list[Interval], when: Bool) -> None:
        for tiles in surely:
            self.add(self.full, tiles, TRUE)
        for tiles in visited:
            for gap in _gaps(surely):
                self.add(self.masked, self.meet(tiles, gap), when)

    def meet(self, tiles: Interval, gap: tuple[Expr, Expr | None]) -> Interval:
        start = self.let("at", self.maximum(tiles.start, gap[0]))
        stop = tiles.stop if gap[1] is None else self.minimum(tiles.stop, gap[1])
        return Interval(start, start if tiles.start in (tiles.stop, gap[1]) else stop, tiles.origin)

    def add(self, pieces: list[Piece], tiles: Interval, when: Bool) -> None:
        """Appends a contiguous piece, unless it is plainly empty."""
        count = self.maximum(x.sub(tiles.stop, tiles.start), ZERO)
        if tiles.stop != ZERO and count != ZERO:
            pieces.append(Piece(self.let("count", count), x.add(tiles.start, Var("n")), when, True, None, tiles.origin))

    # Strided bands

    def residue(self, c: Congruence) -> Residue:
        """The congruence's live tokens for the rows of this query tile."""
        phase = number_expr(c.phase)
        if not c.moving:
            return Residue(x.mul(phase, Int(c.unit)), c.period * c.unit, Int(c.width * c.unit), c.width * c.unit)
        if self.query_tile % c.unit == 0:
            spanned = self.query_tile // c.unit
        else:
            spanned = 1 if c.unit % self.query_tile == 0 else (self.query_tile - 2) // c.unit + 2
        first, last = x.floor_div(I0, Int(c.unit)), x.floor_div(I1, Int(c.unit))
        offset = x.mul(x.mod(x.add(first, phase), Int(c.period)), Int(c.unit))
        blocks: Expr = Int(c.width) if spanned == 1 else x.add(x.sub(last, first), Int(c.width))
        return Residue(
            self.let("offset", offset),
            c.period * c.unit,
            self.let("width", x.mul(blocks, Int(c.unit))),
            (spanned - 1 + c.width) * c.unit,
        )

    def enumerator(self, band: Band) -> Congruence | None:
        """The band's sparsest congruence that leaves whole tiles out, if there is one."""
        best: Congruence | None = None
        for c in band.congruences:
            residue = _Projection(self.query_tile, self.key_tile).residue(c)
            if residue.period - residue.width_limit >= self.key_tile and (
                best is None or c.period * best.width > best.period * c.width
            ):
                best = c
        return best

    def aligned(self, c: Congruence) -> bool:
        """Whether the congruence's runs start and end on key tiles, for every row of the query tile alike."""
        return c.unit % self.key_tile == 0 and (not c.moving or c.unit % self.query_tile == 0)

    def strided(self, band: Band) -> Strided:
        chosen = self.enumerator(band)
        assert chosen is not None
        tokens, some = self.maybe_live(band)
        some = x.both(some, x.less(tokens.start, tokens.stop))
        start = self.let("from", self.floor_tile(tokens.start))
        stop = self.let("to", x.select(some, self.ceil_tile(tokens.stop), start))
        exact = self.aligned(chosen)
        must = None
        if exact and band.congruences == (chosen,):
            sure, every = self.surely_live(band)
            sure_start = self.ceil_tile(sure.start)
            if every != FALSE:
                must = Interval(
                    self.let("full_from", sure_start),
                    self.let("full_to", x.select(every, self.floor_tile(sure.stop), sure_start)),
                    band.origin,
                )
        others = tuple(self.residue(c) for c in band.congruences if c != chosen)
        return Strided(tokens, Interval(start, stop, band.origin), must, self.residue(chosen), exact, others)

    def add_strided(
        self, band: Strided, gaps: list[tuple[Expr, Expr | None]], earlier: tuple[Strided, ...], right: bool
    ) -> None:
        """Adds the band's tiles in the gaps between dense intervals; unless `right`, none lies past the sure ones."""
        tile = Var("tile")
        when: Bool = TRUE
        for other in band.others:
            when = x.both(when, self.touches(other, tile, band.tokens))
        for other_band in earlier:
            when = x.both(when, x.negate(self.visits(other_band, tile)))
        for gap in gaps:
            inside = self.meet(band.may, gap)
            if inside.stop in (ZERO, inside.start):
                continue
            if band.must is None or when != TRUE:
                self.add_run(self.masked, inside, band, when)
                continue
            stop = self.let("until", inside.stop)
            if band.must.start != band.may.start:
                left = Interval(inside.start, self.let("until", self.minimum(stop, band.must.start)), inside.origin)
                self.add_run(self.masked, left, band, when)
            start = self.let("at", self.maximum(inside.start, band.must.start))
            middle = self.let("until", self.minimum(stop, band.must.stop))
            self.add_run(self.full, Interval(start, middle, inside.origin), band, TRUE)
            if right:
                rest = self.let("at", self.maximum(start, band.must.stop))
                self.add_run(self.masked, Interval(rest, stop, inside.origin), band, when)

    def add_run(self, pieces: list[Piece], tiles: Interval, band: Strided, when: Bool) -> None:
        """Appends the residue's tiles within `tiles`, by trip number."""
        start = self.let("at", tiles.start)
        stop = self.let("until", self.maximum(tiles.stop, start))
        residue, tile, n = band.residue, Var("tile"), Var("n")
        if band.exact:
            period, width = residue.period // self.key_tile, residue.width_limit // self.key_tile
            first = self.let("first_tile", x.mod(self.floor_tile(residue.offset), Int(period), nonneg=True))
            skipped = self.let("skipped", self.tiles_before(start, first, period, width))
            count = x.sub(self.tiles_before(stop, first, period, width), skipped)
            trip = x.add(n, skipped)
            turn = x.mul(x.floor_div(trip, Int(width), nonneg=True), Int(period))
            found = x.add(x.sub(x.add(turn, x.mod(trip, Int(width), nonneg=True)), Int(period)), first)
        else:
            slots = (residue.width_limit + self.key_tile - 2) // self.key_tile + 1
            period = residue.period
            before = x.sub(x.mul(start, Int(self.key_tile)), x.add(residue.offset, x.sub(residue.width, ONE)))
            run = self.let("run", x.ceil_div(before, Int(period)))
            after = x.ceil_div(x.sub(x.mul(stop, Int(self.key_tile)), residue.offset), Int(period))
            count = x.select(x.less(start, stop), x.mul(x.maximum(x.sub(after, run), ZERO), Int(slots)), ZERO)
            turn = x.add(run, x.floor_div(n, Int(slots), nonneg=True))
            token = x.add(residue.offset, x.mul(turn, Int(period)))
            slot = x.mod(n, Int(slots), nonneg=True)
            found = x.add(x.floor_div(token, Int(self.key_tile)), slot)
            tile_start = x.maximum(x.mul(tile, Int(self.key_tile)), band.tokens.start)
            in_run = x.both(x.less(tile_start, x.add(token, residue.width)), x.less(token, band.tokens.stop))
            in_gap = x.both(x.at_most(start, tile), x.less(tile, stop))
            when = x.both(x.both(in_run, in_gap), when)
        count = self.let("count", count)
        if count != ZERO:
            pieces.append(Piece(count, found, when, False, None, tiles.origin))

    def tiles_before(self, tile: Expr, first: Expr, period: int, width: int) -> Expr:
        """Tiles of the residue in [first - period, tile), for 0 <= first < period and tile >= 0."""
        if tile == ZERO:
            return ONE if width == 1 else x.minimum(x.sub(Int(period), first), Int(width))
        moved = x.sub(x.add(tile, Int(period)), first)
        if width == 1:
            return x.ceil_div(moved, Int(period), nonneg=True)
        turns = x.mul(x.floor_div(moved, Int(period), nonneg=True), Int(width))
        return x.add(turns, x.minimum(x.mod(moved, Int(period), nonneg=True), Int(width)))

    def touches(self, residue: Residue, tile: Expr, tokens: Interval) -> Bool:
        """Whether a live token of the residue lies in both the tile and `tokens`, which share at least one."""
        start = x.maximum(x.mul(tile, Int(self.key_tile)), tokens.start)
        stop = x.minimum(x.mul(x.add(tile, ONE), Int(self.key_tile)), tokens.stop)
        to_run_end = x.mod(x.sub(x.add(residue.offset, x.sub(residue.width, ONE)), start), Int(residue.period))
        return x.less(to_run_end, x.add(x.sub(stop, start), x.sub(residue.width, ONE)))

    def visits(self, band: Strided, tile: Expr) -> Bool:
        """Whether `add_strided` visits the tile for this band, outside the dense intervals."""
        result = x.both(x.at_most(band.may.start, tile), x.less(tile, band.may.stop))
        for residue in (band.residue, *band.others):
            result = x.both(result, self.touches(residue, tile, band.tokens))
        return result

    # Random terms

    def add_listed(
        self,
        band: Band,
        lists: list[tuple[ListSpec, Draws]],
        visited: list[Interval],
        strided: tuple[Strided, ...],
        seen: Bool,
    ) -> Bool:
        """Adds the drawn tiles that nothing else visits; returns `seen` extended by this band's tiles."""
        tile = Var("tile")
        tests = [t for t in band.lists if not t.negated]
        ordinal = _ordinal(tests[0], lists)
        spec, _ = lists[ordinal]
        per_block = spec.block // self.key_tile
        tokens, some = self.maybe_live(band)
        some = x.both(some, x.less(tokens.start, tokens.stop))
        start = self.let("from", self.floor_tile(tokens.start))
        stop = self.let("to", x.select(some, self.ceil_tile(tokens.stop), start))
        inside = x.both(x.at_most(start, tile), x.less(tile, stop))
        for c in band.congruences:
            inside = x.both(inside, self.touches(self.residue(c), tile, tokens))
        for test in band.lists:
            if test is not tests[0]:
                drawn: Bool = x.Listed(_ordinal(test, lists))
                inside = x.both(inside, x.negate(drawn) if test.negated else drawn)
        when = x.both(x.less(Int(-1), Var("entry")), inside)
        for interval in visited:
            when = x.both(when, x.negate(x.both(x.at_most(interval.start, tile), x.less(tile, interval.stop))))
        for other in strided:
            when = x.both(when, x.negate(self.visits(other, tile)))
        when = x.both(when, x.negate(seen))
        found = x.add(x.mul(Var("entry"), Int(per_block)), x.mod(Var("n"), Int(per_block), nonneg=True))
        count = Int(spec.width * per_block)
        seen = x.either(seen, x.both(x.Listed(ordinal), inside))
        if band.congruences or len(band.lists) > 1:
            self.masked.append(Piece(count, found, when, False, ordinal, band.origin))
            return seen
        sure = Interval(self.let("lo", self.lower(band, I1)), self.let("hi", self.upper(band, I0)), band.origin)
        _, _, _, every = self.rows(band)
        whole = x.both(
            x.at_most(self.let("full_from", self.ceil_tile(sure.start)), tile),
            x.less(tile, self.let("full_to", x.select(every, self.floor_tile(sure.stop), ZERO))),
        )
        self.full.append(Piece(count, found, x.both(when, whole), False, ordinal, band.origin))
        self.masked.append(Piece(count, found, x.both(when, x.negate(whole)), False, ordinal, band.origin))
        return seen


def band_predicate(band: Band, lists: list[tuple[ListSpec, Draws]]) -> Bool:
    """The band's test on a pair (i, j) with 0 <= j < nk."""
    i, j = Var("i"), Var("j")
    result: Bool = TRUE
    for bound in band.lower:
        result = x.both(result, x.at_most(bound_expr(bound, i, NK), j))
    for bound in band.upper:
        result = x.both(result, x.less(j, bound_expr(bound, i, NK)))
    for bound in band.first_row:
        result = x.both(result, x.at_most(bound_expr(bound, i, NK), i))
    for bound in band.last_row:
        result = x.both(result, x.less(i, bound_expr(bound, i, NK)))
    for c in band.congruences:
        block = x.floor_div(j, Int(c.unit), nonneg=True)
        if c.moving:
            block = x.sub(block, x.floor_div(i, Int(c.unit)))
        shifted = x.sub(block, number_expr(c.phase))
        result = x.both(result, x.less(x.mod(shifted, Int(c.period)), Int(c.width)))
    for test in band.lists:
        drawn: Bool = x.Listed(_ordinal(test, lists))
        result = x.both(result, x.negate(drawn) if test.negated else drawn)
    return result


def _gaps(intervals: list[Interval]) -> list[tuple[Expr, Expr | None]]:
    """The ranges before, between and after ordered disjoint intervals; None is no end."""
    starts = [ZERO, *(i.stop for i in intervals)]
    stops: list[Expr | None] = [*(i.start for i in intervals), None]
    return list(zip(starts, stops, strict=True))


def _closed_by(strided: Band, dense: Band) -> bool:
    """Whether no key of `strided` is proved to lie past the upper bound of `dense`, for any row."""
    gated = strided.first_row or strided.last_row or dense.first_row or dense.last_row
    return not gated and upper_before(strided, dense)


def _begins_within(dense: Band, strided: Band) -> bool:
    """Whether `dense` is proved to start no later than `strided` stops, as long as both lie before nk."""
    zero = Bound(Base.START, 1, 0)
    return all(never_above(low, up) for low in dense.lower or (zero,) for up in strided.upper)


def _in_order(dense: tuple[Band, ...]) -> tuple[tuple[Band, ...], bool]:
    """The bands in an order in which lower bounds never decrease, and whether that is proved for every row and head."""
    remaining, result = list(dense), []
    while remaining:
        least = next((b for b in remaining if all(_starts_before(b, o) for o in remaining)), None)
        if least is None:
            return (*result, *remaining), False
        remaining.remove(least)
        result.append(least)
    return tuple(result), True


def _starts_before(a: Band, b: Band) -> bool:
    """Whether max(0, a.lower) <= max(0, b.lower) is proved for the rows at which each is evaluated."""
    if (a.first_row or a.last_row or b.first_row or b.last_row) and any(
        bound.base is Base.QUERY for band in (a, b) for bound in band.lower
    ):
        return not a.lower
    return all(_starts_at_zero(low) or any(never_above(low, other) for other in b.lower) for low in a.lower)


def _starts_at_zero(bound: Bound) -> bool:
    offset = bound.offset.high if isinstance(bound.offset, PerHead) else bound.offset
    return bound.base is Base.START and offset <= 0


def _list_specs(mask: BandClass) -> list[tuple[ListSpec, Draws]]:
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


def _ordinal(test: ListTest, lists: list[tuple[ListSpec, Draws]]) -> int:
    return next(n for n, (_, draws) in enumerate(lists) if draws == test.draws)

"""Bands of one head -> how many keys of each range of columns some rows see, from the closed form alone.

A row's keys are split where a band begins or ends; between two such points the same bands hold, and what they hold is
periodic. Invariant: work and memory follow the rows asked for, the ranges and the bands, never the number of keys;
`templates/pictures/counts.js` computes the same numbers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from math import gcd, lcm

import numpy as np
import numpy.typing as npt

from sparsec.ir.bands.band import Band, Congruence, Draws
from sparsec.ir.bands.bounds import bound_expr
from sparsec.ir.bands.draws import drawn_blocks
from sparsec.ir.expr import simplify as x
from sparsec.ir.expr.evaluate import evaluate
from sparsec.ir.expr.nodes import ZERO, Expr, Var

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

ROW, KEYS = Var("i"), Var("nk")
TABLE = 4096
"""Entries of the table of one period of several residues together."""
TABLES = 1 << 20
"""Entries of the tables that are held at a time."""
POINTS = 64
"""Keys of a range that are looked at where no table of a period is small enough."""
GOLDEN = 0.618034
"""The golden ratio: its multiples, modulo 1, fill the unit interval evenly."""


@dataclass(frozen=True, slots=True)
class RowPlaces:
    """Query positions, and for each the document it lies in: its first key and one past its last.

    `origin`: where the positions of the bands begin, of each row; `keys`: how many keys they count.
    """

    at: Ints
    begin: Ints
    end: Ints
    origin: Ints
    keys: Ints

    @classmethod
    def of_one_document(cls, at: Ints, keys: int) -> RowPlaces:
        return cls(at, np.zeros_like(at), np.full_like(at, keys), np.zeros_like(at), np.full_like(at, keys))


@dataclass(frozen=True)
class BandForm:
    """A band as expressions in ROW and KEYS: lower <= j < upper, first_row <= i < last_row."""

    band: Band

    @cached_property
    def lower(self) -> Expr:
        value: Expr = ZERO
        for bound in self.band.lower:
            value = x.maximum(value, bound_expr(bound, ROW, KEYS))
        return value

    @cached_property
    def upper(self) -> Expr:
        value: Expr = KEYS
        for bound in self.band.upper:
            value = x.minimum(value, bound_expr(bound, ROW, KEYS))
        return value

    @cached_property
    def first_row(self) -> Expr | None:
        """None: any."""
        ends = [bound_expr(bound, ZERO, KEYS) for bound in self.band.first_row]
        return reduce(x.maximum, ends) if ends else None

    @cached_property
    def last_row(self) -> Expr | None:
        """One past the last; None: any."""
        ends = [bound_expr(bound, ZERO, KEYS) for bound in self.band.last_row]
        return reduce(x.minimum, ends) if ends else None


def row_edges(bands: tuple[Band, ...], keys: int) -> tuple[int, ...]:
    """The rows at which a band begins or ends: the rows between two of them see sets of one form."""
    values = {"nk": keys}
    forms = [BandForm(band) for band in bands]
    edges = [edge for form in forms for edge in (form.first_row, form.last_row) if edge is not None]
    return tuple(sorted({evaluate(edge, values) for edge in edges}))


def keys_seen(bands: tuple[Band, ...], rows: RowPlaces, edges: Ints) -> tuple[Ints, Bools, bool]:
    """int [rows, ranges]: of each row, the live keys between two of the ascending `edges`; which rows see a key beyond
    their own position; and whether all are counts, not estimates.

    Bands hold plain integers, and test no input.
    """
    if not bands:
        return np.zeros((len(rows.at), len(edges) - 1), np.int64), np.zeros(len(rows.at), np.bool_), True
    counting = _Counting(bands, rows)
    first, last = int(edges[0]), int(edges[-1])
    points = np.sort(np.clip(counting.points(edges), first, last), axis=1)
    start, stop = points[:, :-1], points[:, 1:]
    live = counting.count(start, stop)
    column = np.clip(np.searchsorted(edges, start, side="right") - 1, 0, len(edges) - 2)
    number = np.arange(len(rows.at))[:, None]
    flat = (number * (len(edges) - 1) + column).ravel()
    seen = np.bincount(flat, weights=live.ravel(), minlength=len(rows.at) * (len(edges) - 1))
    ahead: Bools = np.any((start > rows.at[:, None]) & (live > 0), axis=1)
    return np.rint(seen).astype(np.int64).reshape(len(rows.at), -1), ahead, counting.exact


class _Counting:
    """The bands at some rows."""

    def __init__(self, bands: tuple[Band, ...], rows: RowPlaces) -> None:
        self.bands, self.rows, self.exact = bands, rows, True
        self.local = rows.at - rows.origin
        values = {"i": self.local, "nk": rows.keys}
        size = len(rows.at)
        self.spans: list[tuple[Ints, Ints]] = []
        self.held: list[Bools] = []
        self.drawn: list[list[Ints]] = []
        for band in bands:
            form = BandForm(band)
            lower, upper = (
                np.broadcast_to(np.asarray(evaluate(each, values), np.int64), (size,)) + rows.origin
                for each in (form.lower, form.upper)
            )
            self.spans.append((np.maximum(lower, rows.begin), np.minimum(upper, rows.end)))
            held = np.ones(size, np.bool_)
            if form.first_row is not None:
                held &= self.local >= evaluate(form.first_row, values)
            if form.last_row is not None:
                held &= self.local < evaluate(form.last_row, values)
            assert not band.row_residues, "residues of rows are of transposed bands alone"
            self.held.append(held)
            self.drawn.append([_draws(test.draws, self.local) for test in band.lists])

    def points(self, edges: Ints) -> Ints:
        """int [rows, points]: where the set of bands that hold may change, in any order."""
        size = len(self.rows.at)
        parts = [np.broadcast_to(edges, (size, len(edges))), self.rows.at[:, None] + 1]
        parts += [end[:, None] for span in self.spans for end in span]
        for band, drawn in zip(self.bands, self.drawn, strict=True):
            for test, blocks in zip(band.lists, drawn, strict=True):
                block = test.draws.block
                parts += [blocks * block + self.rows.origin[:, None], (blocks + 1) * block + self.rows.origin[:, None]]
        return np.concatenate(parts, axis=1)

    def count(self, start: Ints, stop: Ints) -> Ints:
        """The live keys of each range, in which the same bands hold throughout."""
        some = start < stop
        whole = np.zeros(start.shape, np.bool_)
        code = np.zeros(start.shape, np.uint64)
        for n, band in enumerate(self.bands):
            lower, upper = self.spans[n]
            holds = some & (lower[:, None] <= start) & (start < upper[:, None]) & self.held[n][:, None]
            for test, blocks in zip(band.lists, self.drawn[n], strict=True):
                at = (start - self.rows.origin[:, None]) // test.draws.block
                listed = np.zeros(start.shape, np.bool_)
                for block in blocks.T:
                    listed |= at == block[:, None]
                holds &= listed ^ test.negated
            if band.congruences:
                code |= np.where(holds, np.uint64(1 << n), np.uint64(0))
            else:
                whole |= holds
        live = np.where(whole, stop - start, 0)
        code[whole] = 0
        for number in np.unique(code).tolist():
            if number:
                row, column = np.nonzero(code == number)
                held = tuple(band for n, band in enumerate(self.bands) if number >> n & 1)
                origin = self.rows.origin[row]
                live[row, column] = self._periodic(
                    held, self.local[row], start[row, column] - origin, stop[row, column] - origin
                )
        return live

    def _periodic(self, bands: tuple[Band, ...], i: Ints, start: Ints, stop: Ints) -> Ints:
        """The keys start <= j < stop that the residues of some band hold."""
        residues = [c for band in bands for c in band.congruences]
        if len(residues) == 1:
            return _run_count(residues[0], i, stop) - _run_count(residues[0], i, start)
        unit = gcd(*(c.unit for c in residues))
        period = lcm(*(c.unit * c.period for c in residues))
        length = period // unit
        moving = [c for c in residues if c.moving]
        phases = np.stack([i // c.unit % c.period for c in moving] or [np.zeros_like(i)], axis=1)
        kinds, which = np.unique(phases, axis=0, return_inverse=True)
        if length <= TABLE:
            kind, found = which.reshape(-1), np.zeros(len(i), np.int64)
            for first in range(0, len(kinds), max(TABLES // length, 1)):
                here = np.nonzero((kind >= first) & (kind < first + max(TABLES // length, 1)))[0]
                of = kind[here] - first
                rows = np.zeros(int(of.max()) + 1, np.int64)
                rows[of] = i[here]
                table = _any(bands, rows[:, None], np.arange(length, dtype=np.int64)[None, :] * unit)
                sums = np.concatenate([np.zeros((len(rows), 1), np.int64), np.cumsum(table, axis=1)], axis=1)
                for sign, j in ((1, stop[here]), (-1, start[here])):
                    at = j % period // unit
                    part = np.where(table[of, at], j % unit, 0)
                    found[here] += sign * ((j // period * sums[of, -1] + sums[of, at]) * unit + part)
            return found
        width = stop - start
        step = np.arange(POINTS)
        every = width <= POINTS
        if not every.all():
            self.exact = False
        spread = ((step + (step + 1) * GOLDEN % 1) * width[:, None] / POINTS).astype(np.int64)
        place = np.where(every[:, None], step, spread)
        used = step < width[:, None]
        hits = (_any(bands, i[:, None], start[:, None] + place) & used).sum(axis=1)
        estimate: Ints = np.where(every, hits, np.floor(hits * width / POINTS + 0.5).astype(np.int64))
        return estimate


def _any(bands: tuple[Band, ...], i: Ints, j: Ints) -> Bools:
    """Whether the residues of some band hold."""
    found = np.zeros(np.broadcast_shapes(i.shape, j.shape), np.bool_)
    for band in bands:
        held = np.ones(found.shape, np.bool_)
        for congruence in band.congruences:
            held &= _inside(congruence, j, i)
        found |= held
    return found


def _inside(c: Congruence, position: Ints, other: Ints) -> Bools:
    inside: Bools = (position // c.unit - _phase(c, other)) % c.period < c.width
    return inside


def _phase(c: Congruence, i: Ints) -> Ints:
    assert isinstance(c.phase, int), "a head's own bands hold numbers"
    return np.asarray(c.phase + (i // c.unit if c.moving else 0), np.int64)


def _run_count(c: Congruence, i: Ints, j: Ints) -> Ints:
    """Of the keys before j, counted from a multiple of the period that all share, those in the runs of the residue."""
    at = j - _phase(c, i) * c.unit
    period, run = c.unit * c.period, c.unit * c.width
    found: Ints = at // period * run + np.minimum(at % period, run)
    return found


def _draws(draws: Draws, i: Ints) -> Ints:
    """int [rows, count]: the blocks drawn for each row, -1 for none."""
    assert isinstance(draws.lane, int), "a head's own bands hold numbers"
    blocks, which = np.unique(i // draws.block, return_inverse=True)
    table = np.full((len(blocks), draws.count), -1, np.int64)
    for n, block in enumerate(blocks.tolist()):
        found = drawn_blocks(draws.count, draws.seed, draws.lane, block)
        table[n, : len(found)] = found
    return table[which.reshape(-1)]


def sampled_rows(first: int, stop: int, edges: Sequence[int], most: int, least: int) -> tuple[Ints, Floats]:
    """Rows of first <= i < stop and the weight of each: all, if they are no more than `most`; or an equal share of
    `most`, and `least` at the least, of each part between two of the ascending `edges`.

    The rows of a part lie at a varying place of each equal piece of it, so that no stride hides between them.
    """
    inner = edges[bisect_right(edges, first) : bisect_left(edges, stop)]
    if stop - first > most:
        most = max(most // (len(inner) + 1), least)
    rows, weights, before = [], [], 0
    for begin, end in pairwise([first, *inner, stop]):
        size = end - begin
        n = np.arange(min(size, most))
        place = n if size <= most else ((n + (before + n + 1) * GOLDEN % 1) * size / most).astype(np.int64)
        rows.append(begin + place)
        weights.append(np.full(len(n), size / len(n)))
        before += len(n)
    return np.concatenate(rows), np.concatenate(weights)

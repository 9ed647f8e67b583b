"""Checked term -> bands: each leaf by its formula, each operator by the algebra of bands.

Invariant: the bands' union equals the term's set for every i, j and nk. Query positions may be negative.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.band import ALL, Band, Congruence, Draws, ListTest
from sparsec.ir.bands.bounds import LIMIT, Bound, constant, end, query
from sparsec.ir.bands.normalise import Effort, normalise
from sparsec.sema import model


def lower(term: model.Term, block: int, effort: Effort) -> tuple[Band, ...]:
    """The bands of `term` under block size `block`. Raises TooManyBands."""
    return _lower(term, block, "", effort)


def _lower(term: model.Term, block: int, origin: str, effort: Effort) -> tuple[Band, ...]:
    match term:
        case model.At(inner, at):
            return _lower(inner, block, str(at), effort)
        case model.Union(terms):
            return normalise(tuple(band for t in terms for band in _lower(t, block, origin, effort)), effort)
        case model.Intersection(terms):
            bands: tuple[Band, ...] = (ALL,)
            for t in terms:
                bands = intersection(bands, _lower(t, block, origin, effort), effort)
            return bands
        case model.Difference(left, right):
            outside = complement(_lower(right, block, origin, effort), effort)
            return intersection(_lower(left, block, origin, effort), outside, effort)
        case model.Complement(model.Complement(inner)):
            return _lower(inner, block, origin, effort)
        case model.Complement(inner):
            return complement(_lower(inner, block, origin, effort), effort)
        case _:
            return normalise(tuple(replace(band, origin=origin) for band in _leaf(term, block)), effort)


def intersection(left: tuple[Band, ...], right: tuple[Band, ...], effort: Effort) -> tuple[Band, ...]:
    return normalise((_meet(a, b) for a in left for b in right), effort)


def complement(bands: tuple[Band, ...], effort: Effort) -> tuple[Band, ...]:
    result: tuple[Band, ...] = (ALL,)
    for band in bands:
        result = intersection(result, normalise(_outside(band), effort), effort)
    return result


def _meet(a: Band, b: Band) -> Band:
    origin = " & ".join(dict.fromkeys(text for text in (a.origin, b.origin) if text))
    return Band(
        a.lower + b.lower,
        a.upper + b.upper,
        a.first_row + b.first_row,
        a.last_row + b.last_row,
        a.congruences + b.congruences,
        a.lists + b.lists,
        origin=origin,
    )


def _outside(band: Band) -> tuple[Band, ...]:
    """The pairs that fail at least one of the band's tests."""
    origin = f"~({band.origin})" if band.origin else ""
    parts = [Band(upper=(bound,)) for bound in band.lower]
    parts += [Band(lower=(bound,)) for bound in band.upper]
    parts += [Band(last_row=(bound,)) for bound in band.first_row]
    parts += [Band(first_row=(bound,)) for bound in band.last_row]
    parts += [Band(congruences=(_other_residues(c),)) for c in band.congruences]
    parts += [Band(lists=(replace(test, negated=not test.negated),)) for test in band.lists]
    return tuple(replace(part, origin=origin) for part in parts)


def _other_residues(c: Congruence) -> Congruence:
    assert isinstance(c.phase, int)
    return replace(c, phase=(c.phase + c.width) % c.period, width=c.period - c.width)


def _leaf(term: model.Leaf, block: int) -> tuple[Band, ...]:
    match term:
        case model.Full():
            return (ALL,)
        case model.Nothing():
            return ()
        case model.Causal():
            return (Band(upper=(query(1),)),)
        case model.Window(n, ahead, blocks):
            unit = block if blocks else 1
            return (Band(lower=(query((1 - n) * unit, unit),), upper=(query((ahead + 1) * unit, unit),)),)
        case model.Sink(n, blocks):
            return (Band(upper=(constant(n * (block if blocks else 1)),)),)
        case model.Stride(period, phase, blocks):
            return _residue(period, phase, block if blocks else 1)
        case model.Dilated(period, phase, blocks):
            return _moving_residue(period, phase, block if blocks else 1)
        case model.Chunk(n, back):
            return (Band(lower=(query(-back * n, n),), upper=(query(n, n),)),)
        case model.Columns(start, stop, blocks):
            unit = block if blocks else 1
            return (Band(lower=_edge(start, unit), upper=_edge(stop, unit)),)
        case model.Rows(start, stop, blocks):
            unit = block if blocks else 1
            return (Band(first_row=_edge(start, unit), last_row=_edge(stop, unit)),)
        case model.Global(n, blocks):
            bound = constant(n * (block if blocks else 1))
            return (Band(upper=(bound,)), Band(last_row=(bound,)))
        case model.Random(k, seed, lane):
            return (Band(lists=(ListTest(Draws(k, seed, lane, block), negated=False),)),)
        case model.Input():
            raise InternalError("run-time inputs are refused before lowering")
        case _:
            assert_never(term)


def _residue(period: int, phase: int, unit: int) -> tuple[Band, ...]:
    if period == 1:
        return (ALL,)
    if period * unit >= LIMIT:  # no key reaches the second one
        return (Band(lower=(constant(phase * unit),), upper=(constant((phase + 1) * unit),)),)
    return (Band(congruences=(Congruence(unit, period, phase, 1, moving=False),)),)


def _moving_residue(period: int, phase: int, unit: int) -> tuple[Band, ...]:
    if period == 1:
        return (ALL,)
    if period * unit >= LIMIT:  # the distance is phase itself or, ahead of the query, phase - period
        return tuple(
            Band(lower=(query(-d * unit, unit),), upper=(query((1 - d) * unit, unit),)) for d in (phase, phase - period)
        )
    return (Band(congruences=(Congruence(unit, period, -phase % period, 1, moving=True),)),)


def _edge(edge: model.Edge | None, unit: int) -> tuple[Bound, ...]:
    if edge is None:
        return ()
    return (end(edge.at * unit, unit) if edge.from_end else constant(edge.at * unit),)

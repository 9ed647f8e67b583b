"""A band with its rows and columns exchanged: for a key, the queries that may attend to it, again between step bounds.

For integers i and j and unit u: j >= u*(i // u) + c holds iff i < u*((j - c) // u) + u, and j < u*(i // u) + c holds
iff i >= u*((j - c) // u) + u. Invariant: the result holds (j, i) iff the band holds (i, j), for every i, j and nk.
"""

from __future__ import annotations

from dataclasses import replace

from sparsec.ir.bands.band import Band, Congruence
from sparsec.ir.bands.bounds import Base, Bound


def transpose(band: Band) -> Band:
    """The transposed band; only bands whose numbers are plain integers have one."""
    return Band(
        lower=band.first_row + tuple(_exchanged(b) for b in band.upper if b.base is Base.ROW),
        upper=band.last_row + tuple(_exchanged(b) for b in band.lower if b.base is Base.ROW),
        first_row=tuple(b for b in band.lower if b.base is not Base.ROW),
        last_row=tuple(b for b in band.upper if b.base is not Base.ROW),
        congruences=tuple(_reversed(c) for c in band.congruences if c.moving),
        lists=band.lists,
        inputs=band.inputs,
        row_residues=tuple(c for c in band.congruences if not c.moving),
        origin=band.origin,
    )


def _exchanged(bound: Bound) -> Bound:
    """The bound on i that a bound on j gives: u*((j - c) // u) + u, with whole units of c moved out of the quotient."""
    assert isinstance(bound.offset, int) and bound.shift == 0, "bands are transposed before heads are grouped"
    whole, rest = divmod(-bound.offset, bound.unit)
    return Bound(Base.ROW, bound.unit, (whole + 1) * bound.unit, rest)


def _reversed(c: Congruence) -> Congruence:
    """(kb - qb - phase) mod period < width, as a congruence of qb - kb."""
    assert isinstance(c.phase, int), "bands are transposed before heads are grouped"
    return replace(c, phase=(1 - c.width - c.phase) % c.period)

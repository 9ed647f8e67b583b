"""What every block mask must be, as statements: each head's bands in normal form, and classes that cover the heads.

Invariant: a mask that `grouped_mask` made passes; another one raises InternalError with the statement that it breaks,
and a witness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.band import Band, plain
from sparsec.ir.bands.bounds import LIMIT, Base, Bound, Number, PerHead, lowest, never_above
from sparsec.ir.bands.classes import BandClass, BlockMask, equal_heads, renumbered
from sparsec.ir.bands.interpreter import pairs
from sparsec.ir.bands.normalise import BAND_LIMIT, below_start, beyond_end, joined, met_residues, tighten
from sparsec.ir.bands.printer import print_band

SAMPLES = ((1, 1, 0), (37, 150, 113), (70, 200, -40), (130, 130, 0))
"""Query count, key count and first query position at which a band is held against its transposed one."""


def _bounds(band: Band) -> tuple[Bound, ...]:
    return band.lower + band.upper + band.first_row + band.last_row


def _units(band: Band) -> tuple[int, ...]:
    return (*(b.unit for b in _bounds(band)), *(c.unit for c in band.congruences + band.row_residues))


def _tested_once(band: Band) -> bool:
    drawn, asked = ({replace(test, negated=False) for test in band.lists}, {plain(test) for test in band.inputs})
    return len(drawn) == len(band.lists) and len(asked) == len(band.inputs)


WELL_FORMED: Mapping[str, Callable[[Band], bool]] = {
    "units are positive": lambda band: all(unit > 0 for unit in _units(band)),
    "a residue's width lies between 0 and its period": lambda band: all(
        0 < c.width < c.period for c in band.congruences + band.row_residues
    ),
    "rows are bounded from the start or from the end": lambda band: all(
        bound.base is not Base.ROW for bound in band.first_row + band.last_row
    ),
}
"""What holds of each band, transposed or not."""

NORMAL: Mapping[str, Callable[[Band], bool]] = {
    "offsets stay within the limit": lambda band: all(abs(lowest(bound.offset)) <= LIMIT for bound in _bounds(band)),
    "shifts and residues of rows are of transposed bands alone": lambda band: (
        not band.row_residues and all(bound.shift == 0 for bound in _bounds(band))
    ),
    "every bound of keys leaves some out": lambda band: (
        not any(map(below_start, band.lower)) and not any(map(beyond_end, band.upper))
    ),
    "no bound follows from another": lambda band: (
        not any(
            never_above(a, b) or never_above(b, a)
            for bounds in (band.lower, band.upper, band.first_row, band.last_row)
            for a, b in combinations(bounds, 2)
        )
    ),
    "residues that make one are one": lambda band: all(
        len(met_residues(a, b)) == 2 for a, b in combinations(band.congruences, 2)
    ),
    "no list and no input is tested twice": _tested_once,
    "no band is proved empty": lambda band: tighten(band) is not None,
}
"""What holds besides of each band of a head, after `normalise`."""


def verify_mask(mask: BlockMask) -> None:
    """Raises InternalError if the classes, or some head's bands, are not what `grouped_mask` promises."""
    _verify_classes(mask)
    for of in mask.classes:
        for (head, *_), own in equal_heads(of.heads, of.constants):
            verify_normal(tuple(renumbered(band, _value_in(own)) for band in of.bands), f"head {head}")


def verify_normal(bands: tuple[Band, ...], where: str) -> None:
    """Raises InternalError unless the bands, their numbers integers, are in normal form; `where` is told with it."""
    for band in bands:
        _verify_band(band, {**WELL_FORMED, **NORMAL}, where)
    for a, b in combinations(bands, 2):
        if joined(a, b) is not None:
            raise _broken("bands that make one are one", where, f"[{print_band(a)}], [{print_band(b)}]")
    if len(bands) > BAND_LIMIT:
        raise _broken(f"a head has at most {BAND_LIMIT} bands", where, str(len(bands)))


def verify_transposed(mask: BlockMask, transposed: BlockMask) -> None:
    """Raises InternalError unless `transposed` holds (j, i) just where `mask` holds (i, j), at the sample lengths."""
    _verify_classes(transposed)
    exchanged = {
        head: (of.bands, own)
        for of in transposed.classes
        for heads, own in equal_heads(of.heads, of.constants)
        for head in heads
    }
    for of in mask.classes:
        for (head, *_), own in equal_heads(of.heads, of.constants):
            for band in exchanged[head][0]:
                _verify_band(band, WELL_FORMED, f"head {head}, transposed")
            for n_q, n_k, offset in SAMPLES:
                queries, keys = np.arange(offset, offset + n_q), np.arange(n_k)
                expected = pairs(of.bands, own, queries, keys, n_k)
                found = pairs(*exchanged[head], keys, queries, n_k, transposed=True).T
                if (different := np.argwhere(found != expected)).size:
                    row, key = different[0].tolist()
                    pair = f"i={offset + row}, j={key}, nk={n_k}"
                    raise _broken("a transposed band holds (j, i) where the band holds (i, j)", f"head {head}", pair)


def _verify_classes(mask: BlockMask) -> None:
    heads = sorted(head for of in mask.classes for head in of.heads)
    if heads != list(range(len(heads))):
        raise _broken("every head is in one class", "all classes", str(heads))
    shapes = [tuple(renumbered(band, lambda _: 0) for band in of.bands) for of in mask.classes]
    for (n, one), (m, other) in combinations(enumerate(shapes), 2):
        if one == other:
            raise _broken("classes differ in more than numbers", "all classes", f"classes {n} and {m}")
    for of in mask.classes:
        for number in _head_constants(of):
            values = dict(of.constants).get(number.name, ())
            if len(values) != len(of.heads) or (min(values), max(values)) != (number.low, number.high):
                where = f"the class of head {of.heads[0]}"
                raise _broken("a head constant has a value for each head, within its range", where, str(number))


def _head_constants(of: BandClass) -> list[PerHead]:
    found: list[PerHead] = []

    def note(number: Number) -> Number:
        if isinstance(number, PerHead):
            found.append(number)
        return number

    for band in of.bands:
        renumbered(band, note)
    return found


def _value_in(constants: Mapping[str, int]) -> Callable[[Number], Number]:
    return lambda number: number if isinstance(number, int) else constants[number.name]


def _verify_band(band: Band, statements: Mapping[str, Callable[[Band], bool]], where: str) -> None:
    for statement, holds in statements.items():
        if not holds(band):
            raise _broken(statement, where, print_band(band))


def _broken(statement: str, where: str, witness: str) -> InternalError:
    return InternalError(f"expected of bands: {statement}; got, in {where}: {witness}")

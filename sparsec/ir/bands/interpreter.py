"""Bands as a set of pairs: the interpreter that gives them their meaning, over arrays of positions.

Invariant: what holds follows from the definitions of `Bound`, `Congruence` and `Draws`, by no pass of the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.band import Band, Congruence, Draws, InputTest
from sparsec.ir.bands.bounds import Base, Bound, Number
from sparsec.ir.bands.draws import drawn_blocks

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Relation = Callable[[InputTest, Ints, Ints], Bools]
"""What inputs say of the pairs (i, j) of two arrays that broadcast together, whether or not the test is negated."""


def _no_inputs(test: InputTest, i: Ints, j: Ints) -> Bools:
    raise InternalError(f"input {test.ordinal} is asked, and there is none")


def pairs(
    bands: tuple[Band, ...],
    constants: Mapping[str, int],
    rows: Ints,
    columns: Ints,
    n_keys: int,
    *,
    transposed: bool = False,
    inputs: Relation = _no_inputs,
) -> Bools:
    """bool [rows, columns]: whether some band holds the pair, of head constants `constants`.

    Rows are query positions and columns keys, all of them below `n_keys`; `transposed`: the other way round.
    """
    row, column = rows[:, None], columns[None, :]
    held = np.zeros((len(rows), len(columns)), np.bool_)
    for band in bands:
        of_band = _band(band, constants, row, column, n_keys, transposed)
        for test in band.inputs:
            of_band &= inputs(test, *((column, row) if transposed else (row, column))) ^ test.negated
        held |= of_band
    return held


def _band(band: Band, constants: Mapping[str, int], row: Ints, column: Ints, n_keys: int, transposed: bool) -> Bools:
    held = np.ones((row.size, column.size), np.bool_)
    for position, lower, upper in ((column, band.lower, band.upper), (row, band.first_row, band.last_row)):
        for bound in lower:
            held &= position >= _bound(bound, constants, row, n_keys)
        for bound in upper:
            held &= position < _bound(bound, constants, row, n_keys)
    for congruence in band.congruences:
        held &= _congruence(congruence, constants, column, row)
    for residue in band.row_residues:
        held &= _congruence(residue, constants, row, column)
    for test in band.lists:
        draws = replace(test.draws, lane=_number(test.draws.lane, constants))
        held &= drawn(draws, *((column, row) if transposed else (row, column))) ^ test.negated
    return held


def _bound(bound: Bound, constants: Mapping[str, int], row: Ints, n_keys: int) -> Ints:
    match bound.base:
        case Base.START:
            base: int | Ints = 0
        case Base.ROW:
            base = (row + _number(bound.shift, constants)) // bound.unit * bound.unit
        case Base.END:
            base = -(-n_keys // bound.unit) * bound.unit
    return np.asarray(base + _number(bound.offset, constants), np.int64)


def _congruence(c: Congruence, constants: Mapping[str, int], position: Ints, other: Ints) -> Bools:
    block = position // c.unit
    if c.moving:
        block = block - other // c.unit
    inside: Bools = (block - _number(c.phase, constants)) % c.period < c.width
    return inside


def _number(number: Number, constants: Mapping[str, int]) -> int:
    return number if isinstance(number, int) else constants[number.name]


def drawn(draws: Draws, i: Ints, j: Ints) -> Bools:
    """Whether the block of key j is among the draws for the block of query i; `draws.lane` is an integer."""
    assert isinstance(draws.lane, int)
    queries, query = np.unique(i // draws.block, return_inverse=True)
    keys, key = np.unique(j // draws.block, return_inverse=True)
    of_query = (drawn_blocks(draws.count, draws.seed, draws.lane, block) for block in queries.tolist())
    table: Bools = np.array([np.isin(keys, found) for found in of_query], np.bool_)
    return table[query.reshape(i.shape), key.reshape(j.shape)]

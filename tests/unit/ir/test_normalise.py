"""Runs of residues joined, met and left out: whatever the bands are, they hold the residues that the sets hold."""

from __future__ import annotations

from itertools import product

from sparsec.ir.bands.band import Band
from sparsec.ir.bands.bounds import lowest
from sparsec.ir.bands.lower import lower
from sparsec.ir.bands.normalise import Effort
from sparsec.sema import model as m

BLOCK, PERIOD = 16, 5
RUNS = tuple(product(range(PERIOD), range(1, PERIOD)))
"""(phase, width) of every run of residues that is neither none nor all."""


def residues(phase: int, width: int) -> frozenset[int]:
    return frozenset((phase + n) % PERIOD for n in range(width))


def term(phase: int, width: int) -> m.Term:
    return m.Union(tuple(m.Stride(PERIOD, residue, True) for residue in sorted(residues(phase, width))))


def held(bands: tuple[Band, ...]) -> frozenset[int]:
    """The residues of key blocks that some band holds."""
    found = set()
    for band in bands:
        assert band == Band(congruences=band.congruences, origin=band.origin)
        assert all(c.unit == BLOCK and not c.moving for c in band.congruences)
        for residue in range(PERIOD):
            if all((residue - lowest(c.phase)) % c.period < c.width for c in band.congruences):
                found.add(residue)
    return frozenset(found)


def is_run(found: frozenset[int]) -> bool:
    return found in {residues(*run) for run in RUNS} or len(found) == PERIOD


def test_unions_intersections_and_differences_of_runs_of_residues() -> None:
    for a, b in product(RUNS, RUNS):
        left, right = term(*a), term(*b)
        for of, expected in (
            (m.Union((left, right)), residues(*a) | residues(*b)),
            (m.Intersection((left, right)), residues(*a) & residues(*b)),
            (m.Difference(left, right), residues(*a) - residues(*b)),
        ):
            bands = lower(of, BLOCK, Effort())
            assert held(bands) == expected, (of, bands)
            if is_run(expected):
                assert len(bands) == 1, (of, bands)


def test_residues_of_two_units_that_meet_in_one_run_are_one_congruence() -> None:
    """Within blocks of one residue, runs of keys whose period divides a block: as ranks share the keys of a cache."""
    for period, phase, parts, part in product((3, 4), range(3), (2, 4, 16), range(2)):
        run = BLOCK // parts
        keys = m.Union(tuple(m.Stride(BLOCK, part * run + n, False) for n in range(run)))
        (band,) = lower(m.Intersection((m.Stride(period, phase, True), keys)), BLOCK, Effort())
        (found,) = band.congruences
        for j in range(2 * period * BLOCK):
            expected = j // BLOCK % period == phase and j % BLOCK // run == part
            assert ((j // found.unit - lowest(found.phase)) % found.period < found.width) == expected

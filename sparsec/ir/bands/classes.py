"""Per-head bands -> head classes: heads whose bands are equal up to the numbers in them share one.

A number that all heads of a class agree on stays a literal; one that varies becomes a head constant c0, c1, ...
Invariant: units, periods, widths and the shape of the bands are equal over a class; offsets, phases and lanes may vary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from sparsec.ir.bands.band import Band, Congruence
from sparsec.ir.bands.bounds import Bound, Number, PerHead
from sparsec.ir.bands.lower import lower
from sparsec.ir.bands.normalise import Effort
from sparsec.ir.bands.transpose import transpose
from sparsec.sema.model import ResolvedPattern, Term

HeadBands = tuple[tuple[Band, ...], ...]
"""The bands of each head; equal heads share one tuple."""


@dataclass(frozen=True, slots=True)
class BandClass:
    """`constants[n]` is (name, value for each head of `heads`)."""

    heads: tuple[int, ...]
    bands: tuple[Band, ...]
    constants: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class BlockMask:
    """The IR of a pattern for known head counts."""

    block: int
    classes: tuple[BandClass, ...]


def bands_of_heads(pattern: ResolvedPattern, effort: Effort) -> HeadBands:
    """Lowers every head. Raises TooManyBands."""
    distinct = {id(term): term for term in pattern.terms}  # a look-up by the term itself would walk the whole of it
    lowered: dict[Term, tuple[Band, ...]] = {}
    for term in distinct.values():
        if term not in lowered:
            lowered[term] = lower(term, pattern.block, effort, pattern.inputs)
    found = {key: lowered[term] for key, term in distinct.items()}
    return tuple(found[id(term)] for term in pattern.terms)


def grouped_mask(bands: HeadBands, block: int, *, transposed: bool = False) -> BlockMask:
    """Groups the heads of a pattern of that block size; `transposed`: with rows and columns exchanged."""
    kinds: dict[int, _Kind] = {}
    ordinals: dict[tuple[Band, ...], int] = {}
    groups: dict[int, list[int]] = {}
    kind_of_head = []
    for head, of_head in enumerate(bands):
        kind = kinds.get(id(of_head))
        if kind is None:
            own = tuple(transpose(band) for band in of_head) if transposed else of_head
            shape = tuple(renumbered(band, lambda _: 0) for band in own)
            kind = kinds[id(of_head)] = _Kind(own, tuple(_numbers(own)), ordinals.setdefault(shape, len(ordinals)))
        kind_of_head.append(kind)
        groups.setdefault(kind.shape, []).append(head)
    return BlockMask(
        block,
        tuple(_band_class(tuple(group), [kind_of_head[head] for head in group]) for group in groups.values()),
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    """The bands of equal heads, the numbers in them, and which shape is theirs."""

    bands: tuple[Band, ...]
    numbers: tuple[int, ...]
    shape: int


def equal_heads(
    heads: tuple[int, ...], constants: tuple[tuple[str, tuple[int, ...]], ...]
) -> list[tuple[tuple[int, ...], dict[str, int]]]:
    """The heads of a class that also share their constants, with these."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for n, head in enumerate(heads):
        groups.setdefault(tuple(values[n] for _, values in constants), []).append(head)
    names = [name for name, _ in constants]
    return [(tuple(group), dict(zip(names, values, strict=True))) for values, group in groups.items()]


def _band_class(heads: tuple[int, ...], kinds: list[_Kind]) -> BandClass:
    columns = list(zip(*(kind.numbers for kind in kinds), strict=True))
    names: dict[tuple[int, ...], str] = {}
    for column in columns:
        if len(set(column)) > 1:
            names.setdefault(column, f"c{len(names)}")
    replacements = iter(
        PerHead(names[column], min(column), max(column)) if column in names else column[0] for column in columns
    )
    first = kinds[0].bands
    bands = tuple(renumbered(band, lambda _: next(replacements)) for band in first)
    bands = tuple(replace(band, origin=of.origin) for band, of in zip(bands, first, strict=True))
    return BandClass(heads, bands, tuple((name, column) for column, name in names.items()))


def _numbers(bands: tuple[Band, ...]) -> Iterator[int]:
    """Every number of the bands that may vary within a class, in the order in which `renumbered` meets them."""
    found: list[Number] = []

    def note(number: Number) -> Number:
        found.append(number)
        return number

    for band in bands:
        renumbered(band, note)
    for number in found:
        assert isinstance(number, int)
        yield number


def renumbered(band: Band, change: Callable[[Number], Number]) -> Band:
    """The band with each number that may vary within a class passed through `change`, and without its origin."""

    def bounds(items: tuple[Bound, ...]) -> tuple[Bound, ...]:
        return tuple(replace(b, offset=change(b.offset), shift=change(b.shift)) for b in items)

    def residues(items: tuple[Congruence, ...]) -> tuple[Congruence, ...]:
        return tuple(replace(c, phase=change(c.phase)) for c in items)

    return Band(
        bounds(band.lower),
        bounds(band.upper),
        bounds(band.first_row),
        bounds(band.last_row),
        residues(band.congruences),
        tuple(replace(t, draws=replace(t.draws, lane=change(t.draws.lane))) for t in band.lists),
        band.inputs,
        residues(band.row_residues),
    )

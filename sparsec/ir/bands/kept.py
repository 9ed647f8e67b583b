"""Bands of heads -> the same for a cache that holds marked keys in lists of their own.

A band that asks for marked keys then asks for listed ones (`Asks.KEPT`), and their marks of the list's entries
(`Asks.KEPT_MARK`). Invariant: the sets of pairs stay, if each group's list has the keys that a band of its heads may
see; a band without marked keys stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsec.ir.bands.band import Asks, Band, InputTest
from sparsec.ir.bands.classes import HeadBands
from sparsec.ir.bands.liveness import Region, region_of
from sparsec.sema.model import InputDecl, InputKind

WORD = 32
"""Bits of a word of marks."""


@dataclass(frozen=True, slots=True)
class Need:
    """Keys with one of `marks`, a set of bits (see KeptMarks), are needed as `region` says."""

    region: Region
    marks: int


@dataclass(frozen=True, slots=True)
class KeptMarks:
    """What the lists of kept keys say of marks.

    An entry has the bit `bit(n, head)` iff its key is marked for the head by the input `ordinals[n]`, one of those of
    kind tokens. `needs`: of each KV group, for which marks keys are listed. `apart`: the terms, as in `origin` of a
    band, that see some marked keys and not others, and not for the region of a need.
    """

    ordinals: tuple[int, ...]
    share: int
    needs: tuple[tuple[Need, ...], ...]
    apart: tuple[str, ...]

    @property
    def bits(self) -> int:
        return len(self.ordinals) * self.share

    @property
    def words(self) -> int:
        """Of an entry."""
        return -(-self.bits // WORD)

    def bit(self, n: int, head: int) -> int:
        return n * self.share + head % self.share

    def wanted(self, group: int) -> int:
        """The bits of which a listed key has at least one."""
        found = 0
        for need in self.needs[group]:
            found |= need.marks
        return found

    def wanted_words(self, group: int) -> tuple[int, ...]:
        return tuple(self.wanted(group) >> WORD * n & (1 << WORD) - 1 for n in range(self.words))


def lists_keys(band: Band) -> bool:
    """Whether the band asks for marked keys."""
    return any(test.asks is Asks.MARKED and not test.negated for test in band.inputs)


def over_lists(bands: HeadBands, inputs: tuple[InputDecl, ...]) -> HeadBands:
    """The bands of each head over a cache with lists; equal heads share one tuple."""
    source = InputTest(token_ordinals(inputs)[0], Asks.KEPT)
    found = {id(each): tuple(_listed(band, source) if lists_keys(band) else band for band in each) for each in bands}
    return tuple(found[id(each)] for each in bands)


def beside_lists(bands: HeadBands) -> HeadBands:
    """Those bands of each head that ask for no marked keys; equal heads share one tuple."""
    found = {id(each): tuple(band for band in each if not lists_keys(band)) for each in bands}
    return tuple(found[id(each)] for each in bands)


def kept_marks(bands: HeadBands, inputs: tuple[InputDecl, ...], kv_heads: int) -> KeptMarks:
    """Which keys the lists of each group have, by the bands of a cache without lists."""
    ordinals, share = token_ordinals(inputs), len(bands) // kv_heads
    marks = KeptMarks(ordinals, share, (), ())
    needs: list[dict[Region, int]] = [{} for _ in range(kv_heads)]
    for head, own in enumerate(bands):
        for band in filter(lists_keys, own):
            region = region_of(band)
            for test in band.inputs if region is not None else ():
                if test.asks is Asks.MARKED and not test.negated:
                    assert region is not None
                    bit = 1 << marks.bit(ordinals.index(test.ordinal), head)
                    of_group, region = needs[head // share], replace(region, origin="")
                    of_group[region] = of_group.get(region, 0) | bit
    apart = dict.fromkeys(band.origin for own in bands for band in own if lists_keys(band) and _apart(band))
    return replace(
        marks, needs=tuple(tuple(Need(*each) for each in group.items()) for group in needs), apart=tuple(apart)
    )


def _apart(band: Band) -> bool:
    """Whether the band asks more of a key than its marks and the region of the band say."""
    asked = any(test.asks is not Asks.MARKED for test in band.inputs)
    return asked or bool(band.lists) or len(band.congruences) > 1 or any(each.moving for each in band.congruences)


def token_ordinals(inputs: tuple[InputDecl, ...]) -> tuple[int, ...]:
    """The inputs of kind tokens."""
    return tuple(n for n, each in enumerate(inputs) if each.kind is InputKind.TOKENS)


def _listed(band: Band, source: InputTest) -> Band:
    tests = (replace(test, asks=Asks.KEPT_MARK) if test.asks is Asks.MARKED else test for test in band.inputs)
    return replace(band, inputs=(source, *tests))

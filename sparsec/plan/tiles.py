"""Tiles of a compilation <-> plain data: what a caller gives, a name, a manifest and the build cache say of them.

Invariant: what comes back is equal to what went, and within what Triton's kernels take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple

from sparsec.plan.picks import Kind, Pick, Tiles
from sparsec.plan.target import DECODE_ROWS

_SIZES = (16, 32, 64, 128, 256)
_WARPS = (1, 2, 4, 8, 16)
_MOST_STAGES = 8
_REGISTERS = range(24, 256)


def tiles_data(tiles: Tiles) -> dict[str, list[int | None]]:
    """By the kind's name: query tile, key tile, warps, stages, and the most registers of a thread or None."""
    return {kind.value: list(astuple(pick)) for kind, pick in tiles}


def tiles_from(data: object) -> Tiles:
    """What `tiles_data` was made from; the last number may be left out. Raises ValueError for other data."""
    if not isinstance(data, Mapping):
        raise ValueError(f"expected tiles by the kind of kernel, got {data!r:.80}")
    known = [kind.value for kind in Kind]
    for name in data:
        if name not in known:
            raise ValueError(f"expected tiles of {', '.join(known)}, got {name!r:.40}")
    return tuple((kind, _pick(kind, data[kind.value])) for kind in Kind if kind.value in data)


def _pick(kind: Kind, given: object) -> Pick:
    numbers = tuple(given) if isinstance(given, Sequence) else ()
    if len(numbers) == 5 and numbers[4] is None:
        numbers = numbers[:4]
    if len(numbers) not in (4, 5) or any(type(number) is not int for number in numbers):
        wanted = "(query tile, key tile, warps, stages) or those and the most registers of a thread"
        raise ValueError(f"expected tiles of {kind.value} as {wanted}, got {given!r:.80}")
    pick = Pick(*numbers)
    sizes = (DECODE_ROWS,) if kind is Kind.DECODE else _SIZES
    for name, number, among in (
        ("query tile", pick.query_tile, sizes),
        ("key tile", pick.key_tile, _SIZES),
        ("number of warps", pick.warps, _WARPS),
        ("number of stages", pick.stages, tuple(range(1, _MOST_STAGES + 1))),
    ):
        if number not in among:
            raise ValueError(f"expected a {name} of {kind.value} among {', '.join(map(str, among))}, got {number}")
    if pick.maxnreg is not None and pick.maxnreg not in _REGISTERS:
        raise ValueError(f"expected from 24 to 255 registers of a thread of {kind.value}, got {pick.maxnreg}")
    return pick

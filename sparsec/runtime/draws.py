"""List specs -> the int32 tables of random draws that kernels read, for the query blocks of one call.

Invariant: a table is computed where it is read, from numbers that are there: a call copies nothing from the host.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsec.ir.tiles.program import ListSpec
from sparsec.runtime.devices import PerDevice, captured, device_tensor, stream

_SEED, _LANE, _BLOCK = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True, slots=True)
class DrawTables:
    """The tables of `lists`, call by call."""

    lists: tuple[ListSpec, ...]
    _starts: PerDevice[tuple[Tensor, ...]] = field(init=False, repr=False, compare=False)
    _last: dict[tuple[torch.device, int], tuple[tuple[int, int], tuple[Tensor, ...]]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """The latest tables of a stream. No other stream reads them, nor any graph: it would need them to the end of its
    own life, and so makes them anew."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", PerDevice(self._starts_on))

    def tables(self, n_queries: int, q_offset: int, device: torch.device) -> tuple[Tensor, ...]:
        """One table a list: int32 [lanes, query blocks, width], from block q_offset // block on (see ListSpec)."""
        if not self.lists:
            return ()
        call, key, recorded = (n_queries, q_offset), (device, stream(device)), captured(device)
        known, tables = self._last.get(key, (None, ()))
        if known == call and not recorded:
            return tables
        made = []
        for spec, start in zip(self.lists, self._starts.on(device), strict=True):
            first = q_offset // spec.block
            blocks = max((q_offset + n_queries - 1) // spec.block - first + 1, 0)
            made.append(_table(start, first, blocks))
        if not recorded:
            self._last[key] = call, tuple(made)
        return tuple(made)

    def _starts_on(self, device: torch.device) -> tuple[Tensor, ...]:
        """Of each list int64 [lanes, 1, width]: the counters of the draws of query block 0."""

        def rows(spec: ListSpec) -> list[list[list[int]]]:
            firsts = (seed * _SEED + lane * _LANE + 1 for seed, lane in spec.lanes)
            return [[[_signed(first + t) for t in range(spec.width)]] for first in firsts]

        return tuple(device_tensor(rows(spec), device, torch.int64) for spec in self.lists)


def draw_tables(lists: tuple[ListSpec, ...], n_queries: int, q_offset: int, device: torch.device) -> tuple[Tensor, ...]:
    """The tables of one call, or of a cache (n_queries: the most tokens that it may have); see `DrawTables.tables`."""
    return DrawTables(lists).tables(n_queries, q_offset, device)


def _table(start: Tensor, first: int, blocks: int) -> Tensor:
    position = torch.arange(first, first + blocks, device=start.device)[:, None]
    z = _finalised(torch.add(start, position, alpha=_signed(_BLOCK)))
    # Of the unsigned number, halved to fit the signed type: its upper 63 bits, and then its lowest bit.
    count = position.clamp(min=0) + 1
    half = _shifted(z, 1) % count
    drawn = ((2 * half + (z & 1)) % count).to(torch.int32)
    # Of equal draws all but the first are left out: sorted, they come after each other in their own order.
    ordered, place = drawn.sort(dim=-1, stable=True)
    again = ordered.diff(dim=-1, prepend=ordered[..., :1] - 1) == 0
    repeated = torch.empty_like(again).scatter_(-1, place, again)
    return drawn.masked_fill_(repeated | (position < 0), -1)


def _finalised(z: Tensor) -> Tensor:
    """The SplitMix64 finaliser (Steele, Lea and Flood 2014), modulo 2**64; int64 holds the bits."""
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """To the right, with zeros from the left."""
    return (z >> bits) & ((1 << 64 - bits) - 1)


def _signed(number: int) -> int:
    """The int64 of the same lowest 64 bits."""
    return (number + 2**63) % 2**64 - 2**63

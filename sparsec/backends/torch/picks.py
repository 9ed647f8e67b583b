"""What inputs say of tiles and of pairs, on the `torch` target; and the keys that rows list themselves.

Invariant: of pairs, torch operations alone are used; numbers of tiles are read on the host only where they lie there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.band import Asks, InputTest
from sparsec.ir.bands.kept import WORD
from sparsec.ir.expr.nodes import Extent
from sparsec.ir.tiles.interpreter import Positions, anything
from sparsec.plan.target import TORCH_COLUMNS
from sparsec.runtime.kv.lists import KeptLists


@dataclass(frozen=True, slots=True)
class Picks:
    """The lookups of one sequence and one query head of a call whose first query stands at `first_query`.

    Position 0 of the pairs, or of those of a document, is row `row_base` of the queries and row `key_base` of the keys.
    """

    lookups: tuple[Lookup, ...]
    sequence: int
    head: int
    heads: int
    row_base: int
    key_base: int
    first_query: int
    n_keys: int
    kept: KeptLists | None = None

    def of_pair(self, test: InputTest, i: Tensor, j: Tensor) -> Tensor:
        """bool: whether the test, not negated, passes for positions that broadcast together."""
        lookup = self._of(test)
        data = self._mine(lookup.data)
        match test.asks:
            case Asks.MARKED:
                return _counted(data, j + self.key_base)
            case Asks.COLUMN:
                return _counted(data, j // test.width)
            case Asks.SLASH:
                return _counted(data, i // test.height - j // test.width - lookup.first)
            case Asks.SLASH_TILE:
                return _counted(data, i // test.height * test.height - j - lookup.first)
            case Asks.ROW:
                assert lookup.ordered is not None
                row, inside = _clamped(i + self.row_base, data.shape[0])
                entries, number = self._mine(lookup.ordered)[row[:, 0]], (j // test.width).to(torch.int32)
                if not entries.shape[1]:
                    return inside & (number < 0)
                number = number.expand(len(row), -1).contiguous()
                place = torch.searchsorted(entries, number).clamp(max=entries.shape[1] - 1)
                return (entries.gather(1, place) == number) & inside
            case Asks.CELL:
                row, known = _clamped(i // test.height - self.first_query // test.height, data.shape[0])
                column, also = _clamped(j // test.width, data.shape[1])
                return (data[row, column] != 0) & known & also
            case Asks.LABEL:
                assert lookup.keys is not None
                keys = self._mine(lookup.keys)
                row, known = _clamped(i + self.row_base, data.shape[0])
                column, also = _clamped(j + self.key_base, keys.shape[0])
                return (data[row] == keys[column]) & (data[row] >= 0) & known & also
            case Asks.ANCESTOR:
                first = self.n_keys - len(data)
                if not len(data):
                    return j < first
                row, known = _clamped(i - first, len(data))
                column, also = _clamped(j - first, len(data))
                return (j < first) | ((data[row, column] != 0) & known & also)
            case Asks.KEY_BELOW:
                return j < data
            case Asks.QUERY_BELOW:
                return i < data
            case Asks.NEAR:
                return (i - j < data) & (data > 0)
            case Asks.KEPT | Asks.KEPT_MARK:
                raise InternalError("lists of kept keys are asked of their entries alone")
            case _:
                assert_never(test.asks)

    def of_tile(self, test: InputTest, scope: Extent, queries: Positions, keys: Positions) -> bool:
        """As `ir.tiles.interpreter.Asked`; tensors that lie elsewhere are not waited for, and may say anything."""
        if test.asks in (Asks.KEPT, Asks.KEPT_MARK):
            return anything(test, scope, queries, keys)
        lookup = self._of(test)
        if lookup.data.device.type != "cpu":
            return anything(test, scope, queries, keys)
        data = self._mine(lookup.data).numpy()
        (i0, i1), (j0, j1) = (queries[0], queries[1] - 1), (keys[0], keys[1] - 1)
        match test.asks:
            case Asks.MARKED:
                return _range(data, j0 + self.key_base, j1 + self.key_base, scope)
            case Asks.COLUMN:
                return _range(data, j0 // test.width, j1 // test.width, scope)
            case Asks.SLASH:
                low, high = i0 // test.height - j1 // test.width, i1 // test.height - j0 // test.width
                return _range(data, low - lookup.first, high - lookup.first, scope)
            case Asks.SLASH_TILE:
                low, high = i0 // test.height * test.height - j1, i1 // test.height * test.height - j0
                return _range(data, low - lookup.first, high - lookup.first, scope)
            case Asks.CELL:
                first = self.first_query // test.height
                rows = range(i0 // test.height - first, i1 // test.height - first + 1)
                columns = range(j0 // test.width, j1 // test.width + 1)
                cells = data[max(rows.start, 0) : max(rows.stop, 0), columns.start : columns.stop] != 0
                return bool(cells.any()) if scope is Extent.SOME else bool(cells.sum() == len(rows) * len(columns))
            case Asks.ANCESTOR if scope is Extent.EVERY:
                return j1 < self.n_keys - len(data)
            case Asks.KEY_BELOW:
                return (j0 if scope is Extent.SOME else j1) < int(data)
            case Asks.QUERY_BELOW:
                return (i0 if scope is Extent.SOME else i1) < int(data)
            case Asks.NEAR:
                return bool((i0 - j1 if scope is Extent.SOME else i1 - j0) < int(data) and data > 0)
            case Asks.ROW | Asks.LABEL | Asks.ANCESTOR | Asks.KEPT | Asks.KEPT_MARK:
                return anything(test, scope, queries, keys)
            case _:
                assert_never(test.asks)

    def entries(self, test: InputTest, rows: Positions, n_keys: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The positions of the keys that rows list, in chunks [rows, keys]; and which of them exist."""
        listed = self._mine(self._of(test).data)[rows[0] + self.row_base : rows[1] + self.row_base]
        if not listed.shape[-1] or not n_keys:
            return
        within = torch.arange(test.width, device=listed.device)
        for part in torch.split(listed, max(TORCH_COLUMNS // test.width, 1), dim=-1):
            known = (part >= 0) & (part < -(-n_keys // test.width))
            first = part.where(known, 0).to(torch.int64) * test.width
            keys = (first[..., None] + within).flatten(1)
            yield keys.clamp(max=n_keys - 1), known.repeat_interleave(test.width, dim=1) & (keys < n_keys)

    def kept_entries(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The entries of the list of kept keys, in chunks, and their positions."""
        assert self.kept is not None, "a plan over lists of kept keys comes with these"
        groups = self.kept.lists.shape[1]
        base, _, count = self.kept.lists[self.sequence, self.head * groups // self.heads].tolist()
        for first in range(base, base + count, TORCH_COLUMNS):
            entries = torch.arange(first, min(first + TORCH_COLUMNS, base + count), device=self.kept.keys.device)
            yield entries, self.kept.entries[0, entries].to(torch.int64)

    def marked(self, test: InputTest, entries: Tensor) -> Tensor:
        """Whether kept keys are marked."""
        assert self.kept is not None, "a plan over lists of kept keys comes with these"
        bit = self.kept.of.bit(self.kept.of.ordinals.index(test.ordinal), self.head)
        return (self.kept.entries[1 + bit // WORD, entries] >> bit % WORD & 1) != 0

    def _of(self, test: InputTest) -> Lookup:
        return next(lookup for lookup in self.lookups if lookup.test == test)

    def _mine(self, data: Tensor) -> Tensor:
        return data[self.sequence if data.shape[0] > 1 else 0, self.head * data.shape[1] // self.heads]


def _clamped(index: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The index within 0 .. count - 1, of at least one row, and where it was so before."""
    return index.clamp(0, max(count - 1, 0)), (index >= 0) & (index < count)


def _counted(data: Tensor, number: Tensor) -> Tensor:
    """Whether numbers are picked, of their prefix counts."""
    index, inside = _clamped(number, len(data) - 1)
    return (data[(index + 1).clamp(max=len(data) - 1)] > data[index]) & inside


def _range(data: npt.NDArray[np.int32], low: int, high: int, scope: Extent) -> bool:
    """Whether some, or all, of the numbers low .. high are picked."""
    start, stop = max(low, 0), min(high + 1, len(data) - 1)
    found = int(data[stop]) - int(data[start]) if start < stop else 0
    return found > 0 if scope is Extent.SOME else found == high - low + 1

"""Shared memory of the model of Gluon: buffers and their readers, barriers, what is in flight, descriptors.

Invariant: each row of a buffer knows the copy that last wrote it and every read of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from gluon_values import Value
from torch import Tensor


class Hazard(Exception):
    """What a card may do wrong."""


@dataclass(eq=False)
class Copy:
    """One copy into shared memory; `landed` once it is there."""

    into: Buffer
    land: Callable[[], None]
    landed: bool = False


@dataclass(eq=False)
class Region:
    """Rows of a buffer: the copy that last wrote them, and who reads them: (partition, its time once it has read)."""

    copy: Copy | None = None
    reads: list[Read] = field(default_factory=list)


@dataclass(eq=False)
class Read:
    partition: int
    done_at: int | None = None


@dataclass(eq=False)
class Known:
    """What a partition knows to have happened: times of partitions, and copies."""

    times: dict[int, int] = field(default_factory=dict)
    copies: set[Copy] = field(default_factory=set)

    def learn(self, other: Known) -> None:
        for partition, time in other.times.items():
            self.times[partition] = max(time, self.times.get(partition, 0))
        self.copies |= other.copies


@dataclass(eq=False)
class Barrier:
    """`count` arrivals and all expected bytes end a phase; `known` is what those know who arrived up to its end."""

    count: int = 0
    left: int = 0
    bytes: int = 0
    phase: int = 0
    fenced: bool = False
    arriving: Known = field(default_factory=Known)
    known: Known = field(default_factory=Known)

    def settle(self) -> None:
        if self.left < 0:
            raise Hazard(f"more arrivals than the {self.count} of a barrier")
        if self.left == 0 and self.bytes == 0:
            self.phase, self.left = self.phase + 1, self.count
            self.known.learn(self.arriving)


@dataclass(eq=False)
class Barriers:
    all: list[Barrier]

    def index(self, n: Any) -> Barriers:
        assert 0 <= int(n) < len(self.all), "a barrier of the ring"
        return Barriers([self.all[int(n)]])

    @property
    def one(self) -> Barrier:
        assert len(self.all) == 1, "one barrier"
        return self.all[0]


@dataclass(eq=False)
class Buffer:
    """A view of shared memory: `regions` has one Region a row, equal in shape to `data` without its columns."""

    data: Tensor
    regions: list[Any]
    axis: int = 0
    """The dimension of the rows."""

    @property
    def dtype(self) -> torch.dtype:
        return self.data.dtype

    @property
    def shape(self) -> list[int]:
        return list(self.data.shape)

    def index(self, n: Any) -> Buffer:
        assert 0 <= int(n) < len(self.data), "a buffer of the ring"
        return Buffer(self.data[int(n)], self.regions[int(n)], self.axis - 1)

    def slice(self, first: int, rows: int, axis: int) -> Buffer:
        assert axis == self.axis, "rows are cut"
        return Buffer(self.data.narrow(axis, first, rows), self.regions[first : first + rows], axis)

    def reshape(self, shape: list[int]) -> Buffer:
        assert self.data.shape[self.axis] == shape[0], "rows stay rows"
        return Buffer(self.data.reshape(shape), self.regions, 0)

    def permute(self, order: tuple[int, ...]) -> Buffer:
        return Buffer(self.data.permute(order), self.regions, order.index(self.axis))


@dataclass(eq=False)
class Product:
    """A product in flight: `value` once it is waited for."""

    finish: Callable[[], Value]
    value: Value | None = None


class Descriptor(SimpleNamespace):
    """A tensor [batch, head, row, column] and the box that one copy has of it."""

    def __init__(self, tensor: Tensor, box: list[int]) -> None:
        size = box[2] * box[3] * tensor.element_size()
        super().__init__(
            tensor=tensor, box=box, dtype=tensor.dtype, layout=None, block_type=SimpleNamespace(nbytes=size)
        )

    def tile(self, at: list[int]) -> Tensor:
        """What lies outside the tensor is 0."""
        found = torch.zeros(self.box, dtype=self.dtype)
        starts, sizes = [int(n) for n in at], self.tensor.shape
        inside = [slice(max(s, 0), min(s + box, size)) for s, box, size in zip(starts, self.box, sizes, strict=True)]
        if all(cut.start < cut.stop for cut in inside):
            to = tuple(slice(cut.start - s, cut.stop - s) for cut, s in zip(inside, starts, strict=True))
            found[to] = self.tensor[tuple(inside)]
        return found


@dataclass(eq=False)
class Cells:
    """Numbers in shared memory that partitions store and load: `program` is asked what is known, as of its methods."""

    all: list[Cell]
    program: Any

    def index(self, n: Any) -> Cells:
        assert 0 <= int(n) < len(self.all), "a cell of the ring"
        return Cells([self.all[int(n)]], self.program)

    def store(self, value: Value) -> None:
        (cell,), times = self.all, self.program.now().times
        if any(time > times.get(partition, 0) for partition, time in cell.reads):
            raise Hazard("a store to a cell that may still be read")
        cell.value, cell.reads, cell.stored = value, [], (self.program.me, self.program.tick())

    def load(self, layout: object) -> Value:
        (cell,), times = self.all, self.program.now().times
        if cell.value is None or cell.stored[1] > times.get(cell.stored[0], 0):
            raise Hazard("a load of a cell whose store was not waited for")
        cell.reads.append((self.program.me, self.program.tick()))
        return cell.value


@dataclass(eq=False)
class Cell:
    """`reads` and `stored`: partition and its time."""

    value: Value | None = None
    stored: tuple[int, int] = (0, 0)
    reads: list[tuple[int, int]] = field(default_factory=list)

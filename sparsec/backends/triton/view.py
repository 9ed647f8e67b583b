"""What the templates of templates/triton read: frozen data, every string of it a name or a line of Triton.

Invariant: no view holds an expression; what is left to a template is where the lines stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsec.plan.heads import ColumnChunk


@dataclass(frozen=True, slots=True)
class SegmentView:
    """One segment of a loop: `lines` set `tile` for the iterations from `first` on.

    `fetched`: of listed keys, lines before these, which set `j` to entries of the list, less than 0 past its end.
    """

    origin: str
    count_lines: tuple[str, ...]
    first: str
    lines: tuple[str, ...]
    fetched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoopView:
    """All full or all masked tiles; `total` names the number of iterations; `skips`: some go past the last tile.

    `gathered`: the tiles are of listed keys instead, so many from one iteration to the next, from number `first` of the
    list up to `total`; the lines of the segment set `j`, and which keys are `known`. `list_number`: then, of the list's
    arguments. `stages`: in forward kernels, None for the launch's.
    """

    segments: tuple[SegmentView, ...]
    total: str
    masked: bool
    skips: bool
    lookup_lines: tuple[str, ...]
    """Lines that set `listed_<n>` for the tile at hand."""
    test_lines: tuple[str, ...]
    """Lines that set `live`; none in the loop of full tiles."""
    first: str = "0"
    gathered: int = 0
    list_number: int = 0
    stages: int | None = None

    @property
    def range(self) -> str:
        """The iterations."""
        return f"{self.first}, {self.total}{f', {self.gathered}' if self.gathered else ''}"


@dataclass(frozen=True, slots=True)
class ListView:
    """A list of draws: `width` of them padded to a power of two, blocks of 2**shift tokens, `tiles` key tiles each."""

    ordinal: int
    width: int
    padded: int
    shift: int
    tiles: int
    lane_row: str


@dataclass(frozen=True, slots=True)
class GroupsView:
    """The KV groups of a class: first, first + 1, ..., each with all its heads; None: those of the table of spans."""

    count: int
    first: int | None


@dataclass(frozen=True, slots=True)
class InputsView:
    """What a kernel is given of inputs: tensors, their numbers, and lines that find what they say of `head`."""

    tensors: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AskedView:
    """The tiles that ask inputs: those `tile` of numbers n < `count`, in vectors.

    `full` and `masked` set these names: which of the tiles a kernel visits; `full` is empty where it visits none.
    """

    origin: str
    count_lines: tuple[str, ...]
    tile_lines: tuple[str, ...]
    lookup_lines: tuple[str, ...]
    full: tuple[str, ...]
    masked: tuple[str, ...]
    inputs: InputsView


@dataclass(frozen=True, slots=True)
class GatherView:
    """A list of rows: `entries` names what it is, `number` that of its arguments, `width` keys an entry."""

    origin: str
    entries: str
    number: str
    width: int
    """Of the keys that are `known`, lines that set `live`."""
    test_lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GathersView:
    """The lists of one class, taken by kernels of their own."""

    lists: tuple[GatherView, ...]
    inputs: InputsView


@dataclass(frozen=True, slots=True)
class KeptView:
    """The kernel `name` that takes a class's lists of kept keys; `test_lines` as of a GatherView."""

    name: str
    piece: int
    attempts: int
    origin: str
    test_lines: tuple[str, ...]
    inputs: InputsView


@dataclass(frozen=True, slots=True)
class SplitsView:
    """Key tiles whose query tiles programs share, cut at the ends of so many `stretches`.

    `step_lines` set `more`: the query tiles of `walk_begin` .. `walk_end` - 1. `joined`: keys of a program that adds up
    the parts of a tile.
    """

    stretches: int
    joined: int
    step_lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelView:
    """One class's kernel, for query tiles or (then it has `groups`) for key tiles."""

    name: str
    origins: tuple[str, ...]
    heads: int
    first_head: int | None
    """The class's heads are first_head, first_head + 1, ...; None: they stand in the table's first column."""
    groups: GroupsView | None
    constants: tuple[tuple[str, int], ...]
    """(name, column of the head table)."""
    columns: int
    query_tile: int
    key_tile: int
    let_lines: tuple[str, ...]
    lists: tuple[ListView, ...]
    full: LoopView
    masked: LoopView
    piece: int
    """Columns that a program sums at a time where a sum is not finite."""
    attempts: int
    """How often it then goes over its tiles."""
    number: int = 0
    """Of the class."""
    inputs: InputsView = InputsView()
    asked: AskedView | None = None
    gathers: GathersView | None = None
    kept: KeptView | None = None

    @property
    def alone(self) -> bool:
        """Whether no other kernel of the class takes keys of lists."""
        return self.gathers is None and self.kept is None

    @property
    def kept_alone(self) -> bool:
        """Whether lists of kept keys are all that the class has."""
        return self.kept is not None and self.gathers is None and not self.has_tiles

    column_loops: tuple[LoopView, ...] = ()
    """Of a query tile, the loops over listed columns."""
    column_kernels: tuple[KernelView, ...] = ()
    """Of key tiles, the kernels whose program has some keys of a list of columns."""
    listed: str | None = None
    """Of such a kernel, the number of the list's arguments."""
    splits: SplitsView | None = None
    """Where programs may share the query tiles of a key tile."""

    @property
    def loops(self) -> tuple[LoopView, ...]:
        return tuple(each for each in (self.full, self.masked, *self.column_loops) if each.segments)

    @property
    def has_tiles(self) -> bool:
        """Whether it has any loop, or else nothing beside."""
        return bool(self.loops) or (self.alone and not self.column_kernels)


@dataclass(frozen=True, slots=True)
class ScoreView:
    """How modifiers change a tile's `scores`: lines, and for the gradients those that change `ds`.

    `factor` is what the changed scores have yet to be multiplied by; `arguments`: of the launch.
    """

    factor: str
    of_head: tuple[str, ...]
    """Lines that find the modifiers' numbers for `head`."""
    lines: tuple[str, ...]
    gradient: tuple[str, ...]
    arguments: tuple[str, ...]
    sizes: tuple[str, ...] = ()
    """Of what keys add to their scores; where there are some, `lines` set `kept`: which keys are seen at all."""


@dataclass(frozen=True, slots=True)
class StartView:
    """The call that gives row maxima and row sums before the first key, for `zeros`."""

    call: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowsView:
    """What `row_sums` does for the modifiers."""

    lines: tuple[str, ...]
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModuleView:
    """`kernels` go over query tiles; `key_kernels`, of the gradients alone, over key tiles."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    group_size: int
    score: ScoreView
    start: StartView
    rows: RowsView
    documents: str
    """`none`, `separate` or `restart`."""
    accumulate: bool
    """The heads of some KV group lie in several classes, whose gradients of keys and values are added up."""
    chunks: Mapping[str, tuple[ColumnChunk, ...]]
    """See `plan.heads.source_chunks`."""
    key_columns: str
    """The chunks of keys, as the kernels have them, and of queries."""
    value_columns: str
    """Those of values, and of outputs and their gradients."""
    kernels: tuple[KernelView, ...]
    key_kernels: tuple[KernelView, ...]
    unsure: bool = False
    """Whether only those programs compute that others, in whose place they come, were not sure of."""

"""Plans -> launch plans: all that a built kernel needs to be called, and nothing of how its source was made.

Invariant: a launch plan is plain data, numbers and names: a manifest stores exactly this and reads exactly this back.
How a kernel is compiled for a target (warps, stages, descriptors) follows from it and the target's name alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from sparsec.ir.bands.band import Asks, InputTest
from sparsec.ir.bands.kept import KeptMarks
from sparsec.ir.tiles.program import ListSpec
from sparsec.plan.heads import (
    ColumnChunk,
    PackTable,
    Table,
    group_spans,
    group_table,
    head_table,
    pack_table,
    packs,
    share_a_group,
    source_chunks,
)
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.picks import Tiles
from sparsec.plan.target import (
    LISTED_KEYS,
    LaunchShape,
    backward_shape,
    cached_shape,
    decode_rows,
    decode_shape,
    launch_shape,
)
from sparsec.sema.model import Documents, InputDecl, Score


@dataclass(frozen=True)
class LaunchClass:
    """One head class: `table` as of `plan.heads.head_table`, its tiles, the specs of its tables of draws.

    `light`: as `KernelPlan.light` says of it.
    """

    table: Table
    query_tile: int
    key_tile: int
    lists: tuple[ListSpec, ...]
    light: bool = False

    @classmethod
    def of(cls, head_class: HeadClass, *, light: bool = False) -> LaunchClass:
        program = head_class.program
        return cls(head_table(head_class), program.query_tile, program.key_tile, program.lists, light)

    @cached_property
    def heads(self) -> tuple[int, ...]:
        return tuple(row[0] for row in self.table)

    @property
    def of_list(self) -> LaunchClass:
        """What its keys of a list of columns are launched for, by as many warps."""
        return replace(self, key_tile=min(self.key_tile, LISTED_KEYS))


@dataclass(frozen=True)
class LaunchPlan:
    """Forward attention, or one of the kernels over a cache; the fields are those of a KernelPlan."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    dtype: str
    score: Score
    documents: Documents
    classes: tuple[LaunchClass, ...]
    declared: tuple[InputDecl, ...] = ()
    """The inputs of the pattern, in the order of a call's tensors."""
    inputs: tuple[InputTest, ...] = ()
    looked_up: tuple[InputTest, ...] = ()
    """Those of `inputs` that `KernelPlan.looks_up`."""
    tiles: Tiles = ()
    """As of a KernelPlan."""
    columns: tuple[InputTest, ...] = ()
    """Those of `inputs` whose columns are gathered."""

    @classmethod
    def of(cls, plan: KernelPlan) -> LaunchPlan:
        return cls(
            plan.heads,
            plan.kv_heads,
            plan.head_dim,
            plan.value_dim,
            plan.dtype,
            plan.score,
            plan.documents,
            tuple(LaunchClass.of(head_class, light=plan.light(head_class)) for head_class in plan.classes),
            plan.declared,
            plan.inputs,
            tuple(filter(plan.looks_up, plan.inputs)),
            plan.tiles,
            plan.columns,
        )

    @cached_property
    def ordered(self) -> tuple[InputTest, ...]:
        """Those of `inputs` whose lists kernels need in order."""
        rows = tuple(test for test in self.looked_up if test.asks is Asks.ROW)
        return (*rows, *self.columns)

    @cached_property
    def of_inputs(self) -> tuple[InputTest, ...]:
        """Those of `inputs` that tensors of a call answer; lists of kept keys answer the others."""
        return tuple(test for test in self.inputs if test.asks not in (Asks.KEPT, Asks.KEPT_MARK))

    @cached_property
    def takes_lists_alone(self) -> bool:
        """Whether all that tensors of a call answer is lists by query, which kernels take as they are given."""
        return bool(self.of_inputs) and not self.ordered and all(test.asks is Asks.ROW for test in self.of_inputs)

    @property
    def widest(self) -> int:
        """What tiles and launches are chosen by: the larger of the two dimensions."""
        return max(self.head_dim, self.value_dim)

    @property
    def share(self) -> int:
        """Query heads of a KV group."""
        return self.heads // self.kv_heads

    def scale(self, given: float | None) -> float:
        """What a call multiplies q.k by: what it gives, else the pattern's, else 1/sqrt(D)."""
        scale = self.score.scale if given is None else given
        return self.head_dim**-0.5 if scale is None else scale

    @cached_property
    def lists(self) -> tuple[ListSpec, ...]:
        """The tables of draws that a call passes, class by class."""
        return tuple(spec for each in self.classes for spec in each.lists)

    @cached_property
    def chunks(self) -> Mapping[str, tuple[ColumnChunk, ...]]:
        """See `plan.heads.source_chunks`."""
        return source_chunks(self.head_dim, self.value_dim)

    def spans(self, of: LaunchClass) -> Table:
        """The KV groups of a class: see `plan.heads.group_spans`."""
        return group_spans(of.heads, self.share)

    def shape(self, of: LaunchClass, target: str) -> LaunchShape:
        """How the forward kernel of a class is compiled."""
        sizes = self.widest, self.dtype, of.query_tile, of.key_tile
        return launch_shape(target, *sizes, light=of.light, tiles=self.tiles)


@dataclass(frozen=True)
class BackwardLaunch:
    """The gradients: of queries by the classes of `forward`, of keys and values by the `transposed` ones."""

    forward: LaunchPlan
    transposed: tuple[LaunchClass, ...]

    @classmethod
    def of(cls, plan: BackwardPlan) -> BackwardLaunch:
        return cls(LaunchPlan.of(plan.forward), tuple(map(LaunchClass.of, plan.transposed)))

    @cached_property
    def lists(self) -> tuple[ListSpec, ...]:
        """The tables of draws of the transposed classes."""
        return tuple(spec for each in self.transposed for spec in each.lists)

    @cached_property
    def adds_up(self) -> bool:
        """Whether gradients of keys and values are added up over the classes of a KV group."""
        return share_a_group((each.heads for each in self.transposed), self.forward.share)

    def shape(self, of: LaunchClass, target: str, *, of_keys: bool) -> LaunchShape:
        """How the gradient kernel of a class, of `forward` or a transposed one, is compiled."""
        plan = self.forward
        return backward_shape(
            target, plan.widest, plan.dtype, of.query_tile, of.key_tile, of_keys=of_keys, tiles=plan.tiles
        )


@dataclass(frozen=True)
class CachedLaunch:
    """Attention over a cache: of `chunks` of queries, and of `few`. `store`: the table of KV groups. `kept`: as of a
    CachedPlan."""

    chunks: LaunchPlan
    few: LaunchPlan
    store: Table
    layout: CacheLayout
    kept: KeptMarks | None = None

    @classmethod
    def of(cls, chunks: CachedPlan, few: CachedPlan) -> CachedLaunch:
        return cls(
            LaunchPlan.of(chunks.attend),
            LaunchPlan.of(few.attend),
            group_table(chunks.store),
            chunks.layout,
            chunks.kept,
        )

    @cached_property
    def regions(self) -> int:
        """The most that a KV group has."""
        return self.layout.most_regions

    @cached_property
    def packs(self) -> int:
        """How many packs the heads make: each reads the keys of its KV group once."""
        return sum(len(packs(each.table, self.few.share)) for each in self.few.classes)

    def chunk_shape(self, of: LaunchClass, target: str) -> LaunchShape:
        plan = self.chunks
        return cached_shape(target, plan.widest, plan.dtype, of.query_tile, of.key_tile, tiles=plan.tiles)

    def decode_packs(self, of: LaunchClass, target: str, rows: int, *, apart: bool = False) -> PackTable:
        """The packs of a class, where each head has so many query rows; `apart`: each head is one."""
        most = 1 if apart else decode_rows(target, self.few.widest, self.few.dtype) // rows
        return pack_table(of.table, self.few.share, max(1, most))

    def decode_shape(self, of: LaunchClass, target: str, rows: int) -> LaunchShape:
        """How the kernel of a class of `few` is compiled for programs of so many rows."""
        few = self.few
        return decode_shape(target, few.widest, few.dtype, rows, of.key_tile, tiles=few.tiles)


@dataclass(frozen=True)
class Launches:
    """The launch plans of all kernels of a pattern for one target.

    `backward`: None where it is not trained. `cached`: None for a pattern without a cache. `kept`: of a cache that has
    lists of marked keys; None where nothing marks any. `paged`: over a server's pages; None where nobody asked for it.
    """

    forward: LaunchPlan
    backward: BackwardLaunch | None
    cached: CachedLaunch | None
    kept: CachedLaunch | None
    paged: CachedLaunch | None = None

    @classmethod
    def of(
        cls,
        forward: KernelPlan,
        backward: BackwardPlan | None,
        cached: tuple[CachedPlan, CachedPlan] | None,
        kept: tuple[CachedPlan, CachedPlan] | None = None,
        paged: tuple[CachedPlan, CachedPlan] | None = None,
    ) -> Launches:
        return cls(
            LaunchPlan.of(forward),
            None if backward is None else BackwardLaunch.of(backward),
            None if cached is None else CachedLaunch.of(*cached),
            None if kept is None else CachedLaunch.of(*kept),
            None if paged is None else CachedLaunch.of(*paged),
        )

"""The stages of the compiler, in order; and the objects that run the middle ones, from a resolved pattern to its plans.

A file is parsed and checked once (`program`), and its patterns are resolved for parameters and head counts. `Lowered`
holds what follows from a resolved pattern alone, `Compilation` what follows from head dimensions, a dtype and a target
too. Invariant: each stage is run when it is first asked for, and once; what it gave is handed on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property

from sparsec.ir.bands.classes import BlockMask, HeadBands, bands_of_heads
from sparsec.ir.bands.kept import beside_lists, kept_marks, over_lists
from sparsec.ir.bands.normalise import Effort
from sparsec.plan.build import limited_mask, plan_backward, plan_kernels
from sparsec.plan.kernel import BackwardPlan, KernelPlan
from sparsec.plan.kv.cached import CachedPlan, cache_layout, plan_cached
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.kv.pages import with_dead_keys
from sparsec.plan.picks import Tiles
from sparsec.plan.target import (
    FEW_BANDS,
    backward_tile_sizes,
    cached_tile_sizes,
    decode_tile_sizes,
    gathers_columns,
    tile_sizes,
    transposed_tile_sizes,
)
from sparsec.plan.verify import verified
from sparsec.sema.model import Documents, ResolvedPattern


@dataclass(frozen=True, slots=True)
class Stage:
    """One step: what it takes, what it gives, and the function, below `sparsec`, that does it; of a backend, the method
    that each has."""

    name: str
    takes: str
    gives: str
    function: str


STAGES = (
    Stage("parse", "text", "syntax.tree.File: a tree with spans", "syntax.parser.recover"),
    Stage("check", "tree", "sema.checked.CheckedFile: names, types and units are right", "sema.driver.check"),
    Stage(
        "resolve",
        "checked file, parameters, head counts",
        "sema.model.ResolvedPattern: one term of plain integers for each head",
        "sema.driver.resolve",
    ),
    Stage(
        "lower",
        "resolved pattern",
        "ir.bands.band.Band: each head's set as bands in closed form",
        "ir.bands.classes.bands_of_heads",
    ),
    Stage(
        "group",
        "bands of each head",
        "ir.bands.classes.BlockMask: heads whose bands are equal up to numbers share a class",
        "plan.build.limited_mask",
    ),
    Stage(
        "plan forward",
        "block mask, tile sizes",
        "plan.kernel.KernelPlan: a tile program for each class",
        "plan.build.plan_kernels",
    ),
    Stage(
        "plan backward",
        "block mask, the same transposed, tile sizes",
        "plan.kernel.BackwardPlan: tile programs of queries and of keys",
        "plan.build.plan_backward",
    ),
    Stage(
        "lay out",
        "bands of each head",
        "plan.kv.layout.CacheLayout: which keys a KV cache keeps, and where",
        "plan.kv.cached.cache_layout",
    ),
    Stage(
        "plan cached",
        "layout, block mask, tile sizes",
        "plan.kv.cached.CachedPlan: tile programs, and the slot of each key",
        "plan.kv.cached.plan_cached",
    ),
    Stage(
        "print",
        "plans",
        "C++ or Triton: a readable text for each of `backends.base.PARTS`",
        "backends.base.Builder.sources",
    ),
    Stage(
        "build",
        "plans",
        "backends.base.Kernels: what runs, or what will be built when it is called",
        "backends.base.Backend.kernels",
    ),
    Stage("wrap", "kernels", "runtime.module.SparseAttention: a module of torch", "runtime.compile.module_of"),
)


@dataclass(frozen=True)
class Lowered:
    """A resolved pattern on its way down, as far as no target matters.

    `effort`: what lowering it may cost. What raises, raises again when it is asked for again.
    """

    pattern: ResolvedPattern
    effort: Effort = field(default_factory=Effort, repr=False, compare=False)

    @cached_property
    def bands(self) -> HeadBands:
        """The bands of each head. Raises TooManyBands."""
        return bands_of_heads(self.pattern, self.effort)

    @cached_property
    def mask(self) -> BlockMask:
        """The heads by their bands. Raises TooManyBands, TooManyClasses."""
        return limited_mask(self.bands, self.pattern.block)

    def within_limits(self) -> Lowered:
        """Itself, once its mask is made; raises as that does."""
        assert self.mask.classes, "a pattern has a head"
        return self

    @cached_property
    def transposed(self) -> BlockMask:
        """The same with rows and columns exchanged: for a key, the queries that see it; raises as `mask` does."""
        return limited_mask(self.bands, self.pattern.block, transposed=True)

    @cached_property
    def layout(self) -> CacheLayout:
        """Which keys a KV cache keeps, and where. Raises NoCache, TooManyBands."""
        bands = self.bands
        return cache_layout(self.pattern, bands, Effort(self.effort.left))

    @cached_property
    def layout_beside_lists(self) -> CacheLayout:
        """The layout of the other keys where marked ones are in lists (`KVCache.keep`); raises as `layout` does."""
        bands = beside_lists(self.bands)
        return cache_layout(self.pattern, bands, Effort(self.effort.left))

    @cached_property
    def mask_over_lists(self) -> BlockMask:
        """The heads by their bands over such a cache; raises as `mask` does."""
        return limited_mask(over_lists(self.bands, self.pattern.inputs), self.pattern.block)

    def plan_forward(
        self,
        *,
        head_dim: int,
        value_dim: int | None = None,
        dtype: str,
        query_tile: int,
        key_tile: int,
        gathers_columns: bool = False,
    ) -> KernelPlan:
        """The forward plan, with tiles of at most the given sizes (powers of two); raises as `mask` does.

        value_dim, here and below: as head_dim, if left out; gathers_columns: as of `ir.tiles.project`.
        """
        plan = plan_kernels(
            self.pattern,
            self.mask,
            head_dim=head_dim,
            value_dim=value_dim,
            dtype=dtype,
            query_tile=query_tile,
            key_tile=key_tile,
            gathers_columns=gathers_columns,
        )
        return verified(plan, self.mask)

    def plan_backward(
        self,
        *,
        head_dim: int,
        value_dim: int | None = None,
        dtype: str,
        query_tile: int,
        key_tile: int,
        transposed_tiles: tuple[int, int] | None = None,
        gathers_columns: bool = False,
    ) -> BackwardPlan:
        """The plan of the gradients; `transposed_tiles`: of keys' and values', else the same. Raises likewise."""
        plan = plan_backward(
            self.pattern,
            self.mask,
            self.transposed,
            head_dim=head_dim,
            value_dim=value_dim,
            dtype=dtype,
            query_tile=query_tile,
            key_tile=key_tile,
            transposed_tiles=transposed_tiles,
            gathers_columns=gathers_columns,
        )
        return verified(plan, self.mask, self.transposed)

    def plan_cached(
        self,
        *,
        head_dim: int,
        value_dim: int | None = None,
        dtype: str,
        query_tile: int,
        key_tile: int,
        gathers_columns: bool = False,
    ) -> CachedPlan:
        """The plan of attention over a cache; raises as `layout` and `mask` do."""
        plan = plan_cached(
            self.pattern,
            self.layout,
            self.mask,
            head_dim=head_dim,
            value_dim=value_dim,
            dtype=dtype,
            query_tile=query_tile,
            key_tile=key_tile,
            gathers_columns=gathers_columns,
        )
        return verified(plan, self.mask)

    def plan_kept(
        self,
        *,
        head_dim: int,
        value_dim: int | None = None,
        dtype: str,
        query_tile: int,
        key_tile: int,
        gathers_columns: bool = False,
    ) -> CachedPlan:
        """The plan of attention over a cache that has marked keys in lists; raises as `layout` and `mask` do."""
        plan = plan_cached(
            self.pattern,
            self.layout_beside_lists,
            self.mask_over_lists,
            head_dim=head_dim,
            value_dim=value_dim,
            dtype=dtype,
            query_tile=query_tile,
            key_tile=key_tile,
            gathers_columns=gathers_columns,
            kept=kept_marks(self.bands, self.pattern.inputs, self.pattern.kv_heads),
        )
        return verified(plan, self.mask_over_lists)


@dataclass(frozen=True)
class Compilation:
    """A pattern for the dimensions of keys and of values, a dtype and a target name of `plan.target`.

    The dtype is "float32", "bfloat16" or "float16".
    `refusals`: where plans are made; with the pattern of a file, what they refuse becomes the file's diagnostics.
    `tiles`: chosen before what the target's table and rules say.
    """

    lowered: Lowered
    head_dim: int
    value_dim: int
    dtype: str
    target: str
    refusals: Callable[[], AbstractContextManager[None]] = field(default=nullcontext, repr=False, compare=False)
    tiles: Tiles = ()

    @property
    def pattern(self) -> ResolvedPattern:
        return self.lowered.pattern

    @property
    def widest(self) -> int:
        """What tiles are chosen by, as of `plan.launch.LaunchPlan`."""
        return max(self.head_dim, self.value_dim)

    @cached_property
    def forward(self) -> KernelPlan:
        """The plan of the forward pass. Raises TooManyBands, TooManyClasses."""
        query_tile, key_tile, *_ = tile_sizes(*self._sizes)
        with self.refusals():
            plan = self.lowered.plan_forward(
                head_dim=self.head_dim,
                value_dim=self.value_dim,
                dtype=self.dtype,
                query_tile=query_tile,
                key_tile=key_tile,
                gathers_columns=gathers_columns(self.target),
            )
        return replace(plan, tiles=self.tiles)

    @cached_property
    def backward(self) -> BackwardPlan:
        """The plan of the gradients; raises as `forward` does."""
        query_tile, key_tile = backward_tile_sizes(*self._sizes)
        of = self.pattern
        busy = of.score.per_pair or of.documents is not Documents.NONE or bool(of.inputs)
        with self.refusals():
            busy = busy or any(len(each.bands) > FEW_BANDS for each in self.lowered.mask.classes)
            plan = self.lowered.plan_backward(
                head_dim=self.head_dim,
                value_dim=self.value_dim,
                dtype=self.dtype,
                query_tile=query_tile,
                key_tile=key_tile,
                transposed_tiles=transposed_tile_sizes(*self._sizes, busy=busy),
                gathers_columns=gathers_columns(self.target),
            )
        return replace(plan, forward=replace(plan.forward, tiles=self.tiles))

    @cached_property
    def chunks(self) -> CachedPlan:
        """The plan over a cache for chunks of queries. Raises NoCache, TooManyBands, TooManyClasses."""
        return self._cached(cached_tile_sizes(*self._sizes))

    @cached_property
    def rows(self) -> CachedPlan:
        """The plan over a cache for few queries; raises as `chunks` does."""
        return self._cached(decode_tile_sizes(*self._sizes))

    @property
    def cached(self) -> tuple[CachedPlan, CachedPlan]:
        """Both; their tables of draws are the same."""
        return self.chunks, self.rows

    @property
    def paged(self) -> tuple[CachedPlan, CachedPlan]:
        """Both, over a server's pages."""
        return with_dead_keys(self.chunks), with_dead_keys(self.rows)

    @property
    def kept(self) -> tuple[CachedPlan, CachedPlan]:
        """Both, over a cache that has marked keys in lists."""
        plan = self.lowered.plan_kept
        return self._cached(cached_tile_sizes(*self._sizes), plan), self._cached(decode_tile_sizes(*self._sizes), plan)

    @property
    def _sizes(self) -> tuple[str, int, str, Tiles]:
        """What tiles are chosen by."""
        return self.target, self.widest, self.dtype, self.tiles

    def _cached(self, tiles: tuple[int, int], plan: Callable[..., CachedPlan] | None = None) -> CachedPlan:
        made = (plan or self.lowered.plan_cached)(
            head_dim=self.head_dim,
            value_dim=self.value_dim,
            dtype=self.dtype,
            query_tile=tiles[0],
            key_tile=tiles[1],
            gathers_columns=gathers_columns(self.target),
        )
        return replace(made, attend=replace(made.attend, tiles=self.tiles))

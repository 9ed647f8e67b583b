"""Attention over a cache on the `torch` target: keys are gathered from their slots, then taken block by block.

Invariant: memory stays within a chunk of columns for one tile of rows, beside the call's own tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor

from sparsec.backends.base import Cached, KeyMass, Lookup
from sparsec.backends.torch.kernel import Scores, State, kept, wide_type
from sparsec.backends.torch.tiles import Block, HeadGroup, Sequence, asked_apart, head_groups, query_blocks
from sparsec.ir.expr.evaluate import evaluate
from sparsec.ir.expr.nodes import Expr
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.launch import CachedLaunch
from sparsec.runtime.kv.lists import append, check_append
from sparsec.runtime.kv.stored import from_stored, to_stored


@dataclass(frozen=True, slots=True)
class TorchCached:
    """See `backends.base.CachedKernel`. The lengths are read on the host, to walk the tile programs.

    `kv_dtype`: what a cache stores that is not what calls give.
    """

    planned: CachedPlan
    source: str = ""
    kv_dtype: str | None = None
    advances: ClassVar[bool] = False
    weighs: ClassVar[bool] = True

    @property
    def plan(self) -> CachedLaunch:
        return CachedLaunch.of(self.planned, self.planned)

    def build(self) -> None:
        """There is nothing to build."""

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cache: Cached,
        *,
        scale: float | None,
        lists: tuple[Tensor, ...] = (),
        sink: Tensor | None = None,
        store: bool = False,
        checked: bool = False,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        out = q.new_zeros((*q.shape[:3], v.shape[3]))
        k, v = self._encoded(k), self._encoded(v)
        lse = q.new_full(q.shape[:3], -math.inf, dtype=wide_type(q))
        assert store or cache.kept is None, "marked keys are seen in the lists"
        self._append(k, v, cache)
        for b, (length, count) in enumerate(zip(*cache.numbers(k.shape[2]), strict=True)):
            if count == 0:
                continue
            of = _Sources(q, k, v, cache, b, length, count)
            self._attend_one(of, out[b], lse[b], scale, sink, inputs, key_bias)
            if cache.mass is not None:
                self._weigh_one(of, lse[b], cache.mass, scale, inputs, key_bias)
        if store:
            self._store(k, v, cache)
        return out, lse

    def _attend_one(
        self,
        of: _Sources,
        out: Tensor,
        lse: Tensor,
        scale: float | None,
        sink: Tensor | None,
        inputs: tuple[Lookup, ...],
        key_bias: Tensor | None,
    ) -> None:
        score = Scores.of(self.planned.attend, of.q, scale, key_bias)
        for slot, heads, rows, blocks in self._tiles(of, inputs):
            at = (slice(of.b, of.b + 1), heads.heads, rows)
            queries = of.q[at].to(score.wide)
            state = State.start(queries, out.shape[-1], None if sink is None else sink[heads.heads])
            for block in blocks:
                keys, values = of.columns(slot, heads, block, score.wide)
                bias = score.bias_of(at, block)
                keys, values = kept(keys, bias), kept(values, bias)
                scores, _ = score.of_block(queries, keys, block, heads, bias)
                state = state.step(scores, values, block.live)
            out[heads.heads, rows] = state.output()[0].to(out.dtype)
            lse[heads.heads, rows] = state.log_sum_exp()[0]

    def _weigh_one(
        self,
        of: _Sources,
        lse: Tensor,
        mass: KeyMass,
        scale: float | None,
        inputs: tuple[Lookup, ...],
        key_bias: Tensor | None,
    ) -> None:
        """Adds what the queries of one sequence give its keys."""
        score = Scores.of(self.planned.attend, of.q, scale, key_bias)
        log_sum = lse.to(score.wide).masked_fill(lse == -math.inf, math.inf)  # weights of an empty row are 0
        for slot, heads, rows, blocks in self._tiles(of, inputs):
            if mass.groups is not None and not any(mass.groups[group] for group in heads.groups):
                continue
            at = (slice(of.b, of.b + 1), heads.heads, rows)
            queries, sums = of.q[at].to(score.wide), log_sum[at[1:]][None, ..., None]
            for block in blocks:
                bias = score.bias_of(at, block)
                keys = kept(of.columns(slot, heads, block, score.wide)[0], bias)
                scores, _ = score.of_block(queries, keys, block, heads, bias)
                weights = torch.exp(scores - sums)[0]
                if block.live is not None:  # a pair that is not live may have met a NaN
                    weights = weights.where(block.live, 0)
                if not block.own:
                    weights = weights.sum(dim=-2)
                position = (block.j if block.own else block.j[0]).clamp(0, of.length + of.count - 1)
                for head, group, weight in zip(heads.heads, heads.groups, weights, strict=True):
                    if mass.groups is None or mass.groups[group]:
                        mass.sums[of.b, head].index_put_((position,), weight.to(torch.float32), accumulate=True)

    def _tiles(self, of: _Sources, inputs: tuple[Lookup, ...]) -> Iterator[tuple[Expr, HeadGroup, slice, list[Block]]]:
        """Of each class the slots of its keys, and the tiles of its heads' rows."""
        plan, stop = self.planned.attend, of.length + of.count
        first = stop - of.q.shape[2]
        whole = Sequence((of.length, stop), (0, stop), first, 0, stop, first, False, of.q.device)
        for n, head_class in enumerate(plan.classes):
            apart = (
                asked_apart(each, whole, plan.heads, range(of.b, of.b + 1), inputs, of.cache.kept)
                for each in head_groups(plan, (head_class,))
            )
            for heads, sequence in chain.from_iterable(apart):
                for rows, blocks in query_blocks(heads, sequence):
                    yield self.planned.slots[n].slot, heads, rows, blocks

    def _encoded(self, new: Tensor) -> Tensor:
        """The call's keys or values as the cache stores them."""
        return new if self.kv_dtype is None else to_stored(new, getattr(torch, self.kv_dtype))

    def store(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        k, v = self._encoded(k), self._encoded(v)
        self._append(k, v, cache)
        self._store(k, v, cache)

    def _append(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        if cache.kept is not None:
            counts = cache.counted(k.shape[2])
            check_append(cache.kept, k.shape[2], counts)
            append(cache.kept, k, v, cache.lengths, counts)

    def _store(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        for b, (length, count) in enumerate(zip(*cache.numbers(k.shape[2]), strict=True)):
            keys = torch.arange(length, length + count, device=k.device)
            for group_class in self.planned.store:
                for n, group in enumerate(group_class.groups):
                    names = {name: values[n] for name, values in group_class.constants}
                    slots = _slots(group_class.slots.kept, names, cache.places, group, keys, length + count)
                    kept = slots >= 0
                    for arena, new in ((cache.keys, k), (cache.values, v)):
                        rows = new[b, group, new.shape[2] - count :]
                        arena[b, slots[kept]] = rows[kept]


@dataclass(frozen=True, slots=True)
class _Sources:
    """Where the keys of sequence `b` of a call are: in the cache below `length`, and after it in k and v."""

    q: Tensor
    k: Tensor
    v: Tensor
    cache: Cached
    b: int
    length: int
    count: int

    def columns(self, slot: Expr, heads: HeadGroup, block: Block, wide: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values [1, heads, columns, D] of the block; zeros where no row of the tile sees the column.

        Of a block with `own` columns: [1, heads, rows, columns, D].
        """
        if block.kept:
            assert self.cache.kept is not None, "entries are those of lists"
            return self._seen(
                block,
                [from_stored(self.cache.kept.keys[block.columns], wide)],
                [from_stored(self.cache.kept.values[block.columns], wide)],
            )
        first_new = self.length + self.count - self.k.shape[2]
        old = block.columns < self.length
        found: list[list[Tensor]] = [[], []]
        for group in heads.groups:
            slots = _slots(slot, heads.constants, self.cache.places, group, block.columns, 0).clamp(min=0)
            for parts, arena, new in zip(found, (self.cache.keys, self.cache.values), (self.k, self.v), strict=True):
                fresh = new[self.b, group, (block.columns - first_new).clamp(0, new.shape[2] - 1)]
                stored = arena[self.b, slots.where(old, 0)] if arena.shape[1] else fresh
                parts.append(from_stored(stored.where(old[..., None], fresh), wide))
        return self._seen(block, *found)

    @staticmethod
    def _seen(block: Block, of_keys: list[Tensor], of_values: list[Tensor]) -> tuple[Tensor, Tensor]:
        keys, values = (torch.stack(parts)[None] for parts in (of_keys, of_values))
        if block.live is None:
            return keys, values
        seen = (block.live if block.own else block.live.any(dim=0))[..., None]
        return keys.where(seen, 0), values.where(seen, 0)


def _slots(slot: Expr, constants: Mapping[str, int], places: Tensor, group: int, keys: Tensor, stop: int) -> Tensor:
    names: dict[str, int | Tensor] = {**constants, "j": keys, "stop": stop}
    for n, (base, slots) in enumerate(places[group].tolist()):
        names |= {f"base{n}": base, f"capacity{n}": slots}
    found = evaluate(slot, names, {})
    return found if isinstance(found, Tensor) else torch.full_like(keys, found)

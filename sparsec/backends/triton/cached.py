"""A pattern's cached plans -> launched Triton kernels over a KV cache: chunks of queries, decoding, storing.

Invariant: launches follow from shapes and the device alone, never from lengths, and a new length, count of tokens in
the cache or batch size compiles nothing; two runs on the same inputs give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import ClassVar

import torch
from torch import Tensor

from sparsec.backends.base import Cached, KeyMass, Lookup
from sparsec.backends.triton.asking import find_visits
from sparsec.backends.triton.cached_entries import CachedText, ClassKernels, Entries, Parts, most_tiles
from sparsec.backends.triton.cached_mass import MassKernels
from sparsec.backends.triton.call import aligned_tensor, as_dtype, bias_arguments, strides, with_rows
from sparsec.backends.triton.emit_cached import emit_triton_cached
from sparsec.backends.triton.kernel import (
    LOG2_E,
    check_runs_triton,
    constants,
    new_like,
    target_of,
    with_lists,
    with_positive_scale,
)
from sparsec.backends.triton.launches import Recorded, derived, launch, processors_of
from sparsec.backends.triton.lookups import input_arguments
from sparsec.backends.triton.modules import load_module
from sparsec.backends.triton.replays import Lasting, Replays, given_to
from sparsec.ir.bands.band import Asks, InputTest
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.launch import CachedLaunch, LaunchClass
from sparsec.plan.target import DECODE_ROWS, STORE_ROWS
from sparsec.runtime.devices import PerDevice, captured
from sparsec.runtime.kv.lists import KeptLists, check_append


@dataclass(frozen=True, slots=True)
class TritonCached(CachedText):
    """See `backends.base.CachedKernel`; the kernels of few queries take up to DECODE_ROWS."""

    entries: PerDevice[Entries] = field(init=False, repr=False, compare=False)
    masses: PerDevice[MassKernels] = field(init=False, repr=False, compare=False)
    replays: Replays = field(default_factory=Replays, init=False, repr=False, compare=False)
    advances: ClassVar[bool] = False
    weighs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", PerDevice(self._entries_on))
        object.__setattr__(self, "masses", PerDevice(self._masses_on))

    @classmethod
    def of(cls, chunk_plan: CachedPlan, decode_plan: CachedPlan, *, allow_tf32: bool = False) -> TritonCached:
        """Two plans of one pattern, of tiles of `plan.target.cached_tile_sizes` and `decode_tile_sizes`."""
        emit = cache(lambda: emit_triton_cached(chunk_plan, decode_plan))
        return cls(CachedLaunch.of(chunk_plan, decode_plan), emit, allow_tf32)

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
        few = q.shape[2] <= DECODE_ROWS
        counts = self._counts(q, cache, few)
        kept, held = cache.kept, _held(self.replays, cache)
        if kept is not None and q.numel():
            _check_room(kept, k, cache)
        of = self.plan.few if few else self.plan.chunks
        beside = () if kept is None else (kept.keys, kept.values, kept.entries, kept.lists, *kept.new)
        reach = tuple([-(-cache.reach // each.key_tile) for each in of.classes]) if inputs else ()
        given, key = given_to((q, k, v, *lists), (counts, sink, key_bias, *beside), inputs, held.layouts, scale, reach)
        replayed = held.layouts is not None and store and cache.mass is None
        if replayed and (found := self.replays.run(key, given, held)) is not None:
            return as_dtype(found[0], q.dtype), found[1]
        recorded = self.replays.recorder(key, q.device) if replayed else None
        plan, entries = self.plan.chunks, self.entries.on(q.device)
        # What tiles of a chunk give and what lists give meet in it, so it is rounded once, at the end.
        wide = not few and any(of.gather is not None for kernels in entries.chunk for of in kernels)
        out = new_like(q, zero=False, wide=wide, columns=v.shape[3])
        lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        if q.numel() == 0:
            return out.to(q.dtype), lse
        assert store or cache.kept is None, "marked keys are seen in the lists"
        q, positive = with_positive_scale(q, plan.scale(scale))
        shared = _shared(with_rows(q), with_rows(k), with_rows(v), counts, cache)
        shared |= {"scale_log2": positive * LOG2_E, "out": out, "lse": lse}
        shared |= bias_arguments(key_bias)
        shared["sink"] = None if sink is None else aligned_tensor(sink)
        call = _Call(entries, shared, q, cache, lists, inputs, tells_apart(inputs, key_bias, plan.kv_heads), recorded)
        _append(entries, shared, k, cache, recorded)
        made, lasting = self._decode(call) if few else self._chunk(call)
        if cache.mass is not None:
            self._weigh(call, cache.mass)
        if store:
            _store(entries, shared, k, recorded)
        if recorded is not None:
            self.replays.keep(key, recorded, given, [(out, None), (lse, None)], made, held, lasting)
        return out.to(q.dtype), lse

    def _counts(self, q: Tensor, cache: Cached, few: bool) -> Tensor:
        """int32 [B]: the tokens of each sequence. Those of a step of decoding without padding are made once."""
        batch, _, new, _ = q.shape
        if cache.counts is not None or not few:
            return cache.counted(new)
        return self.entries.on(q.device).numbers((batch, new), lambda: [new] * batch)

    def _chunk(self, call: _Call) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        plan, given, q = self.plan.chunks, call.given, call.q
        batch, _, rows, _ = q.shape
        given |= input_arguments(plan, call.inputs, call.recorded)
        kernels = call.entries.chunk[call.apart]
        if any(of.kept is not None for of in kernels):
            make = partial(new_like, zero=False, wide=True, columns=plan.value_dim)
            (given["tiles_out"],) = derived(call.recorded, make, q)
            (given["tiles_lse"],) = derived(call.recorded, torch.empty_like, call.lse)
        for of, launched, tables in zip(kernels, plan.classes, with_lists(plan.classes, call.lists), strict=True):
            tiles = most_tiles(rows, launched.query_tile)
            own = {**given, "tiles": tiles, "stretch": of.stretch, **draw_arguments(tables)}
            before = own if of.kept is None else {**own, "out": own["tiles_out"], "lse": own["tiles_lse"]}
            call.attend_tiles(of, launched, batch * tiles * of.slots, 1, before)
            if of.gather is not None:
                launch(of.gather, batch * rows * of.packs, before, call.recorded)
            if of.kept is not None:
                launch(of.kept, batch * of.kept_packs * -(-rows // of.stretch), own, call.recorded)
        return (), ()

    def _decode(self, call: _Call) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Returns what it has made, and what is the same in every call of these shapes."""
        plan, given, q, cache = self.plan.few, call.given, call.q, call.cache
        batch, heads, rows, _ = q.shape
        entries = call.entries
        made: tuple[Tensor, ...] = ()
        kept: tuple[Tensor, ...] = ()
        kernels = entries.decode[call.apart][rows - 1]
        room = 0 if cache.kept is None else len(cache.kept.keys)
        listed = _listed(plan.inputs, call.inputs)
        parts = entries.parts(batch, rows, cache.keys.shape[1], call.apart, listed, room)
        most = max(each.merged for each in parts)
        sums = part_logs = given["lse"]
        if most:
            part_logs = torch.empty((most, batch, heads, rows), dtype=torch.float32, device=q.device)
            sums = part_logs.new_empty((*part_logs.shape, plan.value_dim))
            made = part_logs, sums
        given |= {"parts": sums, "part_logs": part_logs, **input_arguments(plan, call.inputs, call.recorded)}
        of_classes = zip(kernels, plan.classes, parts, with_lists(plan.classes, call.lists), strict=True)
        for of, launched, part, tables in of_classes:
            tiles = most_tiles(rows, launched.query_tile)
            own = {**given, "tiles": tiles, "splits": part.tiles, "stretch": rows, **draw_arguments(tables)}
            call.attend_tiles(of, launched, batch * tiles * of.slots, part.tiles, own)
            if of.gather is not None:
                own |= {"splits": part.listed, "before": part.tiles}
                launch(of.gather, batch * rows * of.packs * part.listed, own, call.recorded)
            if of.kept is not None:
                own |= {"splits": part.kept, "before": part.tiles + part.listed}
                launch(of.kept, batch * of.kept_packs * part.kept, own, call.recorded)
        if most:
            by_head = entries.numbers(parts, lambda: _by_head(plan.classes, parts))
            kept = (by_head,)
            launch(entries.merge, batch * heads * rows, {**given, "head_splits": by_head}, call.recorded)
        return made, kept

    def _weigh(self, call: _Call, mass: KeyMass) -> None:
        plan, q, cache = self.plan.chunks, call.q, call.cache
        asked = [True] * plan.kv_heads if mass.groups is None else mass.groups.tolist()
        groups = call.entries.numbers(("mass", *asked), lambda: list(map(int, asked)))
        tables = with_lists(plan.classes, call.lists)
        of_classes = [
            (draw_arguments(own), most_tiles(q.shape[2], launched.query_tile))
            for own, launched in zip(tables, plan.classes, strict=True)
        ]
        given = {**call.given, **input_arguments(plan, call.inputs)}
        room = 0 if cache.kept is None else len(cache.kept.keys)
        self.masses.on(q.device).add(mass, groups, given, of_classes, q, cache.reach, room)

    def store(self, k: Tensor, v: Tensor, cache: Cached) -> None:
        check_runs_triton(k.device)
        if k.numel() == 0:
            return
        k, v = with_rows(k), with_rows(v)
        entries, given = self.entries.on(k.device), _shared(k, k, v, cache.counted(k.shape[2]), cache)
        if cache.kept is not None:
            _check_room(cache.kept, k, cache)
        _append(entries, given, k, cache, None)
        _store(entries, given, k, None)

    def _entries_on(self, device: torch.device) -> Entries:
        check_runs_triton(device)
        fixed = constants(self.plan.chunks, self.allow_tf32, device)
        return Entries.of(self.plan, load_module(self.source), device, target_of(device), fixed)

    def _masses_on(self, device: torch.device) -> MassKernels:
        fixed = constants(self.plan.chunks, self.allow_tf32, device)
        return MassKernels.of(
            self.plan, load_module(self.source), device, target_of(device), processors_of(device), fixed
        )


@dataclass(frozen=True, slots=True)
class _Call:
    """What the launches of one call share; `given`: arguments by name. `recorded` gets what it does."""

    entries: Entries
    given: dict[str, object]
    q: Tensor
    cache: Cached
    lists: Sequence[Tensor]
    inputs: tuple[Lookup, ...]
    apart: bool
    recorded: Recorded | None

    @property
    def lse(self) -> Tensor:
        found = self.given["lse"]
        assert isinstance(found, Tensor), "each call has one"
        return found

    def attend_tiles(
        self, of: ClassKernels, launched: LaunchClass, programs: int, splits: int, given: dict[str, object]
    ) -> None:
        """The tiles of one class, by `programs` programs for each of so many splits of their keys."""
        if of.visits is not None:
            find_visits(of.visits, programs, -(-self.cache.reach // launched.key_tile), given, self.recorded)
        if of.tiles is not None:
            launch(of.tiles, programs * splits, given, self.recorded)


def _held(replays: Replays, cache: Cached) -> Lasting:
    """What calls over the cache have in common."""
    if not isinstance(cache.made, Lasting):
        cache.made = replays.held((cache.keys, cache.values, cache.lengths, cache.places))
    return cache.made


def _by_head(classes: Sequence[LaunchClass], parts: Sequence[Parts]) -> list[int]:
    """In how many parts each head takes its keys."""
    merged = {head: part.merged for launched, part in zip(classes, parts, strict=True) for head in launched.heads}
    return [merged[head] for head in sorted(merged)]


def tells_apart(inputs: tuple[Lookup, ...], key_bias: Tensor | None, kv_heads: int) -> bool:
    """Whether the query heads of a KV group may list other keys, or lists have keys that a bias hides from some."""
    tensors = [data for each in inputs for data in (each.data, each.keys)] + [key_bias] * bool(inputs)
    return any(data is not None and data.shape[1] > kv_heads for data in tensors)


def _listed(tests: tuple[InputTest, ...], inputs: tuple[Lookup, ...]) -> tuple[int, ...]:
    """Of each test of a plan how many keys a row lists."""
    columns = {each.test: each.data.shape[-1] * each.test.width for each in inputs if each.test.asks is Asks.ROW}
    return tuple(columns.get(test, 0) for test in tests)


def _store(entries: Entries, given: Mapping[str, object], k: Tensor, recorded: Recorded | None) -> None:
    batch, groups, rows, _ = k.shape
    tiles = -(-rows // STORE_ROWS)
    launch(entries.store, batch * groups * tiles, {**given, "tiles": tiles}, recorded)


def _check_room(kept: KeptLists, k: Tensor, cache: Cached) -> None:
    """Raises CallError where a list has too little room for the marked keys of a call, unless the call is captured: a
    replay leaves out what has no room."""
    if not kept.sure and not captured(k.device):
        check_append(kept, k.shape[2], cache.counted(k.shape[2]))


def _append(entries: Entries, given: Mapping[str, object], k: Tensor, cache: Cached, recorded: Recorded | None) -> None:
    """Adds the marked keys of a call to the lists."""
    kept = cache.kept
    if kept is None:
        return
    assert entries.append is not None, "kernels over lists add to them"
    said = {f"said_{n}": derived(recorded, _bytes, mark)[0] for n, mark in enumerate(kept.new)}
    sizes = {f"said_{n}_{name}": size for n, mark in enumerate(kept.new) for name, size in _sizes(mark)}
    launch(entries.append, k.shape[0] * k.shape[1], {**given, **said, **sizes}, recorded)


def _bytes(mark: Tensor) -> Tensor:
    return mark.contiguous().view(torch.uint8)


def _sizes(mark: Tensor) -> tuple[tuple[str, int], ...]:
    return ("batches", mark.shape[0]), ("heads", mark.shape[1])


def _shared(q: Tensor, k: Tensor, v: Tensor, counts: Tensor, cache: Cached) -> dict[str, object]:
    """Arguments of every kernel."""
    strided, kept = {"q": q, "k": k, "v": v}, cache.kept
    beside = () if kept is None else (kept.keys, kept.values)
    lists = {} if kept is None else {f"kept_{name}": each for name, each in kept.tensors.items() if name != "record"}
    return {
        **strided,
        **lists,
        **strides(strided, cache.keys, cache.values, *beside),
        "entries": 0 if kept is None else len(kept.keys),
        "keys": cache.keys,
        "values": cache.values,
        "lengths": cache.lengths,
        "counts": counts,
        "places": cache.places,
        "nq": q.shape[2],
        "slots": cache.keys.shape[1],
        "batches": q.shape[0],
    }


def draw_arguments(tables: Sequence[Tensor]) -> dict[str, object]:
    """The tables of draws of a class, and their numbers of query blocks."""
    named: dict[str, object] = {f"draws_{n}": table for n, table in enumerate(tables)}
    return named | {f"blocks_{n}": table.shape[1] for n, table in enumerate(tables)}

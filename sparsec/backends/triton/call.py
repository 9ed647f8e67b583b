"""Tensors of one call -> launches of generated kernels, each given the arguments that it names, on the tensors' device.

Invariant: a new length, batch size or offset changes no argument that Triton compiles for. (An address that is no
multiple of 16 does; it compiles a kernel once more.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from sparsec.backends.base import Lookup
from sparsec.backends.triton.asking import Asking, KeyGather
from sparsec.backends.triton.launches import VECTOR_BYTES, KernelEntry, Recorded, derived, launch
from sparsec.backends.triton.lookups import columns_of_groups, input_arguments, listing_of, within_documents
from sparsec.backends.triton.modifiers import BIAS_SIZES
from sparsec.backends.triton.packed import document_tiles
from sparsec.backends.triton.splits import UNSHARED, Splits
from sparsec.plan.launch import LaunchClass, LaunchPlan
from sparsec.plan.target import SUM_ROWS, LaunchShape
from sparsec.runtime.devices import device_tensor
from sparsec.sema.model import Documents

Before = Callable[[dict[str, object], int], None]
"""What a launch waits for, given its arguments and its number of programs; it may add to the arguments."""
_ROW_REACH = 1 << 31
"""Offsets within one tile are 32 bits wide."""


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """The kernels of a head class. `slots`: programs a tile; `chunks`: of each source the chunks' numbers and widths.

    `entry`: None for a class without tiles. `columns`: of key tiles, by the lists of columns (tests of the plan) whose
    keys they take. `of_groups`: a program has a tile of a KV group, else of a head. `splits`: as of `Splits.of`.
    """

    entry: KernelEntry | None
    asking: Asking
    slots: int
    query_tile: int
    key_tile: int
    chunks: Mapping[str, tuple[tuple[int, int], ...]]
    of_groups: bool
    columns: tuple[tuple[int, ClassEntry], ...] = ()
    splits: Splits | None = None

    @property
    def gathers(self) -> bool:
        """Whether kernels of lists add to what those of tiles leave."""
        return self.asking.gathers or bool(self.columns)

    @classmethod
    def of(
        cls,
        module: Any,
        name: str,
        device: torch.device,
        target: str,
        shape: LaunchShape,
        plan: LaunchPlan,
        launched: LaunchClass,
        fixed: Mapping[str, object],
        *,
        of_groups: bool = False,
    ) -> ClassEntry:
        given = {**fixed, "table": device_tensor(launched.table, device)}
        slots = len(launched.table)
        asking = Asking.of(module, name, device, target, plan, launched, given)
        if of_groups:
            spans = plan.spans(launched)
            given["spans"], slots = device_tensor(spans, device), len(spans)
        splits = Splits.of(module, name, device, given, plan, launched)
        if splits is not None:
            given |= UNSHARED
        function = getattr(module, name, None)
        entry = None if function is None else KernelEntry(function, device, shape, given)
        chunks = {name: tuple((each.index, each.width) for each in found) for name, found in plan.chunks.items()}
        return cls(entry, asking, slots, launched.query_tile, launched.key_tile, chunks, of_groups, splits=splits)


@dataclass(frozen=True, slots=True)
class LaunchCall:
    """What the launches of one call share; `numbers` are arguments by name."""

    documents: Documents
    batch: int
    n_queries: int
    n_keys: int
    kv_heads: int
    q_offset: int
    cu_seqlens: Tensor | None
    numbers: Mapping[str, object]
    _document_tiles: dict[int, Tensor] = field(default_factory=dict)
    """By the size of a tile."""
    _listings: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    """By the test of a list of rows, or of columns of KV groups."""
    recorded: Recorded | None = None

    @classmethod
    def of(
        cls,
        plan: LaunchPlan,
        strided: Mapping[str, Tensor],
        q_offset: int,
        cu_seqlens: Tensor | None,
        scale_log2: float,
        inputs: tuple[Lookup, ...] = (),
        key_bias: Tensor | None = None,
        recorded: Recorded | None = None,
    ) -> LaunchCall:
        """`strided`: tensors [B, heads, rows, columns] by the names that their strides have, among them q and k."""
        q, k = strided["q"], strided["k"]
        batch, _, n_queries, _ = q.shape
        n_keys = k.shape[2]
        numbers: dict[str, object] = {
            "nq": n_queries,
            "nk": n_keys,
            "q0": q_offset,
            "batches": batch,
            "scale_log2": scale_log2,
        }
        numbers |= strides(strided) | input_arguments(plan, inputs, recorded) | bias_arguments(key_bias)
        sizes = batch, n_queries, n_keys, plan.kv_heads, q_offset
        return cls(plan.documents, *sizes, cu_seqlens, numbers, recorded=recorded)

    def tiles(self, size: int) -> tuple[int, int]:
        """The number of the first query tile of `size` rows, and how many a sequence has."""
        first = self.q_offset // size
        return first, (self.q_offset + self.n_queries - 1) // size + 1 - first

    def query_tiles(
        self,
        of: ClassEntry,
        lists: Sequence[Tensor],
        tensors: Mapping[str, Tensor | None],
        sources: Mapping[str, Tensor],
        before: Before | None = None,
    ) -> None:
        """One program a query tile and head; `sources` are read by key tiles. `before`: of the kernel of tiles."""
        first, tiles = self.tiles(of.query_tile)
        given = {**self.numbers, **tensors, "first_tile": first, "tiles": tiles}
        places = self.places(of.query_tile, tiles, given)
        self._run(of, places, lists, given, sources, of.key_tile, self.n_keys, before)
        if of.asking.gather is not None:
            of.asking.take_rows(self.places(1, self.n_queries, given), self.kv_heads, given, self.recorded)

    def key_tiles(
        self,
        of: ClassEntry,
        lists: Sequence[Tensor],
        tensors: Mapping[str, Tensor | None],
        sources: Mapping[str, Tensor],
    ) -> None:
        """One program a key tile and KV group, or head; `sources` are read by query tiles."""
        size = of.key_tile
        given = {**self.numbers, **tensors}
        places = self.places(size, -(-self.n_keys // size), given)
        self._run(of, places, lists, given, sources, of.query_tile, self.n_queries + of.query_tile)
        for gather in of.asking.of_keys:
            self._list_keys(gather, given)
        for test, each in of.columns:
            self._columns(test, each, lists, given, sources)

    def _columns(
        self,
        test: int,
        of: ClassEntry,
        lists: Sequence[Tensor],
        given: Mapping[str, object],
        sources: Mapping[str, Tensor],
    ) -> None:
        """One program some keys of a list, and KV group or head."""
        counts, listed = given[f"marks_{test}"], given[f"columns_{test}"]
        assert isinstance(counts, Tensor) and isinstance(listed, Tensor), "a list of columns"
        if of.of_groups:
            if test not in self._listings:
                make = partial(columns_of_groups, groups=self.kv_heads)
                self._listings[test] = derived(self.recorded, make, counts, listed)
            counts, listed = self._listings[test]
        own = {**given, "counts": counts, "listed": listed, "list_columns": counts.shape[2]}
        own |= {"list_batches": counts.shape[0], "list_heads": counts.shape[1], "list_width": listed.shape[2]}
        own["sequences"] = sequences = self.places(self.n_queries, 1, own)
        parts = -(-listed.shape[2] // of.key_tile)
        self._run(of, sequences * parts, lists, own, sources, of.query_tile, self.n_queries + of.query_tile)

    def _list_keys(self, of: KeyGather, given: dict[str, object]) -> None:
        """One program some keys of an entry and KV group."""
        entries, count = given[f"entries_{of.test}"], -(-self.n_keys // of.width)
        assert isinstance(entries, Tensor), "a list of rows"
        places = self.places(of.width, count, given)
        if of.test not in self._listings:
            if "document_tiles" in given:
                assert self.cu_seqlens is not None, "there are documents"
                restart, count = self.documents is Documents.RESTART, places
                make = partial(within_documents, width=of.width, restart=restart)
                (entries,) = derived(self.recorded, make, entries, self.cu_seqlens)
            self._listings[of.test] = derived(self.recorded, partial(listing_of, count=count), entries)
        listing, starts = self._listings[of.test]
        own = {"listing": listing, "starts": starts, "places": starts.shape[2] - 1, "slots_a_tile": of.spans}
        launch(of.entry, places * of.parts * of.spans, {**given, **own}, self.recorded)

    def places(self, size: int, tiles: int, given: dict[str, object]) -> int:
        """The tiles of all sequences, so many each, or of all documents, which are then given."""
        if self.cu_seqlens is None or self.documents is Documents.NONE:
            return self.batch * tiles
        if size not in self._document_tiles:
            restart, on = self.documents is Documents.RESTART, (self.cu_seqlens, self.n_queries, size)
            self._document_tiles[size] = document_tiles(*on, restart=restart, recorded=self.recorded)
        given["document_tiles"] = table = self._document_tiles[size]
        return len(table)

    def _run(
        self,
        of: ClassEntry,
        places: int,
        lists: Sequence[Tensor],
        given: dict[str, object],
        sources: Mapping[str, Tensor],
        rows: int,
        columns: int,
        before: Before | None = None,
    ) -> None:
        """`columns`: what the tiles that a program visits lie in, of `rows` each."""
        for n, table in enumerate(lists):
            given[f"draws_{n}"] = table
        of.asking.find_visits(places, -(-columns // rows), given, self.recorded)
        if of.entry is None:
            return
        if before is not None:
            before(given, places * of.slots)
        tma = of.entry.shape.tma and given["VECTOR"] != 1 and all(_fits_descriptor(t) for t in sources.values())
        given["TMA"] = tma
        for name, tensor in sources.items():
            for index, width in of.chunks[name]:
                given[f"{name}_{index}"] = _descriptor(tensor, rows, width) if tma else tensor
        programs, splits = places * of.slots, of.splits
        if splits is None or not splits.are_worth(-(-self.n_queries // of.query_tile)):
            launch(of.entry, programs, given, self.recorded)
            return
        launch(of.entry, splits.share(programs, given, self.recorded), given, self.recorded)
        splits.add_up(programs, given, self.recorded)


def bias_arguments(key_bias: Tensor | None) -> dict[str, object]:
    """The arguments of `modifiers.BIAS_SIZES` and `bias`, of a tensor [b, x, keys] of any strides."""
    if key_bias is None:
        return {}
    bias = aligned_tensor(key_bias)
    batch, heads, keys = bias.shape
    of_batch, of_head, of_key = bias.stride()
    sizes = (of_batch if batch > 1 else 0, heads, of_head, of_key, keys)
    return {"bias": bias, **dict(zip(BIAS_SIZES, sizes, strict=True))}


def row_sums(
    entry: KernelEntry,
    g: Tensor,
    out: Tensor,
    lse: Tensor,
    grad_lse: Tensor | None,
    sink: Tensor | None,
    recorded: Recorded | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of each row the log-sum-exp to base 2 and sum(g * out) - grad_lse, float32 [B, H, Nq]; the parts of dsink
    [B, H, tiles]."""
    batch, heads, rows, _ = g.shape
    log_sum, delta = torch.empty_like(lse), torch.empty_like(lse)
    tiles = -(-rows // SUM_ROWS)
    parts = None if sink is None else lse.new_empty((batch, heads, tiles))
    given = {"g": g, "out": out, "lse": lse, "sink": sink, "sink_parts": parts, "log_sum": log_sum, "delta": delta}
    given["grad_lse"] = None if grad_lse is None else aligned_tensor(grad_lse.to(torch.float32).contiguous())
    numbers = {**strides({"g": g, "out": out}), "nq": rows, "tiles": tiles, "ROWS": SUM_ROWS}
    launch(entry, batch * heads * tiles, {**given, **numbers}, recorded)
    return log_sum, delta, parts


def with_rows(tensor: Tensor) -> Tensor:
    """The tensor itself if its last dimension is dense and its rows lie close enough; else a copy."""
    if tensor.is_contiguous():
        return tensor
    dense = tensor.stride(3) == 1 or tensor.shape[3] == 1
    return tensor if dense and tensor.stride(2) * 256 < _ROW_REACH else tensor.contiguous()


def as_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Of its dtype already, in a fraction of what torch takes to find that."""
    return tensor if tensor.dtype is dtype else tensor.to(dtype)


def aligned_tensor(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where its address would have Triton compile a kernel once more: for small ones."""
    return tensor.clone() if tensor.data_ptr() % VECTOR_BYTES else tensor


def strides(tensors: Mapping[str, Tensor], *beside: Tensor) -> dict[str, object]:
    """The strides, in vectors, and VECTOR: elements in 16 bytes if every row starts on such a boundary, else 1.

    `beside`: tensors whose rows are read in vectors too, and whose strides nobody asks for.
    """
    vector = _vector(*tensors.values(), *beside)
    numbers: dict[str, object] = {"VECTOR": vector}
    for name, tensor in tensors.items():
        batch, head, row, _ = tensor.stride()
        numbers[f"{name}_batch"], numbers[f"{name}_head"] = batch // vector, head // vector
        numbers[f"{name}_row"] = row // vector
    return numbers


def _vector(*tensors: Tensor) -> int:
    vector = VECTOR_BYTES // tensors[0].element_size()
    for tensor in tensors:
        if tensor.data_ptr() % VECTOR_BYTES or any(stride % vector for stride in tensor.stride()[:-1]):
            return 1
    return vector


def _fits_descriptor(tensor: Tensor) -> bool:
    """Whether a TMA descriptor may describe the tensor: no repeated or empty dimension, strides below 2**40 bytes."""
    strides = tensor.stride()[:3]
    return tensor.shape[2] > 0 and all(0 < stride * tensor.element_size() < 1 << 40 for stride in strides)


def _descriptor(tensor: Tensor, rows: int, width: int) -> TensorDescriptor:
    """Of one column the stride may be any number, but a descriptor takes 1 alone."""
    return TensorDescriptor(tensor, list(tensor.shape), [*tensor.stride()[:3], 1], [1, 1, rows, width])

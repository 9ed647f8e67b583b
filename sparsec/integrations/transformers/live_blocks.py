"""A model's layers and their patterns -> a paged cache of transformers that holds of each request what it may need.

A block is a page of each layer of one kind: keys [page_size, G, D], then values [page_size, G, Dv], layer after layer.
transformers' batches know two kinds of layers, so layers whose patterns drop other keys are of two kinds at most.

Invariant: a request's block is given back as soon as its number of tokens says that no later query of any of the
block's layers needs it, and what is dropped then depends on that number alone: a request that was moved out of the
cache comes back into as many blocks, in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.generation.continuous_batching.cache_allocators import CacheAllocator

from sparsec.diagnostics.model import InternalError
from sparsec.integrations.transformers.attention import LayerKernels
from sparsec.integrations.transformers.batch_call import BatchCall, LayerBlocks
from sparsec.integrations.transformers.names import with_names
from sparsec.ir.bands.liveness import EVERYTHING
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.kv.pages import dead_pages, distinct
from sparsec.sema.arms import alike

KINDS = ("full_attention", "sliding_attention")
"""What transformers calls its two kinds of layers: here, those that keep the most keys, and the others."""

LONG = 1 << 16
"""Tokens of a sequence by which kinds of layers are compared."""


class LiveAllocator(CacheAllocator):  # type: ignore[misc]  # mypy reads no types of transformers
    """Gives blocks to the requests, for the layers of one kind.

    rows: of each request, the block of each of its pages in order, -1 where no later query needs one. `block_table`,
    which transformers reads, has the blocks alone; where nothing is ever dropped the two are one.
    """

    supports_block_table = False
    rows_per_token = 2

    def __init__(
        self,
        kernels: Sequence[LayerKernels],
        layouts: Sequence[CacheLayout],
        kind: str,
        *,
        index: int,
        layer_indices: Sequence[int],
        cache_dtype: torch.dtype,
        page_size: int,
        allow_block_sharing: bool,
        **_: Any,
    ) -> None:
        self.layer_type, self.cache_dtype = kind, cache_dtype
        self.shapes = {layer: (of.kv_heads, of.head_dim, of.value_dim) for layer, of in enumerate(kernels)}
        self.layouts = tuple(alike(layouts[layer] for layer in layer_indices))
        self.supports_block_sharing = any(map(_keeps_all, self.layouts))
        numbers = sum(
            page_size * heads * (dim + value_dim)
            for heads, dim, value_dim in (self.shapes[layer] for layer in layer_indices)
        )
        self._before_cache_tensor_init(
            index=index,
            layer_indices=list(layer_indices),
            tokens_per_page=page_size,
            bytes_per_page=numbers * cache_dtype.itemsize,
            allow_block_sharing=allow_block_sharing,
        )
        self.pages_per_block, self.bytes_per_block = 1, self.bytes_per_page  # layers may differ in size
        self.rows: dict[str, list[int]] = self.block_table if self.supports_block_sharing else {}
        self.pages: dict[int, tuple[Tensor, Tensor]] = {}

    def register_cache_tensor(
        self, bytes_per_sector: int, non_trash_bytes: int, cache_tensor: Tensor, pool: Any
    ) -> None:
        self._copy_view = cache_tensor.view(-1, self.bytes_per_block)
        blocks, size, at = self._copy_view.view(self.cache_dtype), self.tokens_per_page, 0
        for layer in self.layer_indices:
            heads, *dims = self.shapes[layer]
            found = []
            for dim in dims:
                found.append(blocks[:, at : at + size * heads * dim].view(-1, size, heads, dim))
                at += size * heads * dim
            self.pages[layer] = (found[0], found[1])
        self._after_cache_tensor_init(non_trash_bytes, bytes_per_sector, blocks, pool)
        self.write_trash_index = -1  # where `append_paged` writes nothing

    def needs_new_blocks(self, request_id: str, past_length: int, query_length: int) -> int:
        return len(self._new_pages(request_id, past_length, query_length))

    def allocate_cache_to_request(self, request_id: str, past_length: int, query_length: int) -> None:
        new = self._new_pages(request_id, past_length, query_length)
        row = self.rows.setdefault(request_id, [])
        row += [-1] * (-(-(past_length + query_length) // self.tokens_per_page) - len(row))
        for page, block in zip(new, self.pool.get_free_blocks(self.index, len(new)), strict=True):
            row[page] = block
        self._tell(request_id, row)

    def _new_pages(self, request_id: str, past: int, new: int) -> list[int]:
        """The pages of a request that have no block and need one; past: the tokens that it has had, by batches or in
        memory outside the cache."""
        stop, row = -(-(past + new) // self.tokens_per_page), self.rows.get(request_id)
        if row is not None:
            return list(range(len(row), stop))
        dead = self._dead_at(past)
        return [page for page in range(stop) if page not in dead]

    def drop_dead(self, request_id: str, past: int, stop: int) -> None:
        """Gives the blocks back that a request with `stop` tokens, `past` of them from before, needs no more."""
        if past // self.tokens_per_page == stop // self.tokens_per_page or self.rows is self.block_table:
            return
        row, dead = self.rows[request_id], self._dead_at(stop)
        freed = [page for page in dead if page < len(row) and row[page] >= 0]
        self.pool.free_blocks(self.index, [row[page] for page in freed])
        for page in freed:
            row[page] = -1
        self._tell(request_id, row)

    def _dead_at(self, tokens: int) -> set[int]:
        """The pages that no query of a request needs once it has `tokens` tokens, found once a page of tokens."""
        size = self.tokens_per_page
        length = tokens // size * size + 1
        dead = ({page for run in dead_pages(layout, length, size) for page in run} for layout in self.layouts)
        return set.intersection(*dead)

    def _tell(self, request_id: str, row: list[int]) -> None:
        if self.rows is not self.block_table:
            self.block_table[request_id] = [block for block in row if block >= 0]

    def free_blocks(self, request_id: str, no_cache: bool = False) -> None:
        super().free_blocks(request_id, no_cache)
        self.rows.pop(request_id, None)

    def fork_blocks(
        self, source_request_id: str, dest_request_id: str, past_length: int
    ) -> tuple[list[int], list[int]]:
        copied: tuple[list[int], list[int]] = super().fork_blocks(source_request_id, dest_request_id, past_length)
        if self.rows is not self.block_table:
            blocks = iter(self.block_table[dest_request_id])
            row = self.rows[source_request_id]
            self.rows[dest_request_id] = [-1 if block < 0 else next(blocks) for block in row]
        return copied

    def get_write_indices(self, request_id: str, past_length: int, query_length: int) -> list[int]:
        """The slot of each new token, as `append_paged` takes them."""
        row, size = self.rows[request_id], self.tokens_per_page
        places = (divmod(position, size) for position in range(past_length, past_length + query_length))
        return [row[page] * size + at if row[page] >= 0 else -1 for page, at in places]

    def get_seqlen_k(self, past_length: int, query_length: int) -> int:
        return past_length + query_length

    def get_read_indices(self, request_id: str, past_length: int, query_length: int) -> list[int]:
        """None: keys are read where they lie."""
        return []

    def _unasked(self, *_: Any) -> Any:
        raise InternalError("transformers copies no keys out of these blocks, for their cache asks for none")

    update = fill_block_table = get_cache_for_block_table = _unasked


class LiveBlocks(PagedAttentionCache):  # type: ignore[misc]  # likewise
    """The cache; layers read and write it through the `BatchCall` of a batch.

    batch: of each request of the batch that is made ready, its new tokens, all its tokens, and of each kind of layers
    its blocks page by page, int32.
    """

    max_batch_tokens: int

    def __init__(self, kernels: Sequence[LayerKernels], **given: Any) -> None:
        layouts = [each.pattern.cache_layout(each.heads, each.kv_heads) for each in kernels]
        kinds = kinds_of(layouts)
        allocators = {kind: partial(LiveAllocator, kernels, layouts, kind) for kind in kinds}
        made = {"ATTN_TYPE_TO_ALLOCATOR": allocators, "group_layers_by_attn_type": lambda _: kinds}
        self.kernels = tuple(kernels)
        self.batch: list[tuple[int, int, tuple[Tensor, ...]]] = []
        with_names(PagedAttentionCache.__init__, **made)(self, **given)
        self.max_tokens_read = 1  # tensors for copies of keys have this many rows
        tokens = self.num_blocks * next(iter(self.cache_allocators.values())).tokens_per_page
        self.max_batch_tokens = max(1, min(self.max_batch_tokens, tokens // 2))  # no more than fit beside what is held

    def _infer_read_cache_limit(self) -> int:
        """No request is put off for the keys that a batch could copy."""
        return 0

    def extend_read_and_write_indices(
        self,
        request_id: str,
        past_length: int,
        query_length: int,
        read_index: list[list[int]] | None,
        write_index: list[list[int]],
    ) -> None:
        if not write_index[0]:  # the first request of a batch
            self.batch = []
        super().extend_read_and_write_indices(request_id, past_length, query_length, read_index, write_index)
        stop, allocators = past_length + query_length, self.cache_allocators.values()
        rows = tuple(torch.tensor(each.rows[request_id], dtype=torch.int32) for each in allocators)
        self.batch.append((query_length, stop, rows))
        for each in allocators:  # blocks that this batch still reads are written by later ones
            each.drop_dead(request_id, past_length, stop)

    @torch.compiler.disable(reason="what a batch holds is known on the host")  # type: ignore[no-untyped-call, untyped-decorator]
    def call(self, arguments: Mapping[str, Any]) -> BatchCall:
        """What the layers attend through in the forward of the batch; arguments: the decoder's."""
        counts, lengths, rows = zip(*self.batch, strict=True)
        layers: dict[int, LayerBlocks] = {}
        for each, of in zip(self.cache_allocators.values(), zip(*rows, strict=True), strict=True):
            table = pad_sequence(list(of), batch_first=True, padding_value=-1).to(self.device)
            slots = arguments["write_index"][each.index]
            for layer in each.layer_indices:
                keys, values = each.pages[layer]
                layers[layer] = LayerBlocks(keys, values, table, slots)
        starts = arguments["cu_seq_lens_q"][: len(counts) + 1]
        tokens = torch.tensor(lengths, dtype=torch.int32, device=self.device)
        return BatchCall(self.kernels, layers, starts, tokens, sum(counts))

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The same: attention writes them, and reads the others where they lie."""
        return key_states, value_states


def kinds_of(layouts: Sequence[CacheLayout]) -> dict[str, list[int]]:
    """The layers of each kind: those that keep the most keys, and, where some keep others, all the others."""
    groups = alike(tuple(map(distinct, layout.groups)) for layout in layouts)
    first = max(groups.values(), key=lambda layers: layouts[layers[0]].slots(LONG))
    rest = [layer for layer in range(len(layouts)) if layer not in first]
    return dict(zip(KINDS, ([*first], rest), strict=True)) if rest else {KINDS[0]: [*first]}


def _keeps_all(layout: CacheLayout) -> bool:
    return any(replace(region, origin="") == EVERYTHING for group in layout.groups for region in group)

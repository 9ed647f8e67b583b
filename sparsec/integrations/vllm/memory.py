"""vLLM's memory of layers with a pattern: the spec of their pages, and what frees them while a request runs.

Invariant: a page is given back only when no query that is still to come can need it, for any KV group of the layers of
its spec, and no token that is still to come lies in it. A worker's block table keeps its number, which kernels do not
look up. vLLM's engine imports this module when it reads a worker's specs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from vllm.v1.core.kv_cache_utils import resolve_block_hashes
from vllm.v1.core.single_type_kv_cache_manager import SingleTypeKVCacheManager
from vllm.v1.kv_cache_interface import AttentionSpec
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry

from sparsec.diagnostics.model import CallError
from sparsec.integrations.vllm.live import Needed, live_pages, longest_hit, most_held, newly_dead

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LivePagesSpec(AttentionSpec):  # type: ignore[misc]  # vLLM is not typed here
    """Layers whose pages die at the same time share a group of block tables. `in_flight`, `longest`: the most tokens
    that are scheduled and not done, and of a request."""

    needed: Needed
    in_flight: int
    longest: int

    @classmethod
    def of(cls, spec: Any, needed: Needed, config: Any) -> LivePagesSpec:
        """In place of the spec that vLLM made for a layer. config: a VllmConfig."""
        shared = {each.name: getattr(spec, each.name) for each in fields(AttentionSpec) if each.init}
        in_flight, longest = config.max_in_flight_tokens, config.model_config.max_model_len
        return cls(**shared, needed=needed, in_flight=in_flight, longest=longest)

    def max_memory_usage_bytes(self, vllm_config: Any) -> int:
        longest = vllm_config.model_config.max_model_len
        pages = most_held(self.needed, self.block_size, vllm_config.max_in_flight_tokens, longest)
        return int(pages * self.page_size_bytes)

    def is_uniform_with_collection(self, kv_cache_specs: dict[str, Any]) -> bool:
        return all(isinstance(spec, LivePagesSpec) and spec.needed == self.needed for spec in kv_cache_specs.values())


class LivePagesManager(SingleTypeKVCacheManager):  # type: ignore[misc]  # vLLM is not typed here
    """Frees pages as soon as a page's worth of tokens after they died, and finds cached prefixes by the live ones."""

    def __init__(self, kv_cache_spec: LivePagesSpec, **options: Any) -> None:
        super().__init__(kv_cache_spec, **options)
        spec = kv_cache_spec
        self._needed = spec.needed
        self.max_admission_blocks_per_request = most_held(spec.needed, self.block_size, spec.in_flight, spec.longest)
        self._whole: dict[str, int] = {}
        self._held: dict[str, tuple[int, int]] = {}

    def remove_skipped_blocks(
        self, request_id: str, processed_computed_tokens: int, num_prompt_tokens: int | None = None
    ) -> None:
        """Of the tokens that are done, frees the pages that have died since the last call for the request."""
        blocks, before = self.req_to_blocks.get(request_id), self._whole.get(request_id, 0)
        whole = processed_computed_tokens // self.block_size
        if not blocks or whole <= before:
            return
        self._whole[request_id] = whole
        pages = [page for each in newly_dead(self._needed, before, whole, self.block_size) for page in each]
        freed = [page for page in pages if page < len(blocks) and not blocks[page].is_null]
        held, gone = self._held.get(request_id) or (0, sum(block.is_null for block in blocks))  # of a cached prefix
        self._held[request_id] = max(held, len(blocks) - gone), gone + len(freed)
        self.block_pool.free_blocks([blocks[page] for page in freed])
        for page in freed:
            blocks[page] = self._null_block

    def pop_blocks_for_free(self, request_id: str) -> list[Any]:
        self._whole.pop(request_id, None)
        held, gone = self._held.pop(request_id, (0, 0))
        blocks: list[Any] = super().pop_blocks_for_free(request_id)
        most = max(held, len(blocks) - gone)
        _log.debug("request %s had %d pages, at most %d at a time, %d freed early", request_id, len(blocks), most, gone)
        return blocks

    @classmethod
    def find_longest_cache_hit(
        cls,
        block_hashes: Any,
        max_length: int,
        kv_cache_group_ids: list[int],
        block_pool: Any,
        kv_cache_spec: LivePagesSpec,
        drop_eagle_block: bool,
        alignment_tokens: int,
        dcp_world_size: int = 1,
        pcp_world_size: int = 1,
    ) -> tuple[tuple[list[Any], ...], int]:
        """The longest prefix whose live pages are all cached; its dead ones are null blocks."""
        if drop_eagle_block or dcp_world_size * pcp_world_size != 1:
            raise CallError("expected neither drafts nor context parallel ranks for a model with a pattern, got them")
        size = kv_cache_spec.block_size
        hashes = resolve_block_hashes(block_hashes, block_pool.hash_block_size, size)
        found: dict[int, Sequence[Any]] = {}

        def cached(page: int) -> bool:
            if page not in found:
                found[page] = block_pool.get_cached_block(hashes[page], kv_cache_group_ids) or ()
            return bool(found[page])

        every = max(1, alignment_tokens // size)
        pages = longest_hit(kv_cache_spec.needed, min(max_length // size, len(hashes)), size, every, cached)
        live = set(live_pages(kv_cache_spec.needed, pages, size))
        null = block_pool.null_block
        hit = tuple(
            [found[page][n] if page in live else null for page in range(pages)] for n in range(len(kv_cache_group_ids))
        )
        return hit, pages * size


KVCacheSpecRegistry.check_kv_cache_spec_registry({})  # which registers vLLM's own first
KVCacheSpecRegistry.register(LivePagesSpec, LivePagesManager)

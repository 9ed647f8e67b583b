"""transformers' manager of requests, for a model with a pattern: its cache is a `LiveBlocks`.

Invariant: all else is transformers' own code, looked up in the version that is installed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from transformers.generation.continuous_batching import ContinuousBatchingManager

from sparsec.integrations.transformers.live_blocks import LiveBlocks
from sparsec.integrations.transformers.names import with_names


class PatternManager(ContinuousBatchingManager):  # type: ignore[misc]  # mypy reads no types of transformers
    def switch_to_cb_friendly_attn(self, model: Any, auto_switch_to_flash: bool = True) -> None:
        """The model keeps its pattern."""

    def _create_batch_processor(self) -> Any:
        cache = partial(LiveBlocks, self.model.init_continuous_batching.patch.kernels)
        return with_names(ContinuousBatchingManager._create_batch_processor, PagedAttentionCache=cache)(self)

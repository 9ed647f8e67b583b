"""sparsec as vLLM's backend CUSTOM, for GPUs: `--attention-backend CUSTOM`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from vllm.v1.attention.backend import AttentionBackend, MultipleOf

from sparsec.integrations.vllm.attention import SparseImpl, StepPagesBuilder
from sparsec.integrations.vllm.fit import PLAIN
from sparsec.integrations.vllm.live import Needed
from sparsec.integrations.vllm.memory import LivePagesSpec


class ServedOnGpu(AttentionBackend):  # type: ignore[misc]  # vLLM is not typed here
    forward_includes_kv_cache_update = False
    supported_dtypes: ClassVar[list[torch.dtype]] = [torch.float16, torch.bfloat16, torch.float32]
    supported_kv_cache_dtypes: ClassVar[list[str]] = list(PLAIN)

    @staticmethod
    def get_name() -> str:
        return "CUSTOM"

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: Any = None) -> list[int | MultipleOf]:
        return [MultipleOf(16)]

    @staticmethod
    def get_impl_cls() -> type[SparseImpl]:
        return SparseImpl

    @staticmethod
    def get_builder_cls() -> type[StepPagesBuilder]:
        return StepPagesBuilder

    @classmethod
    def supports_sink(cls) -> bool:
        return True

    @classmethod
    def supports_kv_connector(cls) -> bool:
        return False

    @classmethod
    def with_pages(cls, needed: Needed, config: Any) -> type[ServedOnGpu]:
        """The backend of layers with pages of which some group may ask for `needed`. config: a VllmConfig."""

        class PatternBackend(ServedOnGpu):
            @classmethod
            def customize_spec(cls, spec: Any) -> LivePagesSpec:
                return LivePagesSpec.of(spec, needed, config)

        return PatternBackend

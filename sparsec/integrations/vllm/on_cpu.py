"""vLLM's backend for CPUs, with sparsec's in its place where the model has a pattern: vLLM takes no other on a CPU."""

from __future__ import annotations

from typing import Any

from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

from sparsec.integrations.vllm.attention import SparseImpl, StepPagesBuilder, wanted_now
from sparsec.integrations.vllm.live import Needed
from sparsec.integrations.vllm.memory import LivePagesSpec


class ServedOnCpu(CPUAttentionBackend):  # type: ignore[misc]  # vLLM is not typed here
    """vLLM's own but for the layers of a model with a pattern, which take another when their weights are loaded."""

    @staticmethod
    def get_impl_cls() -> type[Any]:
        return CPUAttentionBackend.get_impl_cls() if wanted_now() is None else SparseImpl

    @classmethod
    def with_pages(cls, needed: Needed, config: Any) -> type[ServedOnCpu]:
        """The backend of layers with pages of which some group may ask for `needed`. config: a VllmConfig."""

        class PatternBackend(ServedOnCpu):
            @staticmethod
            def get_impl_cls() -> type[SparseImpl]:
                return SparseImpl

            @staticmethod
            def get_builder_cls() -> type[StepPagesBuilder]:
                return StepPagesBuilder

            @classmethod
            def customize_spec(cls, spec: Any) -> LivePagesSpec:
                return LivePagesSpec.of(spec, needed, config)

        return PatternBackend

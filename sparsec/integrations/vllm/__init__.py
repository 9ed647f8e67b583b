"""A plug-in of vLLM: models served with a pattern, whose dead pages go back to the pool while a request runs.

    pip install "sparsec[vllm]"                                    # vLLM finds the plug-in by its entry point
    vllm serve MODEL --additional-config '{"sparsec": "examples/longgen.sparse"}'

The pattern comes from `sparsec` in `additional_config`, else from the environment variable SPARSEC_VLLM, else from the
model's config, where `sparsec.integrations.transformers.apply` put it (see `wanted`). On a CPU nothing more is needed;
on a GPU vLLM is to be told `--attention-backend CUSTOM`. Invariant: where no pattern is asked for, vLLM's own
attention runs, and nothing of vLLM is imported before it loads the plug-in.
"""

from __future__ import annotations

import logging

__all__ = ["plug_in"]


def plug_in() -> None:
    """The entry point: names sparsec's backends to vLLM, which imports them when a layer of attention is made."""
    try:
        from vllm.platforms import current_platform
        from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
    except ImportError as error:  # of another version: its other models are to be served all the same
        logging.getLogger(__name__).warning("sparsec found no backends of attention in this vLLM: %s", error)
        return
    if current_platform.is_cpu():  # which takes no other backend than its own
        register_backend(AttentionBackendEnum.CPU_ATTN, f"{__name__}.on_cpu.ServedOnCpu")
    else:
        register_backend(AttentionBackendEnum.CUSTOM, f"{__name__}.on_gpu.ServedOnGpu")

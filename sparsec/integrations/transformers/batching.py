"""`init_continuous_batching` of a model with a pattern: transformers' manager of requests, over a cache of live blocks.

`generate_batch` and `continuous_batching_context_manager` of transformers call it. What it changes is this model's
alone. Invariant: what batches of requests cannot do is a CallError before a request is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers

from sparsec.diagnostics.model import CallError
from sparsec.diagnostics.progress import progress
from sparsec.integrations.transformers.hooks import Patch
from sparsec.integrations.transformers.names import with_names
from sparsec.runtime.build.ahead import build_ahead

OLDEST = "5.23"
"""The first version of transformers whose paged cache has an allocator for each kind of layers."""


def has_allocators() -> bool:
    """Whether the version of transformers has."""
    found, first = (tuple(map(int, each.split(".")[:2])) for each in (transformers.__version__, OLDEST))
    return found >= first


@dataclass(frozen=True, slots=True)
class Batching:
    """`transformers.GenerationMixin.init_continuous_batching` of a model, as its attribute."""

    model: Any
    patch: Patch

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers'. Raises CallError for what a pattern, or this version of transformers, does not give."""
        _check_version()
        from sparsec.integrations.transformers.batch_manager import PatternManager

        patch, kind = self.patch, type(self.model)
        _check(patch, self.model.config.get_text_config())
        dtype, scalings = self.model.dtype, zip(patch.kernels, patch.modules, patch.scalings, strict=True)
        modules = [each.of_module(module, dtype, self.model.device, scale) for each, module, scale in scalings]
        with progress() as report:
            build_ahead(modules, paged=True, progress=lambda done, of: report(f"built paged kernels, {done} of {of}"))
        with torch.no_grad():
            manager = with_names(kind.init_continuous_batching, ContinuousBatchingManager=PatternManager)(
                self.model, *args, **kwargs
            )
        _check_settings(manager)
        return manager


def _check_version() -> None:
    if not has_allocators():
        raise CallError(
            f"expected transformers {OLDEST} or later for continuous batching of a model with a pattern, got "
            f"{transformers.__version__}, whose paged cache has no allocators that others can stand for: update "
            "transformers, or give generate() a padded batch"
        )


def _check(patch: Patch, config: Any) -> None:
    from transformers.generation.continuous_batching.utils import find_head_dim

    from sparsec.integrations.transformers.live_blocks import KINDS

    if patch.kv_dtype is not None:
        raise CallError(
            f"expected no kv_dtype for continuous batching, whose pages are the model's, got {patch.kv_dtype}"
        )
    if patch.hybrid:
        raise CallError(
            f"expected a model each of whose layers attends for continuous batching, got {len(patch.places)} of "
            f"{patch.layers}"
        )
    for layer, (kernels, attends) in enumerate(zip(patch.kernels, patch.attends, strict=True)):
        name, inputs = kernels.pattern.name, kernels.pattern.inputs
        if inputs:
            raise CallError(
                f"expected patterns without inputs for continuous batching, got {name!r} with {', '.join(inputs)} in "
                f"layer {layer}"
            )
        if attends != 1:
            raise CallError(f"expected layers that attend once in a forward, got {attends} times in layer {layer}")
    if patch.ends:
        raise CallError(
            "expected patterns without bounds that count from the end for continuous batching, where a prompt may come "
            "in chunks, got one with"
        )
    if "position_ids" not in patch.arguments:
        raise CallError(
            "expected a decoder that takes position_ids, for a batch has several requests in a row, got none"
        )
    others = [kind for kind in getattr(config, "layer_types", None) or () if kind not in KINDS]
    if others:
        raise CallError(
            f"expected layers that transformers' continuous batching knows, {' and '.join(KINDS)}, got {others[0]}"
        )
    try:
        find_head_dim(config)
    except Exception as error:  # a config of layers that differ raises an error of its own
        raise CallError(
            "expected a config with one head_dim, by which transformers' continuous batching sizes its cache, got "
            f"{type(config).__name__} without"
        ) from error


def _check_settings(manager: Any) -> None:
    settings, ranks = manager.continuous_batching_config, manager.distributed_helper.tp_size
    graphs = any(settings.cuda_graph_booleans)
    for name, asked in (("use_cuda_graph", graphs), ("use_async_batching", settings.use_async_batching)):
        if asked:
            raise CallError(
                f"expected {name}=False in the continuous batching config, for the host says before each batch which "
                "blocks are read, got True"
            )
    if ranks > 1:
        raise CallError(f"expected continuous batching in one process, got {ranks} tensor-parallel ranks")

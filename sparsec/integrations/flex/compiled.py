"""Checked pattern -> the compiled call of FlexAttention over its block mask, as a baseline.

Invariant: the mask and the score are those of `masks`; what FlexAttention cannot do here is FlexUnavailable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsec.diagnostics.model import in_one_line
from sparsec.integrations.flex.masks import mask_mod, score_mod
from sparsec.integrations.flex.terms import FlexUnavailable
from sparsec.reference.parts import InputTensors, heads_given
from sparsec.sema.model import Documents, ResolvedPattern


@dataclass(frozen=True, slots=True)
class Flex:
    """A compiled FlexAttention call, and what makes its block mask once more; the seconds that both took at first."""

    call: Callable[[], Tensor]
    build: Callable[[], object]
    compile_seconds: float


def compile_flex(
    pattern: ResolvedPattern,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block: int = 128,
    inputs: Mapping[str, InputTensors] | None = None,
) -> Flex:
    """FlexAttention under torch.compile on q [B, H, Nq, D] and k, v [B, G, Nk, D]. Raises FlexUnavailable.

    block: of its block mask, in tokens; below its own 128, the forward kernel's tiles are made to fit.
    `documents` are taken to be one that fills the sequence; a learned sink is left out.
    """
    from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

    started = time.perf_counter()
    try:
        tensors = [t for value in (inputs or {}).values() for t in (value if isinstance(value, tuple) else (value,))]
        alike = len(set(pattern.terms)) == 1 and heads_given(pattern.inputs, inputs or {}) == 1
        bounds = None if pattern.documents is Documents.NONE else (0, k.shape[2])

        live = mask_mod(pattern, q.shape[2], k.shape[2], q.device, cu_seqlens=bounds, inputs=inputs)

        def build() -> BlockMask:
            return create_block_mask(
                live,
                max((len(t) for t in tensors), default=1) if tensors else None,
                None if alike else pattern.heads,
                q.shape[2],
                k.shape[2],
                device=str(q.device),
                BLOCK_SIZE=block,
                _compile=True,
            )

        mask = build()
        attend: Any = torch.compile(flex_attention, dynamic=False)
        scale, shared = pattern.score.scale, pattern.kv_heads < pattern.heads
        bend = score_mod(pattern, k.shape[2] - q.shape[2], q.device, inputs=inputs)
        tiles = {"fwd_BLOCK_M": block, "fwd_BLOCK_N": block, "fwd_num_warps": 4} if block < 128 else None

        def call() -> Tensor:
            out: Tensor = attend(
                q, k, v, score_mod=bend, block_mask=mask, scale=scale, enable_gqa=shared, kernel_options=tiles
            )
            return out

        call()
    except Exception as error:  # torch.compile fails in many ways: no compiler, an unsupported shape, its own defects
        raise FlexUnavailable(in_one_line(error)) from error
    return Flex(call, build, time.perf_counter() - started)

"""FlexAttention in and out: a pattern as its `mask_mod`, `score_mod` and `block_mask`.

    from torch.nn.attention.flex_attention import flex_attention
    from sparsec.integrations.flex import block_mask, score_mod

    pattern = sparsec.load("examples/s2.sparse").pattern("s2")
    out = flex_attention(q, k, v, score_mod=score_mod(pattern), block_mask=block_mask(pattern, n))

Invariant: what FlexAttention cannot do of a pattern is an error that says so.
"""

from __future__ import annotations

from sparsec.integrations.flex.blocks import block_mask
from sparsec.integrations.flex.masks import mask_mod, score_mod
from sparsec.integrations.flex.terms import FlexUnavailable

__all__ = ["FlexUnavailable", "block_mask", "mask_mod", "score_mod"]

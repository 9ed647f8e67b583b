"""FlexAttention in and out: a pattern as `mask_mod`, `score_mod` and `block_mask`, and from a `mask_mod` its pattern.

    from torch.nn.attention.flex_attention import flex_attention
    from sparsec.integrations.flex import block_mask, score_mod

    pattern = sparsec.load("examples/s2.sparse").pattern("s2")
    out = flex_attention(q, k, v, score_mod=score_mod(pattern), block_mask=block_mask(pattern, n))

    found = from_mask_mod(lambda b, h, q, kv: (q >= kv) & (q - kv < 256), 1024)
    print(found)                        # the text of a pattern, and how sure it is; or why there is none
    attn = sparsec.compile(found.pattern, heads=8, head_dim=64)

Invariant: what FlexAttention cannot do of a pattern is an error that says so.
"""

from __future__ import annotations

from sparsec.integrations.flex.blocks import block_mask
from sparsec.integrations.flex.found import FoundPattern, from_mask_mod
from sparsec.integrations.flex.masks import mask_mod, score_mod
from sparsec.integrations.flex.terms import FlexUnavailable

__all__ = ["FlexUnavailable", "FoundPattern", "block_mask", "from_mask_mod", "mask_mod", "score_mod"]

"""Two attention functions tested against `.sparse` files, and what that finds when a mistake is planted in them.

FlexAttention with a `mask_mod` written by hand for S2, and a block-wise kernel in plain PyTorch for a sliding window.
Each is right as it stands; the tests marked `planted` have a wrong version, and must fail.

    pytest examples/attention_tests.py               the right ones pass, the planted mistakes are found
    pytest examples/attention_tests.py --runxfail    shows what is printed for each mistake: the smallest case
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

from sparsec.testing import for_patterns

HERE = Path(__file__).parent
HEADS, KV_HEADS = 4, 2
LOCAL, EVERY, WINDOW, TILE = 2, 4, 100, 64

s2 = for_patterns(
    HERE / "s2.sparse",
    name="s2",
    params={"local": f"{LOCAL}b", "every": f"{EVERY}b"},
    heads=HEADS,
    kv_heads=KV_HEADS,
    head_dim=16,
)
sliding_window = for_patterns(
    HERE / "mistral.sparse", params={"local": WINDOW}, heads=HEADS, kv_heads=KV_HEADS, head_dim=16, probes=True
)
planted = pytest.mark.xfail(raises=AssertionError, strict=True, reason="a planted mistake, which must be found")


def flex_s2(q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool, sign: int = 1) -> tuple[Tensor, Tensor]:
    """Local blocks, and beyond them one block in EVERY, whose phase follows the KV group."""
    first = k.shape[2] - q.shape[2]

    def visible(b: Tensor, h: Tensor, row: Tensor, key: Tensor) -> Tensor:
        query, group = row + first, h // (HEADS // KV_HEADS)
        near = query // 64 - key // 64 < LOCAL
        distant = (key // 64 + sign * group) % EVERY == 0
        return (key <= query) & (near | distant)

    mask = create_block_mask(visible, None, HEADS, q.shape[2], k.shape[2], device=str(q.device))
    out, aux = flex_attention(q, k, v, block_mask=mask, enable_gqa=True, return_aux=AuxRequest(lse=return_lse))
    return out, aux.lse


def block_wise(
    q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool, window: int = WINDOW, skipped: int = 0
) -> tuple[Tensor, Tensor]:
    """Soft-max online over tiles of TILE keys, for tiles of TILE queries; `skipped`: how many tiles to leave out."""
    k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v))
    first, n_k = k.shape[2] - q.shape[2], k.shape[2]
    outs, sums = [], []
    for start in range(first, n_k, TILE):
        i = torch.arange(start, min(start + TILE, n_k))[:, None]
        rows = q[:, :, start - first : start - first + len(i)] * q.shape[3] ** -0.5
        most, total, out = rows.new_full(rows.shape[:3], -torch.inf), rows.new_zeros(rows.shape[:3]), rows * 0
        oldest = max(0, start - window + 1) // TILE
        for tile in range(oldest + (skipped if oldest else 0), int(i[-1]) // TILE + 1):
            j = torch.arange(tile * TILE, min((tile + 1) * TILE, n_k))
            seen = (j <= i) & (j > i - window)
            score = (rows @ k[:, :, j].mT).masked_fill(~seen, -torch.inf)
            larger = torch.maximum(most, score.amax(-1))
            base = larger.masked_fill(larger.isneginf(), 0)
            weight, shrink = (score - base[..., None]).exp(), (most - base).exp()
            # A key that no row of the tile sees may hold NaN, which a weight of 0 would not keep out.
            values = v[:, :, j].masked_fill(~seen.any(0)[:, None], 0)
            out, total, most = out * shrink[..., None] + weight @ values, total * shrink + weight.sum(-1), larger
        outs.append(out / total[..., None])
        sums.append(most + total.log())
    return torch.cat(outs, dim=2), torch.cat(sums, dim=2)


@s2
def test_flex_attention(pattern: object) -> Callable[..., tuple[Tensor, Tensor]]:
    return flex_s2


@planted
@s2
def test_a_phase_of_the_wrong_sign(pattern: object) -> Callable[..., tuple[Tensor, Tensor]]:
    return partial(flex_s2, sign=-1)


@sliding_window
def test_block_wise(pattern: object) -> Callable[..., tuple[Tensor, Tensor]]:
    return block_wise


@planted
@sliding_window
def test_a_window_off_by_one(pattern: object) -> Callable[..., tuple[Tensor, Tensor]]:
    return partial(block_wise, window=WINDOW + 1)


@planted
@sliding_window
def test_a_dropped_block(pattern: object) -> Callable[..., tuple[Tensor, Tensor]]:
    return partial(block_wise, skipped=1)

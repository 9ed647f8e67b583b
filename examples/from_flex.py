"""Masks written for FlexAttention, as attention-gym has them, and the patterns of terms that say the same.

python examples/from_flex.py            # prints each mask's pattern, and how sure it is
python examples/from_flex.py --run      # and attends by it, beside FlexAttention
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import and_masks, create_block_mask, flex_attention, or_masks

import sparsec
from sparsec.integrations.flex import FoundPattern, from_mask_mod

HEADS, TOKENS = 4, 512
DOCUMENTS = torch.tensor([0, 100, 180, 400, 512])
DOCUMENT_OF = torch.repeat_interleave(torch.arange(4), DOCUMENTS.diff())
PREFIXES = torch.tensor([30, 0, 77])


def causal(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return q >= kv


def window(size: int) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    def near(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return q - kv < size

    return and_masks(causal, near)


def sink(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return kv < 4


def dilated(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return ((q - kv).abs() <= 32) & ((q - kv) % 4 == 0)


def same_document(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return DOCUMENT_OF[q] == DOCUMENT_OF[kv]


def prefix(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return kv < PREFIXES[b]


def chunk(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return q // 64 == kv // 64


def shards(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    """Of the far blocks of keys each head sees another fourth."""
    return (q // 32 - kv // 32 < 2) | (kv // 32 % 4 == (-h) % 4)


def neighbours(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    """In an image of 32 columns, whose windows stay inside (NATTEN): no set of the terms that are looked for."""
    row, column = (q // 32).clamp(2, 13), (q % 32).clamp(2, 29)
    return ((row - kv // 32).abs() <= 2) & ((column - kv % 32).abs() <= 2)


@dataclass(frozen=True)
class Port:
    """A mask, and how many sequences it tells apart."""

    mask: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    batch: int = 1


PORTS = {
    "causal": Port(causal),
    "sliding window": Port(window(128)),
    "sink and window": Port(and_masks(causal, or_masks(sink, window(128)))),
    "dilated sliding window": Port(dilated),
    "documents": Port(and_masks(causal, same_document)),
    "prefix by sequence": Port(or_masks(causal, prefix), batch=3),
    "chunks": Port(and_masks(causal, chunk)),
    "shards by head": Port(and_masks(causal, shards)),
    "neighbours in an image": Port(neighbours),
}


def ported(port: Port) -> FoundPattern:
    return from_mask_mod(port.mask, TOKENS, heads=HEADS, batch=port.batch)


def difference(port: Port, found: FoundPattern) -> float:
    """The largest between sparsec's output and FlexAttention's."""
    assert found.pattern is not None
    q, k, v = torch.randn(3, port.batch, HEADS, TOKENS, 32, generator=torch.Generator().manual_seed(0))
    attn = sparsec.compile(found.pattern, heads=HEADS, kv_heads=HEADS, head_dim=32, dtype=torch.float32, device="cpu")
    more: dict[str, object] = {}
    if found.cu_seqlens is not None:
        more["cu_seqlens"] = torch.tensor(found.cu_seqlens, dtype=torch.int32)
    if found.inputs:
        more["inputs"] = found.inputs
    blocks = create_block_mask(port.mask, port.batch, HEADS, TOKENS, TOKENS, device="cpu")
    return float((attn(q, k, v, **more) - flex_attention(q, k, v, block_mask=blocks)).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true")
    run = parser.parse_args().run
    for name, port in PORTS.items():
        found = ported(port)
        print(f"{name}\n{found}")
        if run and found:
            print(f"# largest difference from FlexAttention: {difference(port, found):.2g}\n")


if __name__ == "__main__":
    main()

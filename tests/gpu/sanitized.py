"""Small calls of every kind of kernel, for `compute-sanitizer`: odd lengths, documents, draws, gradients, a cache.

Under PYTORCH_NO_CUDA_MEMORY_CACHING every tensor is an allocation of its own, and memcheck knows its ends.
"""

from __future__ import annotations

import sys

import torch
from gpu import REHEARSAL, card, synchronize

import sparsec

HEADS, KV_HEADS, HEAD_DIM = 8, 2, 64
SOURCES = {
    "s2": "pattern p { block 64 causal attend sink(64) | window(4b) | stride(4b, phase = -g) }",
    "random": "pattern p { block 64 causal attend window(2b) | random(3, seed = 5) }",
    "documents": "pattern p { causal documents restart attend window(100) }",
}


def main() -> int:
    device = card().device
    length, wrong = (70, []) if REHEARSAL else (333, [])
    for name, source in SOURCES.items():
        given = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM}
        attn = sparsec.compile(source, dtype=torch.bfloat16, device=device, target="triton", **given)
        exact = sparsec.compile(source, dtype=torch.float64, target="reference", **given)
        torch.manual_seed(0)
        shapes = [(1, heads, length, HEAD_DIM) for heads in (HEADS, KV_HEADS, KV_HEADS)]
        leaves = [torch.randn(shape).to(torch.bfloat16).to(device).requires_grad_() for shape in shapes]
        bounds = torch.tensor([0, 65, 65, length], dtype=torch.int32) if attn.documents else None
        out = attn(*leaves, cu_seqlens=None if bounds is None else bounds.to(device))
        grads = torch.autograd.grad(out.sum(), leaves)
        want = exact(*(t.detach().cpu().double() for t in leaves), cu_seqlens=bounds)
        found = [("output", (out.cpu().double() - want).abs().max().item())]
        found += [("gradients", 1.0) for grad in grads if grad.isnan().any()]
        if not attn.documents:
            with torch.no_grad():
                cache = attn.new_cache(1, length, device=device)
                parts = [leaf.split([length - 40, 38, 1, 1], dim=2) for leaf in leaves]
                steps = torch.cat([attn(*part, cache=cache) for part in zip(*parts, strict=True)], 2)
            found.append(("cache", (steps.cpu().double() - want).abs().max().item()))
        wrong += [f"{name}: {what} is off by {error}" for what, error in found if not error < 0.05]
    synchronize()
    print("\n".join(wrong) or "all right")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

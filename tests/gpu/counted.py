"""Three calls whose kernels `ncu` looks at: forward and backward of S2 at 32,768 tokens, one decoded token at 131,072.

    ncu ... --profile-from-start off python tests/gpu/counted.py

Invariant: each call runs once before the profiler is let on, so that nothing is compiled or allocated under it.
"""

from __future__ import annotations

import torch
from cases import rows
from gpu import REHEARSAL, card, synchronize


def main() -> None:
    found = card()
    calls = []
    s2 = [row for row in rows() if row.pattern == "s2" and (row.head_dim == 128 or REHEARSAL)]
    long = next(row for row in s2 if not row.decode and (row.length == 32768 or REHEARSAL))
    for row in (long, next(row for row in s2 if row.decode)):
        attn = row.compiled(found.device)
        heads, kv_heads = row.heads
        tokens, dtype = 1 if row.decode else row.length, attn.dtype
        q, k, v = (
            torch.randn(1, n, tokens, row.head_dim, device=found.device).to(dtype) for n in (heads, kv_heads, kv_heads)
        )
        if row.decode:
            cache = attn.new_cache(1, row.length + 8, device=found.device)
            cache.keys.normal_()
            cache.values.normal_()
            cache.lengths_tensor.fill_(row.length - 1)
            cache.refresh()
            calls.append(torch.no_grad()(lambda attn=attn, q=q, k=k, v=v, cache=cache: attn(q, k, v, cache=cache)))
        else:
            leaves = tuple(t.requires_grad_() for t in (q, k, v))
            calls.append(lambda attn=attn, leaves=leaves: torch.autograd.grad(attn(*leaves).sum(), leaves))
    for call in calls:
        call()
    synchronize()
    if not REHEARSAL:
        torch.cuda.profiler.start()
    for call in calls:
        call()
    synchronize()
    if not REHEARSAL:
        torch.cuda.profiler.stop()


if __name__ == "__main__":
    main()

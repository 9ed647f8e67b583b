"""Builds what the benchmarks will call, FlexAttention's kernels first, so that they find it in the compilers' caches.

    python tests/gpu/warm.py --out FOLDER

It runs beside the tests; a row that it does not come to is compiled when it is timed.
"""

from __future__ import annotations

import os
import sys
import time

import torch
from bench import flex_call
from cases import FLEX, Row, rows
from gpu import card
from pool import run_all, workers
from step import arguments

WORKERS = int(os.environ.get("SPARSEC_GPU_WARMERS", "4"))


def main() -> int:
    given = arguments(__doc__)
    ours = {(row.pattern, row.head_dim, row.decode): row for row in rows()}  # a build serves every length and batch
    jobs = [(row, "") for row in ours.values()]
    jobs[:0] = [(row, name) for row in rows() for name in FLEX if name in row.against]
    with workers(WORKERS) as pool:
        return int(run_all(pool, build, jobs, given) > 0)


def build(row: Row, flex: str) -> str:
    """Runs FlexAttention, by its name, or sparsec once; what came of it."""
    started = time.monotonic()
    device = card().device
    if flex:
        case = row.case(device)
        leaves = tuple(t.requires_grad_() for t in case.inputs())
        call, _, absent = flex_call(case, leaves, flex)
        what = "built" if call else "failed"
        return f"{what} in {time.monotonic() - started:.0f} s {absent}"
    attn = row.compiled(device)
    tokens = min(row.length, 128)
    heads, kv_heads = row.heads
    q, k, v = (
        torch.randn(1, n, tokens, row.head_dim, device=device, dtype=attn.dtype) for n in (heads, kv_heads, kv_heads)
    )
    if row.decode:
        with torch.no_grad():
            cache = attn.new_cache(1, row.length, device=device)
            attn(q[:, :, 1:], k[:, :, 1:], v[:, :, 1:], cache=cache)
            attn(*(t[:, :, :1] for t in (q, k, v)), cache=cache)
    else:
        leaves = tuple(t.requires_grad_() for t in (q, k, v))
        torch.autograd.grad(attn(*leaves).sum(), leaves)
    return f"built in {time.monotonic() - started:.0f} s"


if __name__ == "__main__":
    sys.exit(main())

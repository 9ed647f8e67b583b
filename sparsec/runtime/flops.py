"""Flop formulas of the operators, for `torch.utils.flop_counter`: what the visited tiles cost, masked ones in full.

As torch counts SDPA: two products of query, key and head dimension forward, five backward.
"""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import register_flop_formula

from sparsec.ir.bands.classes import equal_heads
from sparsec.ir.tiles.interpreter import visits
from sparsec.plan.kernel import KernelPlan
from sparsec.runtime.kernel import registered
from sparsec.runtime.ops import backward, forward


def visited_pairs(plan: KernelPlan, n_q: int, n_k: int, q_offset: int) -> int:
    """Pairs in the tiles that all heads of one batch row visit; documents are counted as one."""
    pairs = 0
    for head_class in plan.classes:
        program, size = head_class.program, head_class.program.query_tile
        for heads, constants in equal_heads(head_class.heads, head_class.constants):
            for tile in range(q_offset // size, -(-(q_offset + n_q) // size)):
                rows = max(tile * size, q_offset), min((tile + 1) * size, q_offset + n_q)
                visited = visits(program, constants, rows, n_k, (0, n_k))
                pairs += len(visited) * program.key_tile * (rows[1] - rows[0]) * len(heads)
    return pairs


@register_flop_formula(forward)
def _forward(
    q: Any, k: Any, v: Any, sink: Any, cu_seqlens: Any, kernel: str, q_offset: int, scale: float | None, **_: Any
) -> int:
    return 4 * _pairs(kernel, q, k, q_offset) * int(q[3])


@register_flop_formula(backward)
def _backward(
    grad_out: Any,
    grad_lse: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    sink: Any,
    cu_seqlens: Any,
    kernel: str,
    q_offset: int,
    scale: float | None,
    **_: Any,
) -> int:
    return 10 * _pairs(kernel, q, k, q_offset) * int(q[3])


def _pairs(kernel: str, q: Any, k: Any, q_offset: int) -> int:
    return int(q[0]) * visited_pairs(registered(kernel).plan, int(q[2]), int(k[2]), q_offset)

"""Flop formulas of the operators, for `torch.utils.flop_counter`: what the visited tiles cost, masked ones in full.

As torch counts SDPA: forward a product of the head dimension and one of the values', backward three and two.
"""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import register_flop_formula

from sparsec.ir.bands.classes import equal_heads
from sparsec.ir.tiles.interpreter import visits
from sparsec.plan.kernel import KernelPlan
from sparsec.runtime.inputs.prepare import by_input
from sparsec.runtime.kernel import registered
from sparsec.runtime.ops import backward, forward, mass


def visited_pairs(plan: KernelPlan, n_q: int, n_k: int, q_offset: int) -> int:
    """Pairs in the tiles that all heads of one batch row visit, of all that inputs may name; documents count as one."""
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
    q: Any,
    k: Any,
    v: Any,
    sink: Any,
    cu_seqlens: Any,
    inputs: Any,
    key_bias: Any,
    kernel: str,
    q_offset: int,
    scale: float | None,
    **_: Any,
) -> int:
    return 2 * _pairs(kernel, q, k, q_offset, inputs) * int(q[3] + v[3])


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
    inputs: Any,
    key_bias: Any,
    of_bias: bool,
    kernel: str,
    q_offset: int,
    scale: float | None,
    **_: Any,
) -> int:
    return 2 * _pairs(kernel, q, k, q_offset, inputs) * int(3 * q[3] + 2 * v[3])


@register_flop_formula(mass)
def _mass(
    q: Any,
    k: Any,
    lse: Any,
    sink: Any,
    cu_seqlens: Any,
    inputs: Any,
    key_bias: Any,
    kernel: str,
    q_offset: int,
    scale: float | None,
    **_: Any,
) -> int:
    return 2 * _pairs(kernel, q, k, q_offset, inputs) * int(q[3])


def _pairs(kernel: str, q: Any, k: Any, q_offset: int, inputs: Any) -> int:
    plan, n_q = registered(kernel).plan, int(q[2])
    of_tiles = visited_pairs(plan, n_q, int(k[2]), q_offset)
    shapes = by_input(plan.declared, inputs or (), len)
    return int(q[0]) * (of_tiles + n_q * listed_keys(plan, tuple(int(shape[0][-1]) for shape in shapes)))


def listed_keys(plan: KernelPlan, widths: tuple[int, ...]) -> int:
    """The keys of all lists of a row, over all heads; `widths`: the last dimension of each input's tensor."""
    return sum(
        len(of.heads) * widths[test.ordinal] * test.width
        for of in plan.classes
        for test in (of.program.inputs[gather.test] for gather in of.program.gathers)
    )

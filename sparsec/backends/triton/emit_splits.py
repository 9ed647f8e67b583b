"""Key tiles that many queries see -> how the kernels print their parts, which several programs sum.

Invariant: a part's query tiles follow from the same closed forms as the whole tile's, for fewer queries.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparsec.backends.triton.emit_inputs import is_asked
from sparsec.backends.triton.expr import assignment
from sparsec.backends.triton.view import SplitsView
from sparsec.ir.expr.nodes import Add, Expr, Int
from sparsec.ir.tiles.program import TileProgram
from sparsec.plan.kernel import HeadClass, KernelPlan
from sparsec.plan.target import JOINED_ROWS, STRETCHES


def may_split(plan: KernelPlan, head_class: HeadClass) -> bool:
    """Whether programs may share the query tiles of a key tile of a transposed class.

    What keys add to their scores has its gradient in the program that has all queries of a head; and the tiles that
    inputs add are found for all queries at once.
    """
    program = head_class.program
    return head_class.long and plan.score.bias is None and not any(map(is_asked, (*program.full, *program.masked)))


def splits_view(program: TileProgram, names: Mapping[str, str]) -> SplitsView:
    steps: list[Expr] = [segment.count for segment in (*program.full, *program.masked)] or [Int(0)]
    while len(steps) > 1:  # by halves: of many segments a sum of one after another would be deep
        rest = steps[len(steps) // 2 * 2 :]
        steps = [Add(a, b) for a, b in zip(steps[::2], steps[1::2], strict=False)] + rest
    return SplitsView(STRETCHES, JOINED_ROWS, assignment("more", steps[0], names))

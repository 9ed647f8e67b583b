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
    steps: Expr = Int(0)
    for segment in (*program.full, *program.masked):
        steps = Add(steps, segment.count)
    return SplitsView(STRETCHES, JOINED_ROWS, assignment("more", steps, names))

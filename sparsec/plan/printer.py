"""Kernel plans -> text that a person reads: what holds for all heads, the head classes, and their tile programs.

Invariant: equal plans print equal text.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparsec.ir.tiles.printer import print_program
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan
from sparsec.sema.printer import head_ranges, score_lines


def print_plan(plan: KernelPlan, head: int | None = None) -> str:
    """A plan without its tile programs; here and below, `head`: with the class of this head alone."""
    values = "" if plan.value_dim == plan.head_dim else f", value dim {plan.value_dim}"
    lines = [f"heads {plan.heads} kv {plan.kv_heads}, head dim {plan.head_dim}{values}, {plan.dtype}"]
    lines += [line.strip() for line in score_lines(plan.documents, plan.score)]
    return "\n".join(lines) + "\n" + _classes(plan.classes, head)


def print_backward(plan: BackwardPlan, head: int | None = None) -> str:
    """A plan of gradients without its tile programs."""
    of_keys = _classes(plan.transposed, head)
    return f"{print_plan(plan.forward, head)}\n# gradients of keys and values\n{of_keys}"


def print_programs(classes: tuple[HeadClass, ...], head: int | None = None) -> str:
    """The tile program of each class."""
    shown = (c for c in classes if head is None or head in c.heads)
    return "\n".join(f"heads {head_ranges(c.heads)}\n{print_program(c.program)}" for c in shown)


def _classes(classes: tuple[HeadClass, ...], head: int | None) -> str:
    shown = (c for c in classes if head is None or head in c.heads)
    return "".join("\n" + "\n".join(_class(c)) + "\n" for c in shown)


def _class(of: HeadClass) -> Iterator[str]:
    program = of.program
    yield f"heads {head_ranges(of.heads)}{', light' if of.light else ''}{', long' if of.long else ''}"
    for origin in of.origins:
        yield f"    # {origin}"
    for name, values in of.constants:
        yield f"    {name} = [{', '.join(map(str, values))}]"
    yield f"    tiles {program.query_tile} x {program.key_tile}"
    yield f"    {len(program.lets)} lets, {len(program.full)} full and {len(program.masked)} masked segments"

"""Kernel plans -> text that a person reads: what holds for all heads, the head classes, and their tile programs.

Invariant: equal plans print equal text.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparsec.ir.tiles.printer import print_program
from sparsec.plan.kernel import BackwardPlan, HeadClass, KernelPlan
from sparsec.sema.printer import head_ranges, score_lines


def print_plan(plan: KernelPlan) -> str:
    """A plan without its tile programs."""
    lines = [f"heads {plan.heads} kv {plan.kv_heads}, head dim {plan.head_dim}, {plan.dtype}"]
    lines += [line.strip() for line in score_lines(plan.documents, plan.score)]
    return "\n".join(lines) + "\n" + print_classes(plan.classes)


def print_backward(plan: BackwardPlan) -> str:
    """A plan of gradients without its tile programs."""
    of_keys = print_classes(plan.transposed)
    return f"{print_plan(plan.forward)}\ngradients of keys and values, by key tiles:\n{of_keys}"


def print_classes(classes: tuple[HeadClass, ...]) -> str:
    """What each class is, without its tile program."""
    return "".join("\n" + "\n".join(_class(head_class)) + "\n" for head_class in classes)


def print_programs(classes: tuple[HeadClass, ...]) -> str:
    """The tile program of each class."""
    return "\n".join(f"heads {head_ranges(c.heads)}\n{print_program(c.program)}" for c in classes)


def _class(of: HeadClass) -> Iterator[str]:
    program = of.program
    yield f"heads {head_ranges(of.heads)}{', light' if of.light else ''}"
    for origin in of.origins:
        yield f"    # {origin}"
    for name, values in of.constants:
        yield f"    {name} = [{', '.join(map(str, values))}]"
    yield f"    tiles {program.query_tile} x {program.key_tile}"
    yield f"    {len(program.lets)} lets, {len(program.full)} full and {len(program.masked)} masked pieces"

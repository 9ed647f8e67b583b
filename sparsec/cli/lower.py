"""`sparsec lower`: what one stage of the compiler makes of a pattern, as text.

Invariant: the text of a stage is the one that its printer, or its backend's emitter, gives; nothing is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

import click

from sparsec.backends import registry
from sparsec.backends.base import PARTS
from sparsec.cli.options import (
    check_target_option,
    choose,
    dtype_for,
    file_argument,
    kernel_options,
    open_program,
    pattern_options,
    resolved,
    value_dim_option,
)
from sparsec.ir.bands.printer import print_mask
from sparsec.pipeline import Compilation
from sparsec.plan.kernel import BackwardPlan, KernelPlan
from sparsec.plan.kv.cached import CachedPlan
from sparsec.plan.kv.printer import print_cached, print_layout
from sparsec.plan.printer import print_backward, print_plan, print_programs
from sparsec.sema.inputs import input_names
from sparsec.sema.printer import head_text, sparse_text

STAGES = ("terms", "bands", "tiles", "plan", "layout", "cpp", "triton", "gluon")
_CPU = "cpu"
_BACKENDS = {"cpp": ("cpu", _CPU), "triton": ("triton", "cuda:90"), "gluon": ("gluon", "gluon:90")}
"""Whose source a stage is, and the target if none is given."""

Plan = KernelPlan | BackwardPlan | CachedPlan


@click.command()
@file_argument
@click.option("--emit", "stage", type=click.Choice(STAGES), required=True, help="The stage to print.")
@click.option(
    "--of",
    "of",
    type=click.Choice(PARTS),
    default="forward",
    show_default=True,
    help="The pass: forward, the gradients, or attention over a KV cache.",
)
@click.option(
    "--head",
    type=click.IntRange(0),
    metavar="H",
    help="Only what head H has: its set, its class, its KV group's slots.",
)
@click.option("--target", help=f"As for compile; {_CPU} if left out, or one of the stage's.")
@pattern_options
@kernel_options
@value_dim_option
def lower(
    file: Path,
    stage: str,
    of: str,
    head: int | None,
    target: str | None,
    name: str | None,
    settings: tuple[str, ...],
    heads: int | None,
    kv_heads: int | None,
    head_dim: int,
    value_dim: int | None,
    dtype: str,
) -> None:
    """Print one stage of the compiler.

    \b
    terms   the set of each head, every parameter settled, as a file that means the same
    bands   the sets in closed form, a class for heads that are equal up to numbers;
            with --of backward rows and columns exchanged
    tiles   for each class, the key tiles that a query tile visits, in full or masked;
            with --of backward the query tiles of a key tile
    plan    all that a kernel is printed from, but the tile programs
    layout  what a KV cache keeps, group by group, and in which slot
    cpp     the C++ source for a CPU, as it is built
    triton  the Triton source for a GPU, as it is built
    gluon   the Gluon source of the forward pass for a GPU of compute capability 9.0;
            for bfloat16 if --dtype is left out

    Terms, bands and layout are the same for every target; tiles and the plan depend on it by their sizes. With --of
    cached, tiles and plan are given twice: of the kernel for chunks of queries, and of the one for few.

    A source serves all heads, so it takes no --head.

    Example: sparsec lower examples/s2.sparse --pattern s2 --emit tiles --head 0 --target cuda:90
    """
    target = _target(stage, target)
    pattern = choose(open_program(file), name, settings)
    meaning = resolved(pattern, heads, kv_heads)
    if head is not None and head >= meaning.heads:
        wanted = "--head below 1" if meaning.heads == 1 else f"a head from 0 to {meaning.heads - 1}"
        raise click.BadParameter(f"expected {wanted}, got {head}", param_hint="'--head'")
    if head is not None and stage in _BACKENDS:
        raise click.UsageError(f"expected --head with another stage: the source of {stage} serves every head")
    if stage == "layout" or of == "cached":
        pattern.cache_layout(meaning.heads, meaning.kv_heads)  # raises the file's diagnostic where there is no cache
    compilation = Compilation(
        pattern.lowered(meaning.heads, meaning.kv_heads),
        head_dim,
        head_dim if value_dim is None else value_dim,
        dtype_for(target, dtype),
        target,
        pattern.refusals,
    )
    click.echo(stage_text(compilation, stage, of, head=head, name=pattern.name), nl=False)


def _target(stage: str, given: str | None) -> str:
    """The target that a stage is printed for. Raises click.UsageError for one that has no such source."""
    backend, default = _BACKENDS.get(stage, ("", _CPU))
    if given is None:
        return default
    check_target_option(given)
    if backend and registry.backend_name(given) != backend:
        raise click.UsageError(f"expected a target such as {default} with --emit {stage}, got {given}")
    return given


def stage_text(compilation: Compilation, stage: str, of: str = "forward", *, head: int | None = None, name: str) -> str:
    """The text of a stage; `head`: only what that head has. Raises NoCache, TooManyBands, TooManyClasses."""
    lowered, pattern = compilation.lowered, compilation.pattern
    match stage:
        case "terms":
            return (
                sparse_text(pattern, name)
                if head is None
                else f"head {head}: {head_text(pattern.terms[head], input_names(pattern.inputs))}\n"
            )
        case "bands":
            transposed = of == "backward"
            return print_mask(lowered.transposed if transposed else lowered.mask, head, transposed=transposed)
        case "layout":
            group = None if head is None else head // (pattern.heads // pattern.kv_heads)
            return print_layout(lowered.layout, group)
        case "cpp" | "triton" | "gluon":
            return registry.builder(compilation.target).sources(compilation, (of,))[of]
    return "\n".join(
        (f"# {what}\n\n" if what else "") + (_tiles if stage == "tiles" else _plan)(plan, head)
        for what, plan in _plans(compilation, of)
    )


def _plans(compilation: Compilation, of: str) -> tuple[tuple[str, Plan], ...]:
    """The plans of a pass; of several, with what each is for."""
    match of:
        case "forward":
            return (("", compilation.forward),)
        case "backward":
            return (("", compilation.backward),)
    return ("chunks of queries", compilation.chunks), ("few queries", compilation.rows)


def _plan(plan: Plan, head: int | None) -> str:
    match plan:
        case KernelPlan():
            return print_plan(plan, head)
        case BackwardPlan():
            return print_backward(plan, head)
        case CachedPlan():
            return print_cached(plan, head)
    assert_never(plan)


def _tiles(plan: Plan, head: int | None) -> str:
    match plan:
        case KernelPlan(classes=classes) | CachedPlan(attend=KernelPlan(classes=classes)):
            return print_programs(classes, head)
        case BackwardPlan(forward, transposed):
            of_queries, of_keys = print_programs(forward.classes, head), print_programs(transposed, head)
            return f"# gradients of queries\n\n{of_queries}\n# gradients of keys and values\n\n{of_keys}"
    assert_never(plan)

"""`sparsec compile`: a pattern as source and built artefacts in a folder, for a machine that need not be this one."""

from __future__ import annotations

from pathlib import Path

import click

from sparsec.cli.options import choose, file_argument, kernel_options, open_program, pattern_options, resolve
from sparsec.cli.progress import progress
from sparsec.cli.tables import table
from sparsec.plan.target import Family, family


@click.command("compile")
@file_argument
@click.option(
    "-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to write."
)
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="cpu, cuda:<compute capability> (cuda:80, cuda:90, cuda:100) or hip:<architecture> (hip:gfx942).",
)
@pattern_options
@kernel_options
def compile_pattern(
    file: Path,
    output: Path,
    target: str,
    name: str | None,
    settings: tuple[str, ...],
    heads: int | None,
    kv_heads: int | None,
    head_dim: int,
    dtype: str,
) -> None:
    """Write the source of every kernel, the built artefacts and manifest.json.

    No target needs a GPU. Exits with 1 if a kernel spills registers, needs more shared memory than the target has, or
    uses no tensor cores where it should.

    Example: sparsec compile examples/s2.sparse -o build/s2 --target cuda:90 --head-dim 128 --dtype bfloat16
    """
    _check_target(target)
    pattern = choose(open_program(file), name, settings)
    counts = resolve(pattern, heads, kv_heads)
    from sparsec.runtime.artefact import compile_to_directory  # it imports torch

    with progress() as report:
        manifest = compile_to_directory(
            pattern,
            output,
            target=target,
            heads=counts.heads,
            kv_heads=counts.kv_heads,
            head_dim=head_dim,
            dtype=dtype,
            progress=report,
        )
    head = ("kernel", "registers", "spills (B)", "stack (B)", "shared (B)", "tensor-core instr.")
    rows = [
        (
            kernel.name,
            *(
                "-" if figure is None else str(figure)
                for figure in (
                    kernel.registers,
                    kernel.spills,
                    kernel.stack_bytes,
                    kernel.shared_bytes,
                    kernel.tensor_core_instructions,
                )
            ),
        )
        for kernel in manifest.kernels
    ]
    click.echo(table(head, rows))
    click.echo(f"\nwritten to {click.format_filename(output)}")
    problems = [problem for kernel in manifest.kernels for problem in kernel.problems]
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    click.get_current_context().exit(1 if problems else 0)


def _check_target(target: str) -> None:
    try:
        interpreted = family(target) is Family.INTERPRETER
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--target'") from error
    if interpreted:
        raise click.BadParameter("the interpreter builds nothing", param_hint="'--target'")

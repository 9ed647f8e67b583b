"""`sparsec compile`: a pattern as source and built artefacts in a folder, for a machine that need not be this one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparsec.backends import registry
from sparsec.cli.kinds import check_layers_option, layer_kinds
from sparsec.cli.options import (
    check_target_option,
    choose,
    dtype_for,
    file_argument,
    kernel_options,
    model_option,
    open_program,
    pattern_options,
    resolved,
    value_dim_option,
)
from sparsec.cli.proofs import claims_about, claims_text
from sparsec.diagnostics.model import DiagnosticError, SparsecError
from sparsec.diagnostics.progress import progress
from sparsec.diagnostics.render import render_text
from sparsec.diagnostics.tables import table
from sparsec.pipeline import Compilation
from sparsec.plan.tiles import tiles_from
from sparsec.program import LayerKind, Pattern
from sparsec.sema.model import ResolvedPattern

if TYPE_CHECKING:
    from sparsec.runtime.build.manifest import Manifest, Proof


def _tiles(_: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Mapping[str, tuple[int, ...]]:
    """Each kind of kernels and the numbers of its tiles."""
    tiles = {}
    for text in given:
        kind, equals, numbers = text.partition("=")
        try:
            tiles[kind] = tuple(int(number) for number in numbers.split(","))
            tiles_from({kind: tiles[kind]})
        except ValueError as error:
            why = str(error) if equals and str(error).startswith("expected") else f"got {text!r:.80}"
            raise click.BadParameter(f"expected KIND=NUMBERS as in forward=128,64,8,3: {why}", param=option) from None
    return tiles


class _Folder(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail("expected the name of a folder, got an empty one", param, ctx)
        return super().convert(value, param, ctx)


@click.command("compile")
@file_argument
@click.option(
    "-o", "--output", required=True, type=_Folder(file_okay=False, path_type=Path), help="The folder to write."
)
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="cpu (as this machine's), cpu:x86-64-v3 or cpu:x86-64-v4 (as any of that level), cpu:sapphirerapids (as any "
    "that multiplies matrices of bfloat16), cuda:<compute capability> (cuda:80, cuda:90, cuda:100), hip:<architecture> "
    "(hip:gfx942) or gluon:90 (cuda:90, forward in Gluon).",
)
@click.option("--inference", is_flag=True, help="Leave out the kernels of the gradients.")
@click.option("--pages", is_flag=True, help="Add the kernels of attention over a server's pages.")
@click.option(
    "--tiles",
    "tiles",
    multiple=True,
    callback=_tiles,
    metavar="KIND=NUMBERS",
    help="Tiles of a kind of GPU kernel, as in forward=128,64,8,3: query tile, key tile, warps, stages, and the most "
    "registers of a thread if you like; what sparsec tune prints; may be repeated.",
)
@click.option("--no-spills", is_flag=True, help="Exit with 1 if a kernel spills registers, rather than warn.")
@click.option("--prove", is_flag=True, help="Write nothing unless z3 proves the plan's claims for all lengths.")
@pattern_options
@model_option("Compile each kind of layers of this model of the file, equal layers once.")
@kernel_options
@value_dim_option
def compile_pattern(
    file: Path,
    output: Path,
    target: str,
    inference: bool,
    pages: bool,
    tiles: Mapping[str, tuple[int, ...]],
    no_spills: bool,
    prove: bool,
    name: str | None,
    settings: tuple[str, ...],
    heads: int | None,
    kv_heads: int | None,
    model: str | None,
    layers: int | None,
    head_dim: int,
    value_dim: int | None,
    dtype: str,
) -> None:
    """Write the source of every kernel, the built artefacts, layout.json and manifest.json.

    The kernels are those of the forward pass, of attention over a KV cache where the pattern has one, and of the
    gradients. layout.json says which keys each KV group keeps. sparsec.load_compiled(DIR) makes a module of the folder.

    With --model there is a folder in DIR for each kind of layers, and model.json names the folder of each layer.
    Kernels for a CPU are built side by side.

    No target needs a GPU. Exits with 1 if a kernel needs more shared memory than the target has, or uses no tensor
    cores where it should; and, with --prove, if a claim is not proved, nothing being written then. A kernel that spills
    registers is right, but slower: the table says how much, and a warning, which is an error with --no-spills.

    Example: sparsec compile examples/s2.sparse -o build/s2 --target cuda:90 --head-dim 128 --dtype bfloat16
    """
    check_target_option(target)
    dtype = dtype_for(target, dtype)
    check_layers_option(model, layers)
    program = open_program(file)
    kinds: tuple[LayerKind, ...] = ()
    if model is not None:
        kinds = layer_kinds(program, model, layers, name, settings, (heads, kv_heads))
        counted = [(kind.pattern, kind.meaning) for kind in kinds]
    else:
        pattern = choose(program, name, settings)
        counted = [(pattern, resolved(pattern, heads, kv_heads))]
    registry.builder(target).check_builds()
    from sparsec.runtime.build.artefact import FolderOptions, compile_to_directory  # it imports torch
    from sparsec.runtime.build.model_folder import compile_model_to_directory

    options = FolderOptions(target, head_dim, dtype, value_dim, not inference, pages, tiles)
    manifests: dict[str, Manifest]
    with progress() as report:
        if model is not None:
            proved = partial(_proof_of_kind, not inference) if prove else None
            manifests = compile_model_to_directory(model, kinds, output, options, progress=report, prove=proved)
        else:
            ((pattern, counts),) = counted
            manifests = {
                "": compile_to_directory(
                    pattern,
                    output,
                    heads=counts.heads,
                    kv_heads=counts.kv_heads,
                    progress=report,
                    prove=partial(_proof, not inference) if prove else None,
                    target=target,
                    head_dim=head_dim,
                    value_dim=value_dim,
                    dtype=dtype,
                    gradients=not inference,
                    pages=pages,
                    tiles=tiles,
                )
            }
    for said in dict.fromkeys(filter(None, (_about_cache(*each) for each in counted))):
        click.echo(said, err=True)
    titles = [f"{kind}, in {folder}\n" for kind, folder in zip(kinds, manifests, strict=True)] if kinds else [""]
    told = [f"{title}{_kernels_table(each)}" for title, each in zip(titles, manifests.values(), strict=True)]
    proofs = [each.proof for each in manifests.values() if each.proof is not None]
    if proofs:
        claims = sum(len(proof.claims) for proof in proofs)
        told.append(f"{claims} claims, for all lengths, proved by {proofs[0].solver}")
    click.echo("\n\n".join([*told, f"written to {click.format_filename(output)}"]))
    named = [(f"{folder}/" if folder else "", kernel) for folder, each in manifests.items() for kernel in each.kernels]
    problems = [where + problem for where, kernel in named for problem in kernel.problems]
    spills = [where + warning for where, kernel in named for warning in kernel.warnings]
    if no_spills:
        problems, spills = [*problems, *spills], []
    for spill in spills:
        click.echo(f"warning: {spill}", err=True)
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    click.get_current_context().exit(1 if problems else 0)


def _kernels_table(manifest: Manifest) -> str:
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
    return table(head, rows)


def _proof(gradients: bool, compilation: Compilation, of: str = "") -> Proof:
    """Raises SparsecError unless every claim is proved, with what they are claims `of`."""
    claims = claims_about(compilation, gradients=gradients)
    failed = tuple(claim for claim in claims if claim.status != "proved")
    if failed:
        count = f"{len(failed)} of {len(claims)} that are not"
        raise SparsecError(
            f"expected every claim{of} to be proved, got {count}; nothing was written\n\n{claims_text(failed)}"
        )
    from sparsec.prove import solver_version
    from sparsec.runtime.build.manifest import ClaimRecord, Proof

    records = (ClaimRecord(claim.name, claim.about, claim.status, claim.seconds) for claim in claims)
    return Proof(f"z3 {solver_version()}", tuple(records))


def _proof_of_kind(gradients: bool, kind: LayerKind, compilation: Compilation) -> Proof:
    return _proof(gradients, compilation, f" of {kind}")


def _about_cache(pattern: Pattern, counts: ResolvedPattern) -> str:
    """What a KV cache keeps for want of a closed form, or why there is none; empty if there is nothing to say."""
    try:
        found = pattern.cache_warnings(counts.heads, counts.kv_heads)
    except DiagnosticError as error:
        return f"note: {error.diagnostics[0].message}"
    return render_text(found, color=sys.stderr.isatty()) if found else ""

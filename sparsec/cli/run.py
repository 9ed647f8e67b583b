"""`sparsec run`: compile a pattern for this machine, run it, compare it with dense attention, time baselines."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparsec.bench.baseline_names import DENSE, USUAL, USUAL_WITH_INPUTS, baseline_label
from sparsec.bench.forward import Measurement, coverage_of, measure
from sparsec.cli.inputs import InputSources, inputs_option
from sparsec.cli.options import (
    choose,
    file_argument,
    kernel_options,
    open_program,
    pattern_options,
    resolved,
    seq_len_option,
)
from sparsec.diagnostics.progress import progress
from sparsec.diagnostics.tables import count, duration, percent, table
from sparsec.pictures.drawing import LONGEST, Drawing, picture_view
from sparsec.pictures.text import shades_for, text_picture
from sparsec.sema.shapes import Sizes

if TYPE_CHECKING:
    from sparsec.bench.baselines import Comparison

REPEATS = 5
PICTURES = 2


@click.command()
@file_argument
@pattern_options
@kernel_options
@seq_len_option(LONGEST, 8192)
@click.option("--device", help="cpu, cuda or cuda:1; the GPU if left out and there is one.")
@inputs_option
@click.option("--no-flex", is_flag=True, help="Leave FlexAttention out: its compilation takes 10 to 30 seconds.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def run(
    file: Path,
    name: str | None,
    settings: tuple[str, ...],
    heads: int | None,
    kv_heads: int | None,
    head_dim: int,
    dtype: str,
    seq_len: int,
    device: str | None,
    sources: InputSources,
    no_flex: bool,
    form: str,
) -> None:
    """Compile a pattern for this machine and run it on N random tokens.

    Prints its tiles, its error against float64, and its time beside dense attention and FlexAttention. Exits with 1 if
    the error exceeds the tolerance.

    Example: sparsec run examples/s2.sparse --seq-len 8192 --set every=8b
    """
    pattern = choose(open_program(file), name, settings, or_first=True)
    found = resolved(pattern, heads, kv_heads)
    sources.check(found)
    with progress() as report:
        report("importing torch")
        from sparsec.bench.baselines import make_case, simplifications

        case = make_case(found, 1, seq_len, head_dim, dtype, device)
        if found.inputs:
            report("drawing the inputs")
            sizes = Sizes(1, found.heads, found.kv_heads, seq_len, seq_len, seq_len, 0)
            case = replace(case, given=sources.tensors(found, sizes, case.device))
        report(f"compiling {pattern.name}")
        started = time.perf_counter()
        attn = case.compiled(pattern)
        compiled = time.perf_counter() - started
    usual = USUAL_WITH_INPUTS if found.inputs else USUAL
    against = [name for name in usual if name != "flex" or not no_flex]
    simpler = simplifications(found, against)
    lowered, width = pattern.lowered(found.heads, found.kv_heads), shutil.get_terminal_size().columns
    drawn = Drawing(pattern.name, lowered, picture_view(seq_len))
    if form == "text":
        click.echo(
            f"{pattern.name}: {count(seq_len, 'token')}, {count(found.heads, 'head')} on "
            f"{count(found.kv_heads, 'KV head')}, head dim {head_dim}, {dtype} on {case.device}; "
            f"target {attn.target}, compiled in {duration(compiled)}\n"
        )
        for line in (*((sources.described(found),) if found.inputs else ()), *simpler):
            click.echo(f"{line}\n")
    with progress() as report:
        report("counting live pairs")
        covered = coverage_of(case, drawn.text_cells(width))
    if form == "text":
        click.echo(text_picture(covered, drawn.view, width, shades_for(sys.stdout.encoding), limit=PICTURES))
    with progress() as report:
        measured = measure(attn, case, against, repeats=REPEATS, report=report, check=True, found=covered)
    assert measured.comparison is not None, "the comparison was asked for"
    if form == "json":
        setting = {
            "pattern": pattern.name,
            "target": attn.target,
            "device": str(case.device),
            "dtype": dtype,
            "heads": found.heads,
            "kv_heads": found.kv_heads,
            "head_dim": head_dim,
            "compile_s": compiled,
            **({"inputs": sources.described(found).removeprefix("inputs ")} if found.inputs else {}),
            "simplifications": simpler,
            "error": measured.comparison.as_dict(),
            **measured.as_dict(),
        }
        click.echo(json.dumps(setting, indent=2))
    else:
        click.echo(f"\n{_verdict(measured.comparison)}\n")
        click.echo(_times(measured))
    click.get_current_context().exit(0 if measured.comparison.passed else 1)


def _verdict(comparison: Comparison) -> str:
    ours, plain, allowed = comparison.ours, comparison.plain, comparison.allowed
    return (
        f"error against float64 on {comparison.rows} rows of each head: largest {ours.largest:.2g}, mean "
        f"{ours.mean:.2g}\nplain PyTorch on the same rows: largest {plain.largest:.2g}, mean {plain.mean:.2g}; "
        f"allowed: {allowed.largest:.2g} and {allowed.mean:.2g}: {'passed' if comparison.passed else 'FAILED'}"
    )


def _times(measured: Measurement) -> str:
    rows = [("sparsec", duration(measured.seconds), "")]
    for name, seconds in measured.baselines.items():
        label = baseline_label(name) + (" causal" if name in DENSE and measured.causal else "")
        rows.append((label, duration(seconds), f"{seconds / measured.seconds:.2f}x"))
    lines = [table(("", "time", "sparsec is faster by"), rows), ""]
    if measured.achieved is not None:
        lines.append(
            f"ideal speed-up over dense {measured.ideal:.2f}x, achieved over ideal {measured.achieved:.2f}; useful "
            f"GFLOP/s {measured.gflops:.0f}, {percent(measured.gflops / measured.sgemm_gflops)} of torch.mm"
        )
    if measured.flex_compile_seconds is not None:
        lines.append(f"compiling FlexAttention took {duration(measured.flex_compile_seconds)}, not counted above")
    if measured.flex_mask_seconds is not None:
        lines.append(f"making its BlockMask, at each call, takes {duration(measured.flex_mask_seconds)} more")
    for name, reason in measured.absent.items():
        lines.append(f"{baseline_label(name)} did not run: {reason}")
    return "\n".join(lines)

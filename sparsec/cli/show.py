"""`sparsec show`: a picture of the tiles of each distinct head at one length."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from sparsec.analysis.coverage import HeadCoverage, dense_pairs, pattern_coverage
from sparsec.cli.inputs import InputSources, inputs_option
from sparsec.cli.options import choose, file_argument, open_program, pattern_options, resolved
from sparsec.cli.picture import draw, shades_for
from sparsec.cli.picture_svg import draw_html, draw_svg
from sparsec.diagnostics.progress import progress
from sparsec.diagnostics.tables import count, percent
from sparsec.pipeline import Lowered
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.shapes import Sizes

LENGTH_LIMIT = 1 << 26


@click.command()
@file_argument
@pattern_options
@click.option("--head", type=click.IntRange(0), help="Only the picture of this query head.")
@click.option("--seq-len", type=click.IntRange(1, LENGTH_LIMIT), default=8192, show_default=True, metavar="N")
@inputs_option
@click.option("--format", "form", type=click.Choice(["text", "svg", "html"]), default="text", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
def show(
    file: Path,
    name: str | None,
    settings: tuple[str, ...],
    heads: int | None,
    kv_heads: int | None,
    head: int | None,
    seq_len: int,
    sources: InputSources,
    form: str,
    output: Path | None,
) -> None:
    """Draw which tiles each head computes for N queries on N keys.

    Heads that share a picture are drawn once. A pattern with inputs is drawn with what --inputs gives.

    Example: sparsec show examples/s2.sparse --seq-len 16384 --head 0
    """
    pattern = choose(open_program(file), name, settings, or_first=True)
    found = resolved(pattern, heads, kv_heads)
    if head is not None and head >= found.heads:
        raise click.BadParameter(f"expected a head below {found.heads}, got {head}", param_hint="'--head'")
    sources.check(found)
    title = f"{pattern.name}: {count(seq_len, 'query', 'queries')}, {count(seq_len, 'key')}"
    if found.inputs:
        title += f", {sources.described(found)}"
    cells = cells_for(found, only=head) if form == "text" else (128, 128)
    covered = _covered(pattern.lowered(found.heads, found.kv_heads), sources, seq_len, cells, head)
    if form == "text":
        text = f"{title}\n\n{pictures(covered, seq_len)}\n"
    else:
        text = (draw_svg if form == "svg" else draw_html)(covered, title)
    if output is not None:
        output.write_text(text, encoding="utf-8")
    else:
        click.echo(text, nl=False)


def _covered(
    lowered: Lowered, sources: InputSources, length: int, cells: tuple[int, int], only: int | None
) -> tuple[HeadCoverage, ...]:
    """What is live, with inputs if the pattern has some."""
    pattern = lowered.pattern
    if not pattern.inputs:
        return pattern_coverage(lowered, length, cells, only=only)
    with progress() as report:
        report("drawing the inputs")
        from sparsec.bench.live import given_coverage

        sizes = Sizes(None, pattern.heads, pattern.kv_heads, length, length, length, 0)
        given = sources.tensors(pattern, sizes, "cpu")
        report("counting live pairs")
        return given_coverage(pattern, given, length, cells, only=only)


def cells_for(pattern: ResolvedPattern, *, only: int | None = None) -> tuple[int, int]:
    """The rows and columns of a picture in text."""
    distinct = len(set(pattern.terms)) if only is None else 1
    if distinct == 1 and only is None and pattern.inputs:
        distinct = pattern.kv_heads
    # A character is about twice as high as it is wide.
    return (32, 64) if distinct == 1 and shutil.get_terminal_size().columns >= 64 else (16, 32)


def pictures(found: tuple[HeadCoverage, ...], length: int, *, limit: int | None = None) -> str:
    """Pictures, legend and live fractions; `limit`: at most so many pictures."""
    width = shutil.get_terminal_size().columns
    parts = [draw(found[:limit], width, shades_for(sys.stdout.encoding))]
    if limit is not None and len(found) > limit:
        parts.append(f"{len(found) - limit} more distinct heads: sparsec show draws them all")
    return "\n".join([*parts, live_line(found, length)])


def live_line(found: tuple[HeadCoverage, ...], length: int) -> str:
    """`live: 12.5% of the causal pairs`, the mean over the heads."""
    fraction, dense = live_fraction(found, length)
    about = "" if all(head.exact for head in found) else "about "
    return f"live: {about}{percent(fraction)} of {dense}"


def live_fraction(found: tuple[HeadCoverage, ...], length: int) -> tuple[float, str]:
    """The share of live pairs, and what of: the causal pairs if no head looks ahead, else all pairs."""
    dense, causal = dense_pairs(found, length)
    return sum(len(head.heads) * head.live_pairs for head in found) / dense, of_pairs(causal)


def of_pairs(causal: bool) -> str:
    """The pairs that a share is of."""
    return "the causal pairs" if causal else "all pairs"

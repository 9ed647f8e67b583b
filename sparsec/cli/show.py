"""`sparsec show`: a picture of the tiles of each distinct head at one length."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from sparsec.analysis.coverage import HeadCoverage, dense_pairs, pattern_coverage
from sparsec.cli.options import choose, complete, file_argument, open_program, pattern_options
from sparsec.cli.picture import draw, shades_for
from sparsec.cli.picture_svg import draw_html, draw_svg
from sparsec.diagnostics.tables import count, percent
from sparsec.pipeline import Lowered

LENGTH_LIMIT = 1 << 26


@click.command()
@file_argument
@pattern_options
@click.option("--head", type=click.IntRange(0), help="Only the picture of this query head.")
@click.option("--seq-len", type=click.IntRange(1, LENGTH_LIMIT), default=8192, show_default=True, metavar="N")
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
    form: str,
    output: Path | None,
) -> None:
    """Draw which tiles each head computes for N queries on N keys.

    Heads that share a picture are drawn once.

    Example: sparsec show examples/s2.sparse --seq-len 16384 --head 0
    """
    pattern = choose(open_program(file), name, settings, or_first=True)
    found = complete(pattern, heads, kv_heads)
    if head is not None and head >= found.heads:
        raise click.BadParameter(f"expected a head below {found.heads}, got {head}", param_hint="'--head'")
    lowered = pattern.lowered(found.heads, found.kv_heads)
    title = f"{pattern.name}: {count(seq_len, 'query', 'queries')}, {count(seq_len, 'key')}"
    if form == "text":
        text = f"{title}\n\n{pictures(lowered, seq_len, only=head)}\n"
    else:
        text = (draw_svg if form == "svg" else draw_html)(
            pattern_coverage(lowered, seq_len, (128, 128), only=head), title
        )
    if output is not None:
        output.write_text(text, encoding="utf-8")
    else:
        click.echo(text, nl=False)


def pictures(lowered: Lowered, length: int, *, only: int | None = None, limit: int | None = None) -> str:
    """Pictures, legend and live fractions; `limit`: at most so many pictures."""
    width = shutil.get_terminal_size().columns
    distinct = len(set(lowered.pattern.terms)) if only is None else 1
    # A character is about twice as high as it is wide.
    cells = (32, 64) if distinct == 1 and width >= 64 else (16, 32)
    found = pattern_coverage(lowered, length, cells, only=only)
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

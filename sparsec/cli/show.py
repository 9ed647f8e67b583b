"""`sparsec show`: a picture of the pairs of each distinct head, of a model's layers, or of what a KV cache keeps."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import click

from sparsec.analysis.coverage import HeadCoverage, View
from sparsec.cli.inputs import InputSources, inputs_option
from sparsec.cli.kinds import check_layers_option
from sparsec.cli.options import (
    choose,
    file_argument,
    model_option,
    open_program,
    parsed,
    pattern_options,
    resolved,
    seq_len_option,
)
from sparsec.diagnostics.model import CallError
from sparsec.diagnostics.progress import progress
from sparsec.diagnostics.whole_file import write_whole
from sparsec.pictures.caches import CacheDrawing
from sparsec.pictures.drawing import DOCUMENTS, LONGEST, Cells, Drawing, picture_view
from sparsec.pictures.layers import ModelDrawing, model_drawing
from sparsec.pictures.notebook import SEQ_LEN
from sparsec.pictures.text import shades_for
from sparsec.program import Model, Pattern
from sparsec.sema.model import Documents, ResolvedPattern
from sparsec.sema.shapes import Sizes

FORMS = ("text", "svg", "html", "json")


@click.command()
@file_argument
@pattern_options
@model_option("Draw the layers of this model of the file, not a pattern.")
@click.option("--cache", is_flag=True, help="Draw what the KV cache of each group keeps as a sequence grows.")
@click.option("--head", type=click.IntRange(0), help="Only the picture of this query head.")
@seq_len_option(LONGEST, SEQ_LEN)
@click.option("--q-offset", type=click.IntRange(-LONGEST, LONGEST), help="The position of the first query.")
@click.option("--queries", type=click.IntRange(1, LONGEST), help="How many queries; N, or up to the last key.")
@click.option("--rows", metavar="A..B", help="Only these queries, by position; negative ones count from the end.")
@click.option("--columns", metavar="A..B", help="Only these keys, likewise.")
@click.option("--documents", metavar="N,N,...", help="The lengths of packed documents, for `documents`; N in all.")
@inputs_option
@click.option("--format", "form", type=click.Choice(FORMS), default="text", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
def show(
    file: Path,
    name: str | None,
    settings: tuple[str, ...],
    heads: int | None,
    kv_heads: int | None,
    model: str | None,
    layers: int | None,
    cache: bool,
    head: int | None,
    seq_len: int,
    q_offset: int | None,
    queries: int | None,
    rows: str | None,
    columns: str | None,
    documents: str | None,
    sources: InputSources,
    form: str,
    output: Path | None,
) -> None:
    """Draw which pairs each head computes for N queries on N keys.

    Shades say how many pairs of a cell are live. Heads that share a picture are drawn once. A pattern with inputs is
    drawn with what --inputs gives. In a page of --format html, the head, the length and the place can be changed.

    Example: sparsec show examples/s2.sparse --seq-len 16384 --head 0
    """
    program = open_program(file)
    of_pairs = (name, head, q_offset, queries, rows, columns, documents, sources.given or None, cache or None)
    check_layers_option(model, layers)
    if model is not None:
        if any(option is not None for option in of_pairs):
            raise click.UsageError(
                "expected --model with --layers, --seq-len, --heads, --kv-heads, --set and --format alone"
            )
        _write(
            _of_model(program.model(model, layers=layers, **parsed(settings)), heads, kv_heads, seq_len), form, output
        )
        return
    pattern = choose(program, name, settings, or_first=True)
    found = resolved(pattern, heads, kv_heads)
    if cache:
        if any(option is not None for option in of_pairs[1:-1]):
            raise click.UsageError("expected --cache without options of queries and heads, got some")
        layout = pattern.cache_layout(found.heads, found.kv_heads)
        _write(CacheDrawing(pattern.name, layout, seq_len), form, output)
        return
    if head is not None and head >= found.heads:
        raise click.BadParameter(f"expected a head below {found.heads}, got {head}", param_hint="'--head'")
    sources.check(found)
    view = picture_view(
        seq_len,
        queries=queries,
        q_offset=q_offset,
        documents=_bounds(documents, found, seq_len),
        restart=found.documents is Documents.RESTART,
    )
    view = replace(
        view,
        rows=_range("--rows", rows, view.rows, seq_len),
        columns=_range("--columns", columns, view.columns, seq_len),
    )
    _write(_drawing(pattern, found, view, head, sources), form, output)


def _drawing(pattern: Pattern, found: ResolvedPattern, view: View, head: int | None, sources: InputSources) -> Drawing:
    lowered = pattern.lowered(found.heads, found.kv_heads)
    if not found.inputs:
        return Drawing(pattern.name, lowered, view, head)
    length = view.keys
    if not 0 <= view.rows[0] < view.rows[1] <= length:
        raise CallError(f"expected queries within the {length} keys, since the inputs are those of a whole call")
    with progress() as report:
        report("drawing the inputs")
        sizes = Sizes(None, found.heads, found.kv_heads, length, length, length, 0)
        given = sources.tensors(found, sizes, "cpu")

    def coverage(cells: Cells) -> tuple[HeadCoverage, ...]:
        from sparsec.pictures.given import given_coverage

        with progress() as report:
            report("counting live pairs")
            return given_coverage(found, given, length, cells, only=head, view=view)

    return Drawing(pattern.name, lowered, view, head, coverage, sources.described(found))


def _of_model(model: Model, heads: int | None, kv_heads: int | None, keys: int) -> ModelDrawing:
    layers = [model.layer(layer) for layer in range(len(model))]
    found = {layer: resolved(layer, heads, kv_heads) for layer in dict.fromkeys(layers)}
    lowered = {layer: layer.lowered(of.heads, of.kv_heads) for layer, of in found.items()}
    return model_drawing(model.name, [(layer.name, lowered[layer]) for layer in layers], keys)


def _write(drawn: Drawing | ModelDrawing | CacheDrawing, form: str, output: Path | None) -> None:
    with progress() as report:
        report("counting live pairs")
        if isinstance(drawn, ModelDrawing):
            drawn = replace(drawn, told=report)
        if form == "text":
            encoding = "utf-8" if output is not None else sys.stdout.encoding
            text = drawn.text(shutil.get_terminal_size().columns, shades_for(encoding))
        else:
            text = {"svg": drawn.svg, "html": drawn.html, "json": drawn.json}[form]()
    if output is not None:
        write_whole(output, text.encode())
    else:
        click.echo(text, nl=form == "json")


def _range(option: str, text: str | None, default: tuple[int, int], keys: int) -> tuple[int, int]:
    """`A..B`, `A..`, `..B` or `A`: positions, half-open; negative ones count back from the end of the keys."""
    if text is None:
        return default
    start, dots, stop = (part.strip() for part in text.partition(".."))
    try:
        first = default[0] if dots and not start else _at(start, keys)
        last = first + 1 if not dots else default[1] if not stop else _at(stop, keys)
    except ValueError:
        raise click.BadParameter(f"expected A..B, got {text!r:.80}", param_hint=f"'{option}'") from None
    if not default[0] <= first < last <= default[1]:
        raise click.BadParameter(
            f"expected a range within {default[0]}..{default[1]} that is not empty, got {text!r:.80}",
            param_hint=f"'{option}'",
        )
    return first, last


def _at(text: str, keys: int) -> int:
    number = int(text[:-1]) * 1024 if text.endswith("k") else int(text)
    return number + keys if number < 0 else number


def _bounds(text: str | None, pattern: ResolvedPattern, keys: int) -> tuple[int, ...]:
    """The bounds of packed documents of these lengths."""
    if text is None:
        return ()
    if pattern.documents is Documents.NONE:
        raise click.UsageError("expected no --documents, since the pattern packs none")
    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1 or sum(lengths) != keys or len(lengths) > DOCUMENTS:
        raise click.BadParameter(
            f"expected the lengths of at most {DOCUMENTS} documents, {keys} tokens in all, got {text!r:.80}",
            param_hint="'--documents'",
        )
    return tuple(accumulate(lengths, initial=0))

"""`sparsec explain`: what a pattern, several, or a model's layers compute and keep in the KV cache, against dense
attention."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import click

from sparsec.analysis.cost import Geometry
from sparsec.analysis.report import Part, Report, report
from sparsec.analysis.report_text import report_text, side_by_side_text
from sparsec.cli.options import (
    choose,
    dtype_option,
    file_argument,
    head_options,
    model_option,
    open_program,
    parsed,
    resolved,
    seq_len_option,
    value_dim_option,
)
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.diagnostics.progress import progress
from sparsec.diagnostics.tables import count
from sparsec.distributed.report import ModelTraffic, model_traffic
from sparsec.pictures.drawing import LONGEST
from sparsec.program import Model, Pattern
from sparsec.sema.model import ResolvedPattern


@click.command()
@file_argument
@click.option(
    "--pattern", "names", multiple=True, metavar="NAME", help="Which pattern of the file; several stand side by side."
)
@head_options
@model_option("Which model of the file; its only one if neither is named.")
@seq_len_option(LONGEST, 131_072)
@click.option("--head-dim", type=click.IntRange(1, 1024), default=128, show_default=True)
@value_dim_option
@dtype_option("bfloat16")
@click.option("--ranks", type=click.IntRange(1, 65_536), metavar="R", help="Ranks that hold the sequence together.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain(
    file: Path,
    names: tuple[str, ...],
    settings: tuple[str, ...],
    heads: int | None,
    kv_heads: int | None,
    model: str | None,
    layers: int | None,
    seq_len: int,
    head_dim: int,
    value_dim: int | None,
    dtype: str,
    ranks: int | None,
    form: str,
) -> None:
    """State what a pattern costs at N tokens: pairs, flops, and the KV cache by group and in all; with --ranks also the
    keys that travel between ranks that hold a sequence together.

    Example: sparsec explain examples/longgen.sparse --seq-len 131072
    """
    program = open_program(file)
    if model is not None and names:
        raise click.UsageError("expected --pattern or --model, got both")
    if layers is not None and names:
        raise click.UsageError("expected --layers with a model, got a pattern")
    if len(set(names)) < len(names):
        raise click.UsageError(f"expected each pattern once, got {', '.join(names)}")
    if model is not None or layers is not None or (not names and len(program.models) == 1):
        subjects = [_of_model(program.model(model, layers=layers, **parsed(settings)), heads, kv_heads)]
    else:
        chosen = [choose(program, name, settings, or_first=True) for name in names or (None,)]
        subjects = [_of_pattern(pattern, heads, kv_heads) for pattern in chosen]
    counts = {(part.lowered.pattern.heads, part.lowered.pattern.kv_heads) for _, parts in subjects for part in parts}
    if len(counts) > 1:
        what = "patterns" if len(subjects) > 1 else "layers"
        raise CallError(f"expected {what} of equal head counts, got {sorted(counts)}")
    at = Geometry(*counts.pop(), head_dim, head_dim if value_dim is None else value_dim, dtype)
    explained = []
    with progress() as told:
        for title, parts in subjects:
            found = report(parts, at, seq_len, told)
            travels = None if ranks is None else model_traffic(parts, found.parts, at, seq_len, ranks, told)
            explained.append(Explained(title, found, travels))
    if form == "json":
        data = [as_data(each) for each in explained]
        click.echo(json.dumps(data[0] if len(data) == 1 else {"patterns": data}, indent=2))
    else:
        click.echo(as_text(explained))


class Explained(NamedTuple):
    """A pattern or a model, its report, and what travels between ranks if there are some."""

    title: str
    found: Report
    travels: ModelTraffic | None


def _of_pattern(pattern: Pattern, heads: int | None, kv_heads: int | None) -> tuple[str, list[Part]]:
    return f"pattern {pattern.name}", [_part(pattern, (0,), resolved(pattern, heads, kv_heads))]


def _of_model(model: Model, heads: int | None, kv_heads: int | None) -> tuple[str, list[Part]]:
    kinds = model.kinds(lambda pattern: resolved(pattern, heads, kv_heads))
    parts = [_part(kind.pattern, kind.layers, kind.meaning) for kind in kinds]
    return f"model {model.name}, {len(model)} layers", parts


def _part(pattern: Pattern, layers: tuple[int, ...], found: ResolvedPattern) -> Part:
    try:
        layout = pattern.cache_layout(found.heads, found.kv_heads)
    except DiagnosticError:
        layout = None  # a pattern that no cache serves still has a cost
    return Part(pattern.name, layers, pattern.lowered(found.heads, found.kv_heads), layout)


def as_data(of: Explained) -> dict[str, object]:
    """For JSON: the report, with its ratios; bytes and flops as numbers."""
    data = {"of": of.title, **asdict(of.found), "live_share": of.found.live_share}
    if of.travels is not None:
        data["ranks"] = of.travels.as_list()
    for shown, each in zip(data["prices"], of.found.prices, strict=True):
        shown["saved"] = each.saved
    return data


def as_text(explained: Sequence[Explained]) -> str:
    (title, found, _), several = explained[0], len(explained) > 1
    if several:
        title = f"patterns {', '.join(each.found.parts[0].name for each in explained)}"
    at = found.geometry
    values = "" if at.value_dim == at.head_dim else f", value dim {at.value_dim}"
    lines = [
        f"{title}: {at.heads} query heads on {at.kv_heads} KV heads, head dim {at.head_dim}{values}, {at.dtype}, "
        f"{count(found.tokens, 'token')}",
        "",
        side_by_side_text([each.found for each in explained]) if several else report_text(found),
    ]
    for each in explained:
        if each.travels is not None:
            lines += ["", *([each.title] if several else []), str(each.travels)]
    return "\n".join(lines)

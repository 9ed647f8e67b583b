"""`sparsec explain`: what a pattern, or a model's layers, compute and keep in the KV cache, against dense attention."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from sparsec.analysis.cost import Geometry
from sparsec.analysis.report import Part, Report, report
from sparsec.analysis.report_text import report_text
from sparsec.cli.options import (
    choose,
    dtype_option,
    file_argument,
    model_option,
    open_program,
    parsed,
    pattern_options,
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
@pattern_options
@model_option("Which model of the file; its only one if neither is named.")
@seq_len_option(LONGEST, 131_072)
@click.option("--head-dim", type=click.IntRange(1, 1024), default=128, show_default=True)
@value_dim_option
@dtype_option("bfloat16")
@click.option("--ranks", type=click.IntRange(1, 65_536), metavar="R", help="Ranks that hold the sequence together.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain(
    file: Path,
    name: str | None,
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
    if model is not None and name is not None:
        raise click.UsageError("expected --pattern or --model, got both")
    if layers is not None and name is not None:
        raise click.UsageError("expected --layers with a model, got a pattern")
    if model is not None or layers is not None or (name is None and len(program.models) == 1):
        title, parts = _of_model(program.model(model, layers=layers, **parsed(settings)), heads, kv_heads)
    else:
        title, parts = _of_pattern(choose(program, name, settings, or_first=True), heads, kv_heads)
    counts = {(part.lowered.pattern.heads, part.lowered.pattern.kv_heads) for part in parts}
    if len(counts) > 1:
        raise CallError(f"expected layers of equal head counts, got {sorted(counts)}")
    at = Geometry(*counts.pop(), head_dim, head_dim if value_dim is None else value_dim, dtype)
    with progress() as told:
        found = report(parts, at, seq_len, told)
        travels = None if ranks is None else model_traffic(parts, found.parts, at, seq_len, ranks, told)
    click.echo(as_json(title, found, travels) if form == "json" else as_text(title, found, travels))


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


def as_json(title: str, found: Report, travels: ModelTraffic | None = None) -> str:
    """The report, with its ratios; bytes and flops as numbers."""
    data = {"of": title, **asdict(found), "live_share": found.live_share}
    if travels is not None:
        data["ranks"] = travels.as_list()
    for shown, each in zip(data["prices"], found.prices, strict=True):
        shown["saved"] = each.saved
    return json.dumps(data, indent=2)


def as_text(title: str, found: Report, travels: ModelTraffic | None = None) -> str:
    at = found.geometry
    values = "" if at.value_dim == at.head_dim else f", value dim {at.value_dim}"
    lines = [
        f"{title}: {at.heads} query heads on {at.kv_heads} KV heads, head dim {at.head_dim}{values}, {at.dtype}, "
        f"{count(found.tokens, 'token')}",
        "",
        report_text(found),
    ]
    return "\n".join([*lines, *([] if travels is None else ["", str(travels)])])

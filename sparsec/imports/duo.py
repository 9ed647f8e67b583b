"""DuoAttention's table of scores -> a model: which KV groups of which layer see everything.

A line is a layer, its scores are those of the KV groups, tabs in between. Scores are cut off to 0..1; blank lines are
skipped. Invariant: which groups retrieve depends on the scores and the sparsity alone. Of equal scores, those of the
lower layer rank higher, then those of the lower group.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from sparsec.diagnostics import codes_tables as codes
from sparsec.diagnostics.codes_text import quoted
from sparsec.diagnostics.model import CallError, DiagnosticError
from sparsec.diagnostics.source import SourceFile, Span
from sparsec.imports.table import base_name, standard_text
from sparsec.sema.arms import alike, layer_arms
from sparsec.sema.node import MAX_HEADS, MAX_LAYERS
from sparsec.sema.printer import head_ranges
from sparsec.syntax.lexer import ProblemReport

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)

Scores = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Streaming:
    """What the groups that do not retrieve see: the first `sink` tokens and the latest `recent`."""

    sink: int
    recent: int


def read_scores(source: SourceFile) -> Scores:
    """The scores by layer and group. Raises DiagnosticError with every problem of the table."""
    report = ProblemReport()
    layers: list[tuple[float, ...]] = []
    for start, line in _lines(source.text):
        if report.hidden:  # of so many problems the rest is not counted
            break
        if len(layers) == MAX_LAYERS:
            where = f"the first layer is line 1, this is layer {MAX_LAYERS + 1}"
            report.add(codes.TOO_MANY.at(source, _whole(start, line), limit=MAX_LAYERS, what="layers", where=where))
            break
        expected = len(layers[0]) if layers else None
        layers.append(tuple(_scores(source, start, line, expected, report)))
    if not layers:
        hint = "write a line for each layer: a score for each KV group, with tabs in between"
        report.add(codes.EMPTY_TABLE.at(source, Span(0, 0), expected=hint))
    if report.found:
        raise DiagnosticError(report.close(source))
    return tuple(layers)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Where each line that is not blank starts, and the line."""
    start = 0
    for line in text.split("\n"):
        if line.strip():
            yield start, line.rstrip()
        start += len(line) + 1


def _whole(start: int, line: str) -> Span:
    return Span(start, start + len(line))


def _scores(source: SourceFile, start: int, line: str, expected: int | None, report: ProblemReport) -> Iterator[float]:
    fields = line.split("\t")
    if expected is not None and len(fields) != expected:
        facts = {"expected": expected, "what": "KV groups", "count": len(fields)}
        extra = len("\t".join(fields[:expected])) + 1
        at = Span(start + min(extra, len(line)), start + len(line))
        report.add(codes.UNEVEN_LAYER.of(source, at, facts))
    elif len(fields) > MAX_HEADS:
        at, where = _whole(start, line), "a line is a layer, and its scores are those of the KV groups"
        report.add(codes.TOO_MANY.at(source, at, limit=MAX_HEADS, what="KV groups", where=where))
        return
    for field in fields:
        text = field.strip()
        if _NUMBER.fullmatch(text):
            yield min(max(float(text), 0.0), 1.0)
        else:
            first = start + len(field) - len(field.lstrip()) if text else start
            found = quoted(text) if text else "nothing"
            report.add(codes.NOT_A_SCORE.at(source, Span(first, first + len(text)), found=found))
            yield 0.0
        start += len(field) + 1


def retrieving(scores: Scores, sparsity: Fraction) -> tuple[tuple[int, ...], ...]:
    """For each layer the groups that retrieve: those of a score not below the quantile `sparsity` of all scores.

    Of n scores in order, those before place `sparsity * (n - 1)` stream; with a sparsity of 1 all do.
    """
    ranked = sorted(
        (score, -layer, -group) for layer, groups in enumerate(scores) for group, score in enumerate(groups)
    )
    streaming = len(ranked) if sparsity == 1 else math.ceil(sparsity * (len(ranked) - 1))
    kept: list[list[int]] = [[] for _ in scores]
    for _, layer, group in ranked[streaming:]:
        kept[-layer].append(-group)
    return tuple(tuple(sorted(groups)) for groups in kept)


def duo_model(source: SourceFile, sparsity: Fraction, streaming: Streaming, heads: int | None) -> tuple[str, str]:
    """The text of the model, and a line about it.

    Raises DiagnosticError for a bad table, CallError for `heads` that its KV groups do not divide.
    """
    scores = read_scores(source)
    groups = len(scores[0])
    if heads is not None and heads % groups:
        raise CallError(f"expected heads that split into the {groups} KV groups of the table, got {heads}")
    kept = retrieving(scores, sparsity)
    said = _summary(scores, kept)
    counts = [] if heads is None else [f"    heads {heads} kv {groups}"]
    sets = alike(kept)
    some = {each: layers for each, layers in sets.items() if 0 < len(each) < groups}
    stream, everything = "sink(first) | window(latest)", "full"
    lines = [
        f"# DuoAttention (arXiv 2410.10819), from {base_name(source)}: {len(scores)} layers of {groups} KV groups.",
        f"# {said}.",
    ]
    lines += ["", f"param first = {streaming.sink}", f"param latest = {streaming.recent}", ""]
    if some:
        default = max(some, key=lambda each: len(some[each]))
        lines += [
            "# The KV groups `groups` see everything, the others the first and the latest tokens.",
            f"pattern retrieval(groups = [{head_ranges(default)}]) {{",
            *counts,
            "    causal",
            f"    where g in groups attend {everything}",
            f"    otherwise attend {stream}",
            "}",
            "",
        ]
    for name, whole, attended in (("streaming", (), stream), ("everything", tuple(range(groups)), everything)):
        if whole in sets:
            lines += [f"pattern {name} {{", *counts, "    causal", f"    attend {attended}", "}", ""]
    uses = {_used(each, groups): layers for each, layers in sets.items()}
    lines += ["model duo {", f"    layers {len(scores)}", *layer_arms(uses), "}", ""]
    return standard_text(source, "\n".join(lines)), said


def _used(kept: tuple[int, ...], groups: int) -> str:
    if not kept:
        return "streaming"
    return "everything" if len(kept) == groups else f"retrieval(groups = [{head_ranges(kept)}])"


def _summary(scores: Scores, kept: tuple[tuple[int, ...], ...]) -> str:
    total, full = sum(map(len, scores)), sum(map(len, kept))
    least = min((scores[layer][group] for layer, groups in enumerate(kept) for group in groups), default=None)
    scored = "" if least is None else f", with scores from {least:.6g}"
    return (
        f"{full} of the {total} KV groups see everything{scored}; {total - full} ({(total - full) / total:.1%}) stream"
    )

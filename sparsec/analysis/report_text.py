"""A cost report -> tables for a terminal: what is computed, what the KV caches keep, and their bytes.

Invariant: nothing is computed here but ratios and units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsec.analysis.cost import CachePrice
from sparsec.analysis.coverage import of_pairs
from sparsec.diagnostics.tables import in_memory, percent, table
from sparsec.sema.printer import head_ranges

if TYPE_CHECKING:
    from sparsec.analysis.report import PartReport, Report

_COMPUTED = ("pattern", "layers", "live pairs", "ideal speed-up", "forward, one layer")


def report_text(found: Report) -> str:
    """The tables of a report, without a title."""
    rows = [_share(part) for part in found.parts]
    if len(rows) > 1:
        rows.append(["all", str(found.layers), percent(found.live_share), f"{1 / found.live_share:.3g}x", ""])
    lines = [table(_COMPUTED, rows), *(line for part in found.parts for line in _kept(part))]
    if found.prices:
        lines += ["", f"KV cache, {_count(found.layers)}", _prices(found.prices)]
    return "\n".join(lines)


def side_by_side_text(found: Sequence[Report]) -> str:
    """The tables of several reports, each of one pattern and of as many tokens and heads, without a title."""
    parts = [part for each in found for part in each.parts]
    lines = [table(_COMPUTED, [_share(part) for part in parts]), *(line for part in parts for line in _kept(part))]
    priced = {part.name: each.prices for part, each in zip(parts, found, strict=True) if each.prices}
    if priced:
        rows = [
            [
                str(of_length[0].tokens),
                *(in_memory(each.bytes) for each in of_length),
                in_memory(of_length[0].dense_bytes),
            ]
            for of_length in zip(*priced.values(), strict=True)
        ]
        lines += ["", "KV cache, one layer", table(["tokens", *priced, "dense"], rows)]
    return "\n".join(lines)


def _kept(part: PartReport) -> list[str]:
    """What the cache of one layer keeps."""
    if part.cache is None:
        return ["", f"{part.name} has no KV cache: it is not causal, packs documents, or has too many bands."]
    groups = [
        [head_ranges(group.groups), "; ".join(group.keeps) or "nothing", f"{group.slots}"] for group in part.groups
    ]
    kept = table(["KV groups", "keep", "slots"], groups)
    grows = [f"The cache keeps every key for {reason}." for reason in part.growth]
    return ["", f"KV cache of {part.name}, one layer", kept, *grows]


def live_text(part: PartReport) -> str:
    """The share of live pairs: `12.5%`, with `~` before an estimate."""
    about = f"{'at most ' if part.at_most else ''}{'' if part.exact else '~'}"
    return f"{about}{percent(part.live_pairs / part.dense_pairs)}"


def _share(part: PartReport) -> list[str]:
    share = part.live_pairs / part.dense_pairs
    ideal = f"{'at least ' if part.at_most else ''}{1 / share:.3g}x" if share else "-"
    live = f"{live_text(part)} of {of_pairs(part.causal)}"
    return [part.name, str(len(part.layers)), live, ideal, f"{part.flops / 1e12:.3g} TFLOP"]


def _prices(prices: tuple[CachePrice, ...]) -> str:
    rows = [
        [
            str(each.tokens),
            in_memory(each.bytes),
            in_memory(each.dense_bytes),
            percent(each.saved),
            in_memory(each.bytes / each.tokens),
        ]
        for each in prices
    ]
    return table(["tokens", "cache", "dense", "saved", "a token"], rows)


def _count(layers: int) -> str:
    return "one layer" if layers == 1 else f"{layers} layers"

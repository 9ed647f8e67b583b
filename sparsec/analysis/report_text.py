"""A cost report -> tables for a terminal: what is computed, what the KV caches keep, and their bytes.

Invariant: nothing is computed here but ratios and units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsec.analysis.cost import CachePrice
from sparsec.analysis.coverage import of_pairs
from sparsec.diagnostics.tables import percent, table
from sparsec.sema.printer import head_ranges

if TYPE_CHECKING:
    from sparsec.analysis.report import PartReport, Report

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def report_text(found: Report) -> str:
    """The tables of a report, without a title."""
    lines = [_computed(found)]
    for part in found.parts:
        if part.cache is None:
            lines += ["", f"{part.name} has no KV cache: it is not causal, packs documents, or has too many bands."]
            continue
        groups = [
            [head_ranges(group.groups), "; ".join(group.keeps) or "nothing", f"{group.slots}"] for group in part.groups
        ]
        lines += ["", f"KV cache of {part.name}, one layer", table(["KV groups", "keep", "slots"], groups)]
        lines += [f"The cache keeps every key for {reason}." for reason in part.growth]
    if found.prices:
        lines += ["", f"KV cache, {_count(found.layers)}", _prices(found.prices)]
    return "\n".join(lines)


def _computed(found: Report) -> str:
    rows = [_share(part) for part in found.parts]
    if len(rows) > 1:
        rows.append(["all", str(found.layers), percent(found.live_share), f"{1 / found.live_share:.3g}x", ""])
    return table(["pattern", "layers", "live pairs", "ideal speed-up", "forward, one layer"], rows)


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
            _bytes(each.bytes),
            _bytes(each.dense_bytes),
            percent(each.saved),
            _bytes(each.bytes / each.tokens),
        ]
        for each in prices
    ]
    return table(["tokens", "cache", "dense", "saved", "a token"], rows)


def _count(layers: int) -> str:
    return "one layer" if layers == 1 else f"{layers} layers"


def _bytes(amount: float) -> str:
    for unit in _UNITS[:-1]:
        if amount < 1024:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} {_UNITS[-1]}"

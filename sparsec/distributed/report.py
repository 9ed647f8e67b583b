"""Traffic between ranks -> a report: bytes by rank and by KV group, against what sends every key; balance of the work.

Invariant: bytes are of one forward pass over one sequence of one layer; of the backward pass as many gradients go back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sparsec.analysis.cost import ITEM_BYTES, Geometry
from sparsec.analysis.report import Part, PartReport
from sparsec.diagnostics.model import CallError
from sparsec.diagnostics.progress import no_progress, told_of_kinds
from sparsec.diagnostics.tables import count, in_traffic, table
from sparsec.distributed.needs import Ints
from sparsec.distributed.shards import LEAST_BLOCK, by_work
from sparsec.distributed.traffic import Traffic
from sparsec.distributed.work import work_before

COMPUTED = 1e14
"""Flops a second of a rank, with which reports price an exchange."""


@dataclass(frozen=True, slots=True)
class TrafficReport:
    """`sent` and `received`: bytes by rank. `by_group`: sent by all ranks, of each KV group. `all_gather`: sent by one
    rank where every rank gets every key, as a ring of key shards also does. `ulysses`: where queries, keys, values and
    outputs are dealt out by head (None: it cannot be, for want of query heads). `peers`: the ranks that a rank sends
    to, at most. `tokens`: of the ranks. `imbalance`: the most work of a rank over the mean.
    """

    tokens: tuple[int, ...]
    chunks: int
    sent: tuple[int, ...]
    received: tuple[int, ...]
    by_group: tuple[int, ...]
    all_gather: int
    ulysses: int | None
    peers: int
    imbalance: float

    @property
    def share(self) -> float:
        """The bytes of all ranks over those of all-gather."""
        return sum(self.sent) / max(self.all_gather * len(self.tokens), 1)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "share_of_all_gather": self.share}

    def __str__(self) -> str:
        ranks = len(self.tokens)
        rows = [
            ["sparsec", in_traffic(max(self.sent)), in_traffic(sum(self.sent)), f"{self.share:.3g}"],
            ["all-gather, ring", in_traffic(self.all_gather), in_traffic(self.all_gather * ranks), "1"],
        ]
        if self.ulysses is not None:
            rows.append(["Ulysses", in_traffic(self.ulysses), in_traffic(self.ulysses * ranks), _share_of(self)])
        tokens = f"{min(self.tokens)} to {max(self.tokens)} tokens each, in at most {count(self.chunks, 'chunk')}"
        lines = [
            f"{count(ranks, 'rank')}, {tokens}; one sends to {count(self.peers, 'other')} at most; "
            f"the most work of one is {self.imbalance:.3f} of the mean",
            "",
            table(["forward", "a rank sends at most", "all send", "of all-gather"], rows),
        ]
        return "\n".join(lines)


def traffic_report(traffic: Traffic, at: Geometry) -> TrafficReport:
    """`at`: the layer's, of which `slot_bytes` is a key with its value in one group."""
    shards, ranks = traffic.shards, traffic.shards.ranks
    by_group = traffic.rows[:, :, list(traffic.kinds)] * at.slot_bytes
    by_group[np.arange(ranks), np.arange(ranks)] = 0
    tokens = tuple(shards.tokens(rank) for rank in range(ranks))
    most = max(tokens)
    return TrafficReport(
        tokens=tokens,
        chunks=max(map(len, shards.chunks)),
        sent=tuple(by_group.sum(axis=(1, 2)).tolist()),
        received=tuple(by_group.sum(axis=(0, 2)).tolist()),
        by_group=tuple(by_group.sum(axis=(0, 1)).tolist()),
        all_gather=most * (ranks - 1) * at.kv_heads * at.slot_bytes,
        ulysses=_ulysses(most, ranks, at),
        peers=int((by_group.sum(axis=2) > 0).sum(axis=1).max()),
        imbalance=shards.imbalance,
    )


@dataclass(frozen=True, slots=True)
class PartTraffic:
    """Of the layers that share a pattern: the report of one, and the flops of its forward pass on all ranks."""

    name: str
    layers: int
    report: TrafficReport
    flops: float

    @property
    def needed_bandwidth(self) -> float:
        """Bytes a second that a rank has to send for its forward pass to take no longer than its computing, if that
        runs at COMPUTED flops a second."""
        return max(self.report.sent) / max(self.flops / len(self.report.tokens) / COMPUTED, 1e-12)


@dataclass(frozen=True, slots=True)
class ModelTraffic:
    """Of all layers, which share one dealing of positions, with even work over all of them."""

    parts: tuple[PartTraffic, ...]

    def as_list(self) -> list[dict[str, object]]:
        """For JSON."""
        return [
            {
                "pattern": part.name,
                "layers": part.layers,
                "flops": part.flops,
                "bytes_a_second_to_hide": part.needed_bandwidth,
                **part.report.as_dict(),
            }
            for part in self.parts
        ]

    def __str__(self) -> str:
        first = self.parts[0].report
        tokens = f"{min(first.tokens)} to {max(first.tokens)} tokens each, in at most {count(first.chunks, 'chunk')}"
        gathered = ["every key (all-gather, ring)", "", in_traffic(first.all_gather), "1", "", ""]
        rows = [
            [
                part.name,
                str(part.layers),
                in_traffic(max(part.report.sent)),
                f"{part.report.share:.3g}",
                count(part.report.peers, "rank"),
                f"{part.needed_bandwidth / 1e9:.3g} GB/s",
            ]
            for part in self.parts
        ]
        head = [
            "pattern",
            "layers",
            "a rank sends",
            "of all-gather",
            "to at most",
            f"to hide at {COMPUTED / 1e12:.3g} TFLOP/s",
        ]
        ulysses = (
            [] if first.ulysses is None else [["Ulysses", "", in_traffic(first.ulysses), _share_of(first), "", ""]]
        )
        return "\n".join(
            [
                f"Between {count(len(first.tokens), 'rank')}, {tokens}; "
                f"the most work of one is {first.imbalance:.3f} of the mean. Keys and values of one layer, forward:",
                table(head, [*rows, gathered, *ulysses]),
            ]
        )


def model_traffic(
    parts: Sequence[Part],
    costs: Sequence[PartReport],
    at: Geometry,
    tokens: int,
    ranks: int,
    told: Callable[[str], None] = no_progress,
) -> ModelTraffic:
    """What travels between ranks that hold sequences of so many tokens. costs: of the parts, by `analysis.report`;
    `told` of each part. Raises TooManyBands, TooManyClasses and, for
    fewer tokens than ranks, CallError."""
    if tokens < ranks:
        raise CallError(f"expected at least as many tokens as ranks, {ranks}, got {tokens}")
    works = []
    for done, part in enumerate(parts):
        told_of_kinds(told, "dividing the work", part.name, done, len(parts))
        works.append((len(part.layers), work_before(part.lowered, tokens)))

    def work(positions: Ints) -> Ints:
        return np.asarray(sum(layers * of_part(positions) for layers, of_part in works), np.int64)

    block = max(part.lowered.pattern.block for part in parts)
    shards = by_work(tokens, ranks, max(block, LEAST_BLOCK), work)
    found = []
    for done, (part, cost) in enumerate(zip(parts, costs, strict=True)):
        told_of_kinds(told, "counting keys that travel", part.name, done, len(parts))
        travels = traffic_report(Traffic.of(part.lowered, shards), at)
        found.append(PartTraffic(part.name, len(part.layers), travels, cost.flops))
    return ModelTraffic(tuple(found))


def _share_of(found: TrafficReport) -> str:
    assert found.ulysses is not None
    return f"{found.ulysses / max(found.all_gather, 1):.3g}"


def _ulysses(tokens: int, ranks: int, at: Geometry) -> int | None:
    """Bytes that a rank sends: its tokens' queries, keys, values and outputs but for its own heads'. KV heads that are
    fewer than the ranks are sent to several."""
    if at.heads % ranks:
        return None
    numbers = at.heads * (at.head_dim + at.value_dim) + max(at.kv_heads, ranks) * (at.head_dim + at.value_dim)
    return tokens * numbers * (ranks - 1) // ranks * ITEM_BYTES[at.dtype]

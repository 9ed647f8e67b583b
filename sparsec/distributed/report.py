"""Traffic between ranks -> a report: bytes by rank and by KV group, against what sends every key; balance of the work.

Invariant: bytes are of one forward pass over one sequence of one layer; of the backward pass as many gradients go back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from sparsec.analysis.cost import ITEM_BYTES, Geometry
from sparsec.diagnostics.tables import count, table
from sparsec.distributed.traffic import Traffic


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
            ["sparsec", _bytes(max(self.sent)), _bytes(sum(self.sent)), f"{self.share:.3g}"],
            ["all-gather, ring", _bytes(self.all_gather), _bytes(self.all_gather * ranks), "1"],
        ]
        if self.ulysses is not None:
            share = self.ulysses / max(self.all_gather, 1)
            rows.append(["Ulysses", _bytes(self.ulysses), _bytes(self.ulysses * ranks), f"{share:.3g}"])
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
        peers=max((degree for _, degree in traffic.graph.out_degree()), default=0),
        imbalance=shards.imbalance,
    )


def _ulysses(tokens: int, ranks: int, at: Geometry) -> int | None:
    """Bytes that a rank sends: its tokens' queries, keys, values and outputs but for its own heads'. KV heads that are
    fewer than the ranks are sent to several."""
    if at.heads % ranks:
        return None
    numbers = at.heads * (at.head_dim + at.value_dim) + max(at.kv_heads, ranks) * (at.head_dim + at.value_dim)
    return tokens * numbers * (ranks - 1) // ranks * ITEM_BYTES[at.dtype]


def _bytes(amount: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000  # type: ignore[assignment]  # shown to three digits
    return f"{amount:.3g} TB"

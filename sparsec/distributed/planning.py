"""A module, a process group and a length -> `Plan`: which positions and which keys each rank holds, sends and receives.

Invariant: a plan follows from its arguments alone, and every rank finds the same one; before a plan is given out, the
ranks have compared what theirs were made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from sparsec import __version__
from sparsec.analysis.cost import ITEM_BYTES, Geometry
from sparsec.diagnostics.arguments import instance, integer
from sparsec.diagnostics.model import CallError
from sparsec.distributed import shards as dealing
from sparsec.distributed.exchange import Rows, gathered
from sparsec.distributed.report import TrafficReport, traffic_report
from sparsec.distributed.traffic import Traffic
from sparsec.distributed.work import work_before
from sparsec.ir.bands.bounds import POSITION_LIMIT, Base
from sparsec.runtime.module import SparseAttention
from sparsec.sema.record import heads_data

if TYPE_CHECKING:
    from sparsec.distributed.attention import ParallelAttention

BALANCES = {"work": dealing.by_work, "zigzag": dealing.zigzag, None: dealing.contiguous}

Balance = Literal["work", "zigzag"] | None


def plan(
    attn: SparseAttention,
    mesh: DeviceMesh | ProcessGroup,
    seq_len: int,
    *,
    shard: Literal["sequence"] = "sequence",
    balance: Balance = "work",
) -> Plan:
    """The plan of `attn` over sequences of `seq_len` tokens, which the ranks of `mesh` hold together.

    mesh: a DeviceMesh of one dimension, or a process group. Every rank of it has to call this, with equal arguments.
    balance: "work" gives every rank as many tokens and about as much work, in as few chunks as that takes; "zigzag" two
    chunks, one from either end; None one.
    A pattern with `documents` is planned for as one document, until `Plan.for_documents` says which there are.
    Raises CallError, on every rank, if the ranks' arguments, patterns or versions differ.
    """
    instance("attn", attn, SparseAttention)
    group = _group(mesh)
    ranks = dist.get_world_size(group)
    integer("seq_len", seq_len, ranks, POSITION_LIMIT - 1)
    if shard != "sequence":
        raise CallError(f"expected shard 'sequence', got {shard!r:.40}")
    if balance not in BALANCES:
        raise CallError(f"expected balance 'work', 'zigzag' or None, got {balance!r:.40}")
    if attn.target == "reference":
        raise CallError("expected a target with a kernel, got 'reference'")
    _compare(group, attn, seq_len, balance)
    lowered = attn.lowered
    deal = BALANCES[balance]
    shards = deal(seq_len, ranks, max(dealing.LEAST_BLOCK, lowered.pattern.block), work_before(lowered, seq_len))
    at = Geometry(attn.heads, attn.kv_heads, attn.head_dim, attn.value_dim, "float32")
    traffic = Traffic.of(lowered, shards)
    return Plan(traffic, dist.get_rank(group), group, replace(at, dtype=_item(attn.dtype)), Plan.made_of(attn))


@dataclass(frozen=True, eq=False)
class Plan:
    """What one rank holds, sends and receives; made by `sparsec.distributed.plan`."""

    traffic: Traffic
    rank: int
    group: ProcessGroup
    geometry: Geometry
    made_from: str

    @staticmethod
    def made_of(attn: SparseAttention) -> str:
        """What tells the pattern, head counts and dimensions of a module from others."""
        text = json.dumps([heads_data(attn.lowered.pattern), attn.head_dim, attn.value_dim])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def for_documents(self, cu_seqlens: Tensor | Sequence[int]) -> Plan:
        """The plan for packed documents: int32 [documents + 1], from 0 to the length without a decrease, the same on
        every rank. Positions stay where they are; fewer keys travel. It waits for the device. Raises CallError."""
        if self.traffic.separate is None:
            raise CallError("expected a pattern with documents, got one without")
        ends = [integer("cu_seqlens", each) for each in torch.as_tensor(cu_seqlens).tolist()]
        length = self.traffic.shards.length
        if ends[:1] != [0] or ends[-1:] != [length] or any(a > b for a, b in pairwise(ends)):
            raise CallError(f"expected cu_seqlens from 0 to {length} without a decrease, got {ends!r:.80}")
        if self.counts_from_the_end:
            raise CallError("expected a pattern with documents to have no bound that counts from the end, got one")
        return replace(self, traffic=replace(self.traffic, documents=tuple(dict.fromkeys(ends))))

    @property
    def counts_from_the_end(self) -> bool:
        """Whether a bound of the pattern follows the number of keys."""
        bands = (band for of_kind in self.traffic.bands for band in of_kind)
        bounds = (bound for band in bands for bound in (*band.lower, *band.upper, *band.first_row, *band.last_row))
        return any(bound.base is Base.END for bound in bounds)

    @property
    def chunks(self) -> tuple[tuple[int, int], ...]:
        """The half-open ranges of positions that this rank holds, ascending."""
        return self.traffic.shards.chunks[self.rank]

    @property
    def tokens(self) -> int:
        """How many they are."""
        return self.traffic.shards.tokens(self.rank)

    @cached_property
    def positions(self) -> Tensor:
        """This rank's absolute positions, ascending, int64 [tokens], on the CPU: for rotary embeddings."""
        return _positions(self.chunks)

    def shard(self, x: Tensor, dim: int) -> Tensor:
        """This rank's part of `x`, which has the whole sequence along `dim`. Raises CallError."""
        length = self.traffic.shards.length
        if x.shape[dim] != length:
            raise CallError(f"expected {length} tokens along dimension {dim}, got {x.shape[dim]}")
        return torch.cat([x.narrow(dim, start, stop - start) for start, stop in self.chunks], dim)

    def unshard(self, x: Tensor, dim: int) -> Tensor:
        """The whole sequence along `dim` of what the ranks hold, on every rank. The gradient of a rank's part is the
        sum of those that the ranks have of it. Raises CallError."""
        if x.shape[dim] != self.tokens:
            raise CallError(f"expected this rank's {self.tokens} tokens along dimension {dim}, got {x.shape[dim]}")
        shards = self.traffic.shards
        counts = [shards.tokens(rank) for rank in range(shards.ranks)]
        places = torch.cat([_positions(of_rank) for of_rank in shards.chunks]).to(x.device)
        rows: Tensor = gathered(x.movedim(dim, 0), counts, self.rank, self.group)
        return torch.empty_like(rows).index_copy(0, places, rows).movedim(0, dim)

    def report(self) -> TrafficReport:
        """Bytes that each rank sends in a forward pass, against all-gather, ring and Ulysses; the balance of work."""
        return traffic_report(self.traffic, self.geometry)

    @cached_property
    def last_key(self) -> int:
        """One past the last key that this rank's queries may need, or that it holds; the sequence's, if a bound counts
        from there."""
        if self.counts_from_the_end:
            return self.traffic.shards.length
        ends = [needs[-1].stop for needs in self.traffic.needs(self.rank) if needs]
        return max([self.chunks[-1][1], *ends])

    @cached_property
    def rows(self) -> Rows:
        """Which rows of keys travel, by KV group, where they are here and where they go."""
        traffic, ranks, width = self.traffic, self.traffic.shards.ranks, self.last_key
        local = _positions(self.chunks).numpy()
        own = range(len(traffic.kinds))
        sent, received = list[Tensor](), list[Tensor]()
        asked = traffic.needs(self.rank)
        for other in range(ranks):
            if other == self.rank:
                sent.append(torch.empty(0, dtype=torch.int64))
                received.append(torch.empty(0, dtype=torch.int64))
                continue
            theirs = [traffic.keys(needs, self.rank) for needs in traffic.needs(other)]
            places = [torch.from_numpy(local.searchsorted(keys)) for keys in theirs]
            sent.append(torch.cat([places[traffic.kinds[g]] + g * len(local) for g in own]))
            ours = [torch.from_numpy(traffic.keys(needs, other)) for needs in asked]
            received.append(torch.cat([ours[traffic.kinds[g]] + g * width for g in own]))
        held = torch.cat([self.positions + g * width for g in own])
        return Rows(tuple(sent), tuple(received), held, width)

    def over(self, attn: SparseAttention) -> ParallelAttention:
        """`attn` on this rank's part of a sequence: what `SparseAttention.parallel` gives. Raises CallError."""
        from sparsec.distributed.attention import ParallelAttention

        return ParallelAttention(attn, self)


def _positions(chunks: tuple[tuple[int, int], ...]) -> Tensor:
    return torch.cat([torch.arange(start, stop) for start, stop in chunks])


def _group(mesh: DeviceMesh | ProcessGroup) -> ProcessGroup:
    if isinstance(mesh, DeviceMesh):
        if mesh.ndim != 1:
            raise CallError(f"expected a mesh of one dimension, such as mesh['cp'], got one of {mesh.ndim}")
        return mesh.get_group()
    return instance("mesh", mesh, ProcessGroup)


def _item(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return name if name in ITEM_BYTES else "float32"


def _compare(group: ProcessGroup, attn: SparseAttention, seq_len: int, balance: Balance) -> None:
    """Raises CallError where the ranks would not plan the same."""
    own = {
        "sparsec": __version__,
        "pattern": Plan.made_of(attn),
        "dtype": str(attn.dtype),
        "seq_len": seq_len,
        "balance": balance,
    }
    found: list[dict[str, object]] = [{}] * dist.get_world_size(group)
    dist.all_gather_object(found, own, group)
    for name in own:
        values = [each[name] for each in found]
        if len(set(values)) > 1:
            said = ", ".join(f"{value!r} on rank {rank}" for rank, value in enumerate(values))
            raise CallError(f"expected the same {name} on every rank, got {said:.400}")

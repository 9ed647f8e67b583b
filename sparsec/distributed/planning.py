"""A module, ranks and a length -> a plan: which positions and which keys each rank holds, sends and receives.

Invariant: a plan follows from its arguments alone, and every rank finds the same one; before a plan is given out, the
ranks have compared what theirs were made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
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
from sparsec.distributed.exchange import TravellingRows
from sparsec.distributed.heads import HeadPlan
from sparsec.distributed.held import HeldTokens, RankPlan, made_of, packed
from sparsec.distributed.packing import WORTH, PackedRows, packed_keys, packed_rows
from sparsec.distributed.report import TrafficReport, traffic_report
from sparsec.distributed.shards import Shards
from sparsec.distributed.traffic import Traffic
from sparsec.distributed.work import work_before, work_of_heads
from sparsec.ir.bands.bounds import POSITION_LIMIT, Base
from sparsec.pipeline import Lowered
from sparsec.runtime.module import SparseAttention
from sparsec.sema.model import Documents

if TYPE_CHECKING:
    from sparsec.distributed.attention import ParallelAttention

BALANCES = {"work": dealing.by_work, "zigzag": dealing.zigzag, None: dealing.contiguous}

Balance = Literal["work", "zigzag"] | None
BOTH = ("sequence", "heads")


@dataclass(frozen=True, eq=False)
class Plan(RankPlan):
    """What one rank holds, sends and receives; made by `sparsec.distributed.plan`."""

    traffic: Traffic
    lowered: Lowered

    def report(self) -> TrafficReport:
        """Bytes that each rank sends in a forward pass, against all-gather, ring and Ulysses; the balance of work."""
        return traffic_report(self.traffic, self.geometry)

    def for_documents(self, cu_seqlens: Tensor | Sequence[int]) -> Plan:
        """The plan for packed documents: int32 [documents + 1], from 0 to the length without a decrease, the same on
        every rank. Positions stay where they are; fewer keys travel. It waits for the device. Raises CallError."""
        documents = packed(cu_seqlens, self.held.length, self.traffic.documents_of is not Documents.NONE)
        if self._counts_from_the_end:
            raise CallError("expected a pattern with documents to have no bound that counts from the end, got one")
        return replace(self, traffic=replace(self.traffic, documents=documents))

    @property
    def _counts_from_the_end(self) -> bool:
        """Whether a bound of the pattern follows the number of keys."""
        bands = (band for of_kind in self.traffic.bands for band in of_kind)
        bounds = (bound for band in bands for bound in (*band.lower, *band.upper, *band.first_row, *band.last_row))
        return any(bound.base is Base.END for bound in bounds)

    @cached_property
    def last_key(self) -> int:
        """One past the last key that this rank's queries may need, or that it holds; the sequence's, if a bound counts
        from there."""
        if self._counts_from_the_end:
            return self.held.length
        ends = [needs[-1].stop for needs in self.traffic.needs(self.held.rank) if needs]
        return max([self.chunks[-1][1], *ends])

    @cached_property
    def rows(self) -> TravellingRows:
        """Which rows of keys travel, by KV group, where they are here and where they go."""
        traffic, rank, width = self.traffic, self.held.rank, self.last_key
        local, groups = self.positions.numpy(), range(len(self.traffic.kinds))
        sent, received = list[Tensor](), list[Tensor]()
        asked = traffic.needs(rank)
        for other in range(traffic.shards.ranks):
            if other == rank:
                sent.append(torch.empty(0, dtype=torch.int64))
                received.append(sent[-1])
                continue
            theirs = [traffic.keys(needs, rank) for needs in traffic.needs(other)]
            places = [torch.from_numpy(local.searchsorted(keys)) for keys in theirs]
            sent.append(torch.cat([places[traffic.kinds[g]] + g * len(local) for g in groups]))
            ours = [torch.from_numpy(traffic.keys(needs, other)) for needs in asked]
            received.append(torch.cat([ours[traffic.kinds[g]] + g * width for g in groups]))
        held = torch.cat([self.positions + g * width for g in groups])
        counts = [tuple(map(len, each)) for each in (sent, received)]
        count = width * len(groups)
        return TravellingRows(torch.cat(sent), counts[0], torch.cat(received), counts[1], held, count)

    @cached_property
    def packed(self) -> PackedRows | None:
        """Where the rows of keys go if calls have no more of them than they need; None where that saves too little."""
        packed = packed_keys(self.lowered, self.traffic, self.held.rank)
        if packed is None or packed.rows > WORTH * self.rows.count:
            return None
        traffic, rank = self.traffic, self.held.rank
        asked = traffic.needs(rank)
        came = []
        for other in range(traffic.shards.ranks):
            if other != rank:
                ours = [traffic.keys(needs, other) for needs in asked]
                came.append([ours[kind] for kind in traffic.kinds])
        return packed_rows(packed, self.rows, self.positions.numpy(), came)

    def over(self, attn: SparseAttention, *, overlap: bool = False) -> ParallelAttention:
        """`attn` on this rank's part of a sequence: what `SparseAttention.parallel` gives. Raises CallError."""
        from sparsec.distributed.attention import ParallelAttention

        return ParallelAttention(attn, self, overlap=overlap)


@overload
def plan(
    attn: SparseAttention,
    mesh: DeviceMesh | ProcessGroup,
    seq_len: int,
    *,
    shard: Literal["sequence"] = "sequence",
    balance: Balance | Plan | Shards = "work",
) -> Plan: ...
@overload
def plan(
    attn: SparseAttention,
    mesh: DeviceMesh | ProcessGroup,
    seq_len: int,
    *,
    shard: Literal["heads"] | tuple[Literal["sequence"], Literal["heads"]],
    balance: Balance | Plan | Shards = "work",
) -> HeadPlan: ...
def plan(
    attn: SparseAttention,
    mesh: DeviceMesh | ProcessGroup,
    seq_len: int,
    *,
    shard: Literal["sequence", "heads"] | tuple[Literal["sequence"], Literal["heads"]] = "sequence",
    balance: Balance | Plan | Shards = "work",
) -> Plan | HeadPlan:
    """The plan of `attn` over sequences of `seq_len` tokens, which the ranks of `mesh` hold together.

    mesh: a DeviceMesh of one dimension, or a process group. Every rank of it has to call this, with equal arguments.
    shard: "sequence" sends keys and values to the ranks whose queries may need them; "heads" deals queries, keys,
    values and outputs out by head, of which each rank then has all tokens; ("sequence", "heads"), with a mesh of two
    dimensions, does the first along its first and, within each part of the sequence, the second along its second.
    balance: of "sequence": "work" gives every rank as many tokens and about as much work, in as few chunks as that
    takes; "zigzag" two chunks, one from either end; None one; another layer's plan, or Shards, the positions of that.
    A pattern with `documents` is planned for as one document, until `Plan.for_documents` says which there are.
    Raises CallError, on every rank, if the ranks' arguments, patterns or versions differ.
    """
    instance("attn", attn, SparseAttention)
    if attn.target == "reference":
        raise CallError("expected a target with a kernel, got 'reference'")
    if shard not in ("sequence", "heads", BOTH):
        raise CallError(f"expected shard 'sequence', 'heads' or ('sequence', 'heads'), got {shard!r:.40}")
    if not isinstance(balance, Plan | Shards) and balance not in BALANCES:
        raise CallError(f"expected balance 'work', 'zigzag', None or a plan, got {balance!r:.40}")
    if shard == BOTH:
        if not isinstance(mesh, DeviceMesh) or mesh.ndim != 2:
            raise CallError(f"expected a mesh of two dimensions for shard {shard}, got {type(mesh).__name__}")
        groups = [mesh.get_group(0), mesh.get_group(1)]
    else:
        groups = [_group(mesh)]
    ranks = [dist.get_world_size(group) for group in groups]
    integer("seq_len", seq_len, int(np.prod(ranks)), POSITION_LIMIT - 1)
    for group in groups:
        _compare(group, attn, seq_len, shard, balance)
    if shard == "sequence":
        return _by_sequence(attn, groups[0], seq_len, balance)
    part = attn.shard(dist.get_rank(groups[-1]), ranks[-1])  # it checks that heads divide
    if shard == "heads":
        return _by_heads(attn, groups[0], dealing.contiguous(seq_len, 1, 1, np.copy), None)
    assert isinstance(mesh, DeviceMesh)
    inner = _by_sequence(part, groups[0], seq_len, balance)
    return _by_heads(attn, groups[1], inner.traffic.shards, inner, mesh)


def _by_sequence(attn: SparseAttention, group: ProcessGroup, length: int, balance: Balance | Plan | Shards) -> Plan:
    lowered, ranks = attn.lowered, dist.get_world_size(group)
    if isinstance(balance, Plan | Shards):
        shards = _shards_of(balance)
        if (shards.length, shards.ranks) != (length, ranks):
            raise CallError(f"expected a plan of {length} tokens on {ranks} ranks as balance, got one of others")
        work = work_before(lowered, length)
        shards = dealing.again(shards, work)
    else:
        block = max(dealing.LEAST_BLOCK, lowered.pattern.block)
        shards = BALANCES[balance](length, ranks, block, work_before(lowered, length))
    rank = dist.get_rank(group)
    tokens = (shards.tokens(rank),)
    held = HeldTokens(length, shards.chunks, rank, group, tokens, 0, group)
    return Plan(held, _geometry(attn), made_of(attn), Traffic.of(lowered, shards), lowered)


def _by_heads(
    attn: SparseAttention, group: ProcessGroup, parts: Shards, inner: Plan | None, mesh: DeviceMesh | None = None
) -> HeadPlan:
    """Each part of the sequence, dealt out to as many ranks as share its heads."""
    sharing, share = dist.get_world_size(group), dist.get_rank(group)
    dealt = tuple(tuple(dealing.cut(part, sharing)) for part in parts.chunks)
    part = 0 if inner is None else inner.held.rank
    chunks_of = tuple(chunks for of_part in dealt for chunks in of_part)
    sharers = tuple(sum(stop - start for start, stop in chunks) for chunks in dealt[part])
    whole = group if mesh is None else _flat_group(mesh)
    held = HeldTokens(parts.length, chunks_of, part * sharing + share, whole, sharers, share, group)
    has_documents = attn.lowered.pattern.documents is not Documents.NONE
    work = work_of_heads(attn.lowered, parts.length)
    return HeadPlan(held, _geometry(attn), made_of(attn), has_documents, work, inner)


def _flat_group(mesh: DeviceMesh) -> ProcessGroup:
    """All ranks of the mesh in its order."""
    if mesh.mesh.flatten().tolist() == [*range(dist.get_world_size())]:
        return instance("the default group", dist.group.WORLD, ProcessGroup)
    group = dist.new_group(mesh.mesh.flatten().tolist(), use_local_synchronization=True)
    return instance("the mesh's group", group, ProcessGroup)


def _shards_of(balance: Plan | Shards) -> Shards:
    return balance.traffic.shards if isinstance(balance, Plan) else balance


def _group(mesh: DeviceMesh | ProcessGroup) -> ProcessGroup:
    if isinstance(mesh, DeviceMesh):
        if mesh.ndim != 1:
            raise CallError(f"expected a mesh of one dimension, such as mesh['cp'], got one of {mesh.ndim}")
        return mesh.get_group()
    return instance("mesh", mesh, ProcessGroup)


def _geometry(attn: SparseAttention) -> Geometry:
    name = str(attn.dtype).removeprefix("torch.")
    dims = attn.heads, attn.kv_heads, attn.head_dim, attn.value_dim
    return Geometry(*dims, name if name in ITEM_BYTES else "float32")


def _compare(
    group: ProcessGroup, attn: SparseAttention, seq_len: int, shard: object, balance: Balance | Plan | Shards
) -> None:
    """Raises CallError where the ranks would not plan the same."""
    own = {
        "sparsec": __version__,
        "pattern": made_of(attn),
        "dtype": str(attn.dtype),
        "seq_len": seq_len,
        "shard": shard,
        "balance": _shards_of(balance).chunks if isinstance(balance, Plan | Shards) else balance,
    }
    found: list[dict[str, object]] = [{}] * dist.get_world_size(group)
    dist.all_gather_object(found, own, group)
    for name in own:
        values = [each[name] for each in found]
        if len(set(values)) > 1:
            said = ", ".join(f"{value!r:.40} on rank {rank}" for rank, value in enumerate(values))
            raise CallError(f"expected the same {name} on every rank, got {said:.400}")

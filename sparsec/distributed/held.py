"""Positions of a sequence -> the part of them that a rank holds: what every kind of plan says of it.

Invariant: together the ranks of `group` hold each position once. Ranks that share the heads of one part of the sequence
hold that part's tokens one after another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from sparsec.analysis.cost import Geometry
from sparsec.diagnostics.arguments import instance, integer
from sparsec.diagnostics.model import CallError
from sparsec.distributed.exchange import on_every_rank
from sparsec.distributed.needs import Range
from sparsec.runtime.module import SparseAttention
from sparsec.sema.record import heads_data


@dataclass(frozen=True, eq=False)
class HeldTokens:
    """chunks_of[r]: the half-open ranges of positions of rank r of `group`, ascending. rank: this one in it.

    sharers: the tokens of each rank that shares the heads of this rank's part, this one included; share: its place
    among them; sharing_group: theirs.
    """

    length: int
    chunks_of: tuple[tuple[Range, ...], ...]
    rank: int
    group: ProcessGroup
    sharers: tuple[int, ...]
    share: int
    sharing_group: ProcessGroup

    @property
    def chunks(self) -> tuple[Range, ...]:
        return self.chunks_of[self.rank]

    @property
    def sharing(self) -> int:
        return len(self.sharers)

    @cached_property
    def tokens(self) -> int:
        return sum(stop - start for start, stop in self.chunks)

    @cached_property
    def positions(self) -> Tensor:
        return _positions(self.chunks)

    def shard(self, x: Tensor, dim: int, tile: int = 1) -> Tensor:
        """As `RankPlan.shard`."""
        whole = tiles_in((0, self.length), integer("tile", tile, 1))
        if x.shape[dim] != whole:
            what = "tokens" if tile == 1 else f"tiles of {tile} tokens"
            raise CallError(f"expected {whole} {what} along dimension {dim}, got {x.shape[dim]}")
        return torch.cat([x.narrow(dim, each[0] // tile, tiles_in(each, tile)) for each in self.chunks], dim)

    def unshard(self, x: Tensor, dim: int) -> Tensor:
        """As `RankPlan.unshard`."""
        if x.shape[dim] != self.tokens:
            raise CallError(f"expected this rank's {self.tokens} tokens along dimension {dim}, got {x.shape[dim]}")
        counts = [sum(stop - start for start, stop in of_rank) for of_rank in self.chunks_of]
        places = torch.cat([_positions(of_rank) for of_rank in self.chunks_of]).to(x.device)
        rows = on_every_rank(x.movedim(dim, 0), counts, self.rank, self.group)
        return torch.empty_like(rows).index_copy(0, places, rows).movedim(0, dim)

    def check_tokens(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Raises CallError unless they have this rank's tokens."""
        for name, each in (("q", q), ("k", k), ("v", v)):
            if each.ndim != 4 or each.shape[2] != self.tokens:
                got = list(each.shape)
                raise CallError(f"expected {name} with this rank's {self.tokens} tokens along dimension 2, got {got}")

    def check_made_of(self, attn: SparseAttention, made_from: str) -> None:
        """Raises CallError unless a plan with that name was made for the module's pattern."""
        if made_of(instance("attn", attn, SparseAttention)) != made_from:
            raise CallError("expected the pattern, head counts and dimensions that the plan was made for, got others")


@dataclass(frozen=True, eq=False)
class RankPlan:
    """What all plans of one rank say of its tokens. made_from: as of `made_of`, of the module that it was made for."""

    held: HeldTokens
    geometry: Geometry
    made_from: str

    @property
    def chunks(self) -> tuple[Range, ...]:
        """The half-open ranges of positions that this rank holds, ascending."""
        return self.held.chunks

    @property
    def tokens(self) -> int:
        """How many they are."""
        return self.held.tokens

    @property
    def positions(self) -> Tensor:
        """This rank's absolute positions, ascending, int64 [tokens], on the CPU: for rotary embeddings."""
        return self.held.positions

    def shard(self, x: Tensor, dim: int, *, tile: int = 1) -> Tensor:
        """This rank's part of `x`, which has the whole sequence along `dim`: a row for each token, or for each tile of
        so many. Of tiles the part has those that a chunk touches, chunk by chunk. Raises CallError."""
        return self.held.shard(x, dim, tile)

    def unshard(self, x: Tensor, dim: int) -> Tensor:
        """The whole sequence along `dim` of what the ranks hold, on every rank. The gradient of a rank's part is the
        sum of those that the ranks have of it. Raises CallError."""
        return self.held.unshard(x, dim)


def made_of(attn: SparseAttention) -> str:
    """What tells the pattern, head counts and dimensions of a module from others."""
    text = json.dumps([heads_data(attn.lowered.pattern), attn.head_dim, attn.value_dim])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def packed(cu_seqlens: Tensor | Sequence[int], length: int, wanted: bool) -> tuple[int, ...]:
    """The first key of each document with keys, and the length. Raises CallError; `wanted`: the pattern has some."""
    if not wanted:
        raise CallError("expected a pattern with documents, got one without")
    ends = [integer("cu_seqlens", each) for each in torch.as_tensor(cu_seqlens).tolist()]
    if ends[:1] != [0] or ends[-1:] != [length] or any(a > b for a, b in pairwise(ends)):
        raise CallError(f"expected cu_seqlens from 0 to {length} without a decrease, got {ends!r:.80}")
    return tuple(dict.fromkeys(ends))


def tiles_in(positions: Range, tile: int) -> int:
    """How many tiles of so many positions a range touches."""
    start, stop = positions
    return (stop - 1) // tile - start // tile + 1 if start < stop else 0


def _positions(chunks: Sequence[Range]) -> Tensor:
    return torch.cat([torch.arange(start, stop) for start, stop in chunks])

"""A rank's queries, piece by piece -> the keys that each piece is worked on with, so that none lies idle in memory.

Below some key, all queries of a piece see the same keys: of a sink, of strides, of a head that sees all. These are far
keys, packed one after another; marks say which head sees which. The near keys, from that key on, follow one another.
Invariant: the pairs of a piece's queries with its far keys, by the marks, and with its near keys, by the pattern from
the first near key on, are the pairs of the pattern; none is in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from sparsec.distributed.exchange import TravellingRows
from sparsec.distributed.needs import Bools, Ints, Piece, Range, lowest_key, needed, seen_by_all, sees_alike_below
from sparsec.distributed.traffic import Traffic
from sparsec.ir.bands.band import Band
from sparsec.pipeline import Lowered
from sparsec.runtime.module import SparseAttention
from sparsec.runtime.within import module_like
from sparsec.sema.model import Documents, Input, InputDecl, InputKind, ResolvedPattern
from sparsec.sema.shifted import FromAKey, from_a_key_on

WORTH = 0.75
"""The share of the rows of a whole sequence up to which packing is worth its copies and its second call."""
UNEVEN = 1.25
"""The rows that groups of one call have at most, over those that they need, beside SLACK each."""
SLACK = 128
FAR = "far"
"""The input that marks far keys."""


@dataclass(frozen=True, slots=True, eq=False)
class FarKeys:
    """Of neighbouring KV groups and their query heads; `keys`: of each group, ascending. `marks`: bool [heads, most]:
    which of its group's keys a head sees."""

    groups: Range
    heads: Range
    keys: tuple[Ints, ...]
    marks: Tensor

    @property
    def rows(self) -> int:
        return len(self.keys) * self.marks.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class PackedPiece:
    """`near`: positions; the first is a multiple of the pattern's step from the piece's origin on."""

    piece: Piece
    near: Range
    far: tuple[FarKeys, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PackedKeys:
    """`groups`: KV groups."""

    pieces: tuple[PackedPiece, ...]
    groups: int

    @property
    def rows(self) -> int:
        """Of one key in one group, those that the pieces have together."""
        return sum(
            self.groups * (each.near[1] - each.near[0]) + sum(far.rows for far in each.far) for each in self.pieces
        )


def packed_keys(lowered: Lowered, traffic: Traffic, rank: int) -> PackedKeys | None:
    """None where the pattern has no such form, so that the keys lie as in the sequence."""
    pattern = lowered.pattern
    tail = from_a_key_on(pattern)
    if tail is None or pattern.score.needs_positions:
        return None
    pieces = tuple(_piece(lowered, tail, piece) for piece in traffic.pieces(rank))
    return PackedKeys(pieces, pattern.kv_heads)


def _piece(lowered: Lowered, tail: FromAKey, piece: Piece) -> PackedPiece:
    of_heads, share = lowered.bands, lowered.pattern.heads // lowered.pattern.kv_heads
    distinct = tuple(dict.fromkeys(band for bands in of_heads for band in bands))
    first, last, stop = (each - piece.origin for each in (*piece.queries, piece.keys[1]))
    at = min([first, *(lowest_key(band, (first, last), stop) for band in distinct)])
    at = at // tail.step * tail.step
    if at < tail.least:
        at = 0
    ends = [needs[-1].stop for needs in (needed(distinct, [piece]),) if needs]
    near = piece.origin + at, max([piece.queries[1], *ends])
    first_key = max(piece.keys[0] - piece.origin, 0)
    if at <= first_key:  # the document begins later
        return PackedPiece(piece, near, ())
    seen: dict[tuple[Band, ...], Bools] = {}
    for bands in dict.fromkeys(of_heads):
        kept = [band for band in bands if sees_alike_below(band, (first, last), stop)]
        seen[bands] = seen_by_all(kept, (first, last), stop, at)
        seen[bands][:first_key] = False
    by_group = [of_heads[n : n + share] for n in range(0, len(of_heads), share)]
    keys = [np.nonzero(np.logical_or.reduce([seen[bands] for bands in of]))[0] for of in by_group]
    far = []
    for start, end in _runs([len(each) for each in keys]):
        width = max(map(len, keys[start:end]))
        marks = np.zeros((end - start, share, width), np.bool_)
        for n in range(start, end):
            for head, bands in enumerate(by_group[n]):
                marks[n - start, head, : len(keys[n])] = seen[bands][keys[n]]
        own = tuple(each + piece.origin for each in keys[start:end])
        heads = start * share, end * share
        far.append(FarKeys((start, end), heads, own, torch.from_numpy(marks.reshape(-1, width))))
    return PackedPiece(piece, near, tuple(far))


def _runs(counts: Sequence[int]) -> list[Range]:
    """Neighbours with about as many keys, without those that have none."""
    found: list[Range] = []
    for n, count in enumerate(counts):
        if not count:
            continue
        if found and found[-1][1] == n:
            start = found[-1][0]
            run = counts[start : n + 1]
            if max(run) * len(run) <= UNEVEN * sum(run) + SLACK * len(run):
                found[-1] = start, n + 1
                continue
        found.append((n, n + 1))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class PackedRows:
    """Which rows of `rows`'s buffer each call has: of a piece, those of the near keys and those of each `far`; int64,
    group by group. The buffer has this rank's own rows, those that come, and one of zeros. marks: of each `far`. count:
    the rows of all calls, and those that are padding."""

    pieces: tuple[PackedPiece, ...]
    rows: TravellingRows
    near: tuple[Tensor, ...]
    far: tuple[tuple[Tensor, ...], ...]
    marks: tuple[tuple[Tensor, ...], ...]
    count: int
    copies: dict[torch.device, PackedRows] = field(default_factory=dict)

    def on(self, device: torch.device) -> PackedRows:
        """The same with its tensors on a device, where they stay."""
        if device == self.rows.held.device:
            return self
        if device not in self.copies:
            near = tuple(each.to(device) for each in self.near)
            far, marks = (tuple(tuple(x.to(device) for x in of) for of in each) for each in (self.far, self.marks))
            self.copies[device] = PackedRows(self.pieces, self.rows.on(device), near, far, marks, self.count)
        return self.copies[device]


def packed_rows(packed: PackedKeys, rows: TravellingRows, own: Ints, came: Sequence[Sequence[Ints]]) -> PackedRows:
    """own: this rank's positions. came: of each other rank in turn, the keys of each group that come from it."""
    local, places = len(own), list[tuple[Ints, Ints]]()
    starts = np.cumsum([packed.groups * local, *(len(keys) for of_rank in came for keys in of_rank)])
    for group in range(packed.groups):
        keys, where = [own], [np.arange(local) + group * local]
        for rank, of_rank in enumerate(came):
            keys.append(of_rank[group])
            where.append(np.arange(len(of_rank[group])) + starts[rank * packed.groups + group])
        joined, at = np.concatenate(keys), np.concatenate(where)
        order = np.argsort(joined, kind="stable")
        places.append((joined[order], at[order]))
    none = int(starts[-1])

    def found(group: int, keys: Ints, width: int) -> Ints:
        have, at = places[group]
        n = np.minimum(np.searchsorted(have, keys), len(have) - 1)
        out = np.full(width, none)
        out[: len(keys)] = np.where(have[n] == keys, at[n], none)
        return out

    def of_groups(groups: Range, keys: Sequence[Ints], width: int) -> Tensor:
        each = [found(group, of, width) for group, of in zip(range(*groups), keys, strict=True)]
        return torch.from_numpy(np.concatenate(each))

    near, far = list[Tensor](), list[tuple[Tensor, ...]]()
    for piece in packed.pieces:
        span = np.arange(*piece.near)
        near.append(of_groups((0, packed.groups), [span] * packed.groups, len(span)))
        far.append(tuple(of_groups(of.groups, of.keys, of.marks.shape[1]) for of in piece.far))
    marks = tuple(tuple(of.marks[None] for of in piece.far) for piece in packed.pieces)
    whole, held = torch.arange(none + 1), packed.groups * local
    rows = replace(rows, held=whole[:held], received=whole[held:none], count=none + 1, copies={})
    return PackedRows(packed.pieces, rows, tuple(near), tuple(far), marks, packed.rows)


def over_near_keys(attn: SparseAttention) -> SparseAttention:
    """The module of near keys, the first of which is its key 0."""
    tail = from_a_key_on(attn.lowered.pattern)
    assert tail is not None, "keys are packed for patterns that have one alone"
    return module_like(attn, tail.pattern)


def over_far_keys(attn: SparseAttention, heads: int, groups: int) -> SparseAttention:
    """The module of far keys: of marked ones, whichever they are; the scores are the pattern's."""
    own = attn.lowered.pattern
    score = replace(own.score, modifiers=tuple(each for each in own.score.modifiers if not each.entry.learned))
    marked = InputDecl(FAR, InputKind.TOKENS, line=0, column=0)
    terms = (Input(0),) * heads
    return module_like(attn, ResolvedPattern(heads, groups, terms, own.block, (marked,), Documents.NONE, score))

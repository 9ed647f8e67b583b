"""What the `torch` target computes at a time: a tile of rows and the chunks of columns that its tile program visits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.torch.picks import Picks
from sparsec.ir.bands.band import Asks
from sparsec.ir.bands.classes import equal_heads
from sparsec.ir.expr.evaluate import holds
from sparsec.ir.expr.fold import lists_in, picks_in
from sparsec.ir.expr.nodes import Bool, Picked
from sparsec.ir.tiles.interpreter import Asked, Visit, anything, draws, transposed_visits, visits
from sparsec.ir.tiles.program import TileProgram
from sparsec.plan.kernel import HeadClass, KernelPlan
from sparsec.plan.target import TORCH_COLUMNS
from sparsec.runtime.kv.lists import KeptLists
from sparsec.sema.model import Documents


@dataclass(frozen=True, slots=True)
class HeadGroup:
    """Query heads of one class with equal constants, and the KV group of each."""

    heads: list[int]
    groups: list[int]
    program: TileProgram
    constants: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Queries and keys that may see each other.

    Row r of q and k holds position r + q_offset and r + k_offset; `queries` and `keys` are ranges of positions,
    `n_keys` is the language's Nk, `first_query` where the call's first query stands. `document` is whether the programs
    read the keys' range. `batch`: the sequences of the call that it stands for; one, of which `picks` tells what the
    inputs say, where the programs ask any.
    """

    queries: tuple[int, int]
    keys: tuple[int, int]
    q_offset: int
    k_offset: int
    n_keys: int
    first_query: int
    document: bool
    device: torch.device
    batch: slice = field(default_factory=lambda: slice(None))
    picks: Picks | None = None

    @property
    def asked(self) -> Asked:
        return anything if self.picks is None else self.picks.of_tile


@dataclass(frozen=True, slots=True)
class Block:
    """Columns to take with a tile of rows: their indices, the positions of both, the live pairs (None: all).

    `i` is [queries, 1], `j` [1, keys] and `live` [queries, keys]; `row_dim` is their dimension along the tile's rows: 0
    for a query tile, 1 for a key tile. `own`: each row has columns of its own; then `columns` and `j` are [queries,
    keys]. `kept`: columns are entries of lists of kept keys.
    """

    columns: Tensor
    i: Tensor
    j: Tensor
    live: Tensor | None
    row_dim: int
    own: bool = False
    kept: bool = False


Share = tuple[HeadGroup, Sequence]
"""Heads and sequences that one walk over the tiles serves."""


def shares(
    plan: KernelPlan,
    classes: tuple[HeadClass, ...],
    q: Tensor,
    k: Tensor,
    q_offset: int,
    cu_seqlens: Tensor | None,
    inputs: tuple[Lookup, ...],
) -> Iterator[Share]:
    """All heads of the classes with all sequences of a call, as many together as see the same tiles."""
    for heads in head_groups(plan, classes):
        for sequence in sequences(plan, q, k, q_offset, cu_seqlens):
            yield from asked_apart(heads, sequence, plan.heads, range(q.shape[0]), inputs)


def asked_apart(
    heads: HeadGroup,
    sequence: Sequence,
    count: int,
    batch: range,
    inputs: tuple[Lookup, ...],
    kept: KeptLists | None = None,
) -> Iterator[Share]:
    """The heads, of `count`, with the sequences of a batch; one by one, as far as their programs ask inputs."""
    if not heads.program.inputs:
        yield heads, sequence
        return
    for b in batch:
        for head, group in zip(heads.heads, heads.groups, strict=True):
            bases = -sequence.q_offset, -sequence.k_offset
            picks = Picks(inputs, b, head, count, *bases, sequence.first_query, sequence.n_keys, kept)
            alone = replace(sequence, batch=slice(b, b + 1), picks=picks)
            yield HeadGroup([head], [group], heads.program, heads.constants), alone


def head_groups(plan: KernelPlan, classes: tuple[HeadClass, ...]) -> list[HeadGroup]:
    """The heads of the classes, grouped by their constants."""
    found = []
    for head_class in classes:
        for heads, constants in equal_heads(head_class.heads, head_class.constants):
            groups = [head // (plan.heads // plan.kv_heads) for head in heads]
            found.append(HeadGroup(list(heads), groups, head_class.program, constants))
    return found


def sequences(plan: KernelPlan, q: Tensor, k: Tensor, q_offset: int, cu_seqlens: Tensor | None) -> Iterator[Sequence]:
    """The whole call, or its documents one by one."""
    n_q, n_k, device = q.shape[2], k.shape[2], q.device
    if plan.documents is Documents.NONE or cu_seqlens is None:
        yield Sequence((q_offset, q_offset + n_q), (0, n_k), q_offset, 0, n_k, q_offset, False, device)
        return
    bounds = cu_seqlens.tolist()
    for start, stop in pairwise(bounds):
        if plan.documents is Documents.RESTART:
            length = stop - start
            yield Sequence((0, length), (0, length), -start, -start, length, 0, False, device)
        else:
            yield Sequence((start, stop), (start, stop), 0, 0, n_k, 0, True, device)


def query_blocks(heads: HeadGroup, at: Sequence) -> Iterator[tuple[slice, list[Block]]]:
    """Each query tile's rows of q, and its columns of k."""
    program, size = heads.program, heads.program.query_tile
    for tile in range(at.queries[0] // size, -(-at.queries[1] // size)):
        rows = max(tile * size, at.queries[0]), min(tile * size + size, at.queries[1])
        document = at.keys if at.document else None
        visited = visits(program, heads.constants, rows, at.n_keys, document, at.asked)
        i = torch.arange(*rows, device=at.device)[:, None]
        blocks = []
        for columns, full in _chunks(visited, program.key_tile, 0, at.keys, at.device):
            j = columns[None, :]
            live = None if full else _live(heads, at, program.live, i, j)
            blocks.append(Block(columns - at.k_offset, i, j, live, 0))
        blocks += _own_keys(heads, at, rows, i)
        yield slice(rows[0] - at.q_offset, rows[1] - at.q_offset), blocks


def _own_keys(heads: HeadGroup, at: Sequence, rows: tuple[int, int], i: Tensor) -> Iterator[Block]:
    """The keys that the rows list themselves, as far as no tile has them."""
    for gather in heads.program.gathers:
        assert at.picks is not None, "a program with gathers asks inputs"
        if heads.program.inputs[gather.test].asks is Asks.KEPT:
            for entries, positions in at.picks.kept_entries():
                j = positions[None]
                yield Block(entries, i, j, _live(heads, at, gather.live, i, j, entries), 0, kept=True)
            continue
        for j, known in at.picks.entries(heads.program.inputs[gather.test], rows, at.n_keys):
            known = known & (j >= at.keys[0]) & (j < at.keys[1])
            live = known & _live(heads, at, gather.live, i, j)
            yield Block(j - at.k_offset, i, j, live, 0, own=True)


def key_blocks(heads: HeadGroup, at: Sequence) -> Iterator[tuple[slice, list[Block]]]:
    """Each key tile's rows of k, and its columns of q, by a transposed program."""
    program, size = heads.program, heads.program.key_tile
    base = at.queries[0] // program.query_tile * program.query_tile
    for tile in range(at.keys[0] // size, -(-at.keys[1] // size)):
        keys = max(tile * size, at.keys[0]), min(tile * size + size, at.keys[1])
        visited = transposed_visits(program, heads.constants, keys, at.n_keys, at.queries, at.asked)
        j = torch.arange(*keys, device=at.device)[None, :]
        blocks = []
        for columns, full in _chunks(visited, program.query_tile, base, at.queries, at.device):
            i = columns[:, None]
            live = None if full else _live(heads, at, program.live, i, j)
            blocks.append(Block(columns - at.q_offset, i, j, live, 1))
        yield slice(keys[0] - at.k_offset, keys[1] - at.k_offset), blocks


def _chunks(
    visited: tuple[Visit, ...], size: int, base: int, within: tuple[int, int], device: torch.device
) -> Iterator[tuple[Tensor, bool]]:
    """The positions of the visited tiles, in chunks of full tiles and of masked ones."""
    offsets = torch.arange(base, base + size, device=device)
    per_chunk = max(TORCH_COLUMNS // size, 1)
    for full in (True, False):
        tiles = [visit.tile for visit in visited if visit.full == full]
        for start in range(0, len(tiles), per_chunk):
            part = torch.tensor(tiles[start : start + per_chunk], device=device)
            positions = (part[:, None] * size + offsets).flatten()
            if not full:
                positions = positions[(positions >= within[0]) & (positions < within[1])]
            if len(positions):
                yield positions, full


def _live(heads: HeadGroup, at: Sequence, test: Bool, i: Tensor, j: Tensor, entries: Tensor | None = None) -> Tensor:
    """A program's condition on queries i x keys j, which broadcast together, bool; `entries`: of kept keys."""
    program = heads.program
    values: dict[str, int | Tensor] = {**heads.constants, "nk": at.n_keys, "i": i, "j": j}
    answers: dict[int | Picked, Tensor] = {}
    for n in lists_in(test):
        spec = program.lists[n]
        row = heads.constants[spec.lane_row]
        blocks = (i[:, 0] // spec.block).tolist()
        drawn = {block: draws(spec, row, block) for block in dict.fromkeys(blocks)}
        found = [drawn[block] for block in blocks]
        width = max((len(entries) for entries in found), default=0)
        table = torch.tensor([[*entries, *[-1] * (width - len(entries))] for entries in found], device=i.device)
        answers[n] = (table.view(len(i), 1, width) == (j // spec.block)[..., None]).any(dim=-1)
    for asked in picks_in(test):
        assert at.picks is not None, "a program that asks inputs has them"
        asked_of = program.inputs[asked.ordinal]
        if entries is not None and asked_of.asks is Asks.KEPT_MARK:
            answers[asked] = at.picks.marked(asked_of, entries)[None]
        else:
            answers[asked] = at.picks.of_pair(asked_of, i, j)
    live = holds(test, values, answers)
    shape = (i + j).shape
    return live.expand(shape) if isinstance(live, Tensor) else torch.full(shape, live, device=i.device)

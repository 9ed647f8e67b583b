"""The tensors of a call's inputs -> what kernels look up, by plain torch operations on the tensors' own device.

Invariant: no number is read on the host, and whatever an input holds, every entry of a lookup lies within its bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar, assert_never

import torch
from torch import Tensor

from sparsec.backends.base import Lookup
from sparsec.backends.entries import ABSENT, int32_of
from sparsec.diagnostics.model import InternalError
from sparsec.ir.bands.band import Asks, InputTest
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.sema.model import InputDecl, InputKind

_Tensor = TypeVar("_Tensor")
Given = tuple[Tensor, ...]
"""The tensors of one input: one, or two for a pair."""


class CallShape(NamedTuple):
    """What a call has: queries, keys, and the position of the first query."""

    n_queries: int
    n_keys: int
    q_offset: int


def by_input(
    inputs: tuple[InputDecl, ...], flat: Sequence[_Tensor], dims: Callable[[_Tensor], int]
) -> tuple[tuple[_Tensor, ...], ...]:
    """The tensors of each input, or what stands for these, of those of all in order; `dims` tells their dimensions.

    `blocks` come as one tensor of four dimensions, or as a pair of which the first, the counts, has three.
    """
    if len(inputs) == len(flat):  # no pairs
        return tuple(zip(flat, strict=True))
    found, rest = [], tuple(flat)
    for input_ in inputs:
        pair = input_.kind is InputKind.LABELS or (input_.kind is InputKind.BLOCKS and dims(rest[0]) == 3)
        found.append(rest[: 1 + pair])
        rest = rest[1 + pair :]
    return tuple(found)


def key_bias_of(ordinal: int | None, inputs: tuple[InputDecl, ...], flat: Sequence[Tensor]) -> Tensor | None:
    """The tensor of input `ordinal`, whose kind is WEIGHTS, of those of all inputs in order."""
    return None if ordinal is None else by_input(inputs, flat, Tensor.dim)[ordinal][0]


def bias_apart(
    ordinal: int | None, inputs: tuple[InputDecl, ...], flat: list[Tensor]
) -> tuple[list[Tensor] | None, Tensor | None]:
    """The tensors of all inputs, None without any, and that of `key_bias`, which alone may have a gradient."""
    if ordinal is None:
        return flat or None, None
    return [each.detach() for each in flat], key_bias_of(ordinal, inputs, flat)


def prepared(
    tests: tuple[InputTest, ...],
    given: tuple[Given, ...],
    call: CallShape,
    ordered: tuple[InputTest, ...] = (),
) -> tuple[Lookup, ...]:
    """A lookup for each test; `given`: of each input of the pattern. `ordered`: those of `LaunchPlan.ordered`."""
    return tuple([_lookup(test, given[test.ordinal], call, test in ordered) for test in tests])


def lists_in_place(test: InputTest, lists: Tensor) -> Lookup:
    """Of a test of lists by query that needs none of them in order."""
    data = lists if lists.is_contiguous() else lists.contiguous()
    return Lookup(test, data if data.shape[-1] else data.new_full((*data.shape[:-1], 1), -1))


def _lookup(test: InputTest, given: Given, call: CallShape, in_order: bool) -> Lookup:
    first, keys = 0, _blocks(call.n_keys, test.width)
    match test.asks:
        case Asks.ROW:
            found = lists_in_place(test, given[0])
            found.ordered = _ordered(int32_of(found.data)) if in_order else None
            return found
        case Asks.MARKED:
            marks = _with_heads(given[0], 3)
            return Lookup(test, counts_before(marks) if marks.dtype == torch.bool else marks)  # or counts, of a cache
        case Asks.COLUMN:
            counts = counts_before(_marks(given[0], 0, keys))
            return Lookup(test, counts, ordered=numbers_of(counts, given[0].shape[-1]) if in_order else None)
        case Asks.SLASH:
            last = (call.q_offset + call.n_queries - 1) // test.height
            return Lookup(test, counts_before(_marks(given[0], 0, last + 1)))
        case Asks.SLASH_TILE:
            # The pair is in a tile iff one of the numbers t .. t + height - 1, t = i // height * height - j, is listed.
            first = 1 - test.height
            last = (call.q_offset + call.n_queries - 1) // test.height * test.height
            present = given[0].masked_fill(given[0] < 0, first - 1)
            counts = counts_before(_marks(present, first, last - first + test.height))
            near = counts[..., test.height :] > counts[..., : -test.height]
            return Lookup(test, counts_before(near), first)
        case Asks.CELL:
            cells = given[0] if len(given) == 1 else _cells(given[0], given[1], keys)
            return Lookup(test, _not_empty(cells.to(torch.uint8)))
        case Asks.LABEL:
            queries, of_keys = _labels(given[0], given[1])
            return Lookup(test, queries, keys=of_keys)
        case Asks.ANCESTOR:
            return Lookup(test, _ancestors(given[0]))
        case Asks.KEY_BELOW | Asks.QUERY_BELOW | Asks.NEAR:
            lengths = given[0] if given[0].dim() == 2 else given[0][:, None]
            return Lookup(test, lengths.clamp(0, POSITION_LIMIT).to(torch.int32).contiguous())
        case Asks.KEPT | Asks.KEPT_MARK:
            raise InternalError("what lists of kept keys say is looked up in these")
        case _:
            assert_never(test.asks)


def _not_empty(cells: Tensor) -> Tensor:
    """The cells, contiguous, with a row and a column at least."""
    rows, columns = cells.shape[-2:]
    if rows and columns:
        return cells.contiguous()
    return cells.new_zeros((*cells.shape[:-2], max(rows, 1), max(columns, 1)))


def _blocks(tokens: int, width: int) -> int:
    return -(-tokens // width)


def _with_heads(tensor: Tensor, dims: int) -> Tensor:
    """[b, x, ...] of a tensor that may lack the heads."""
    return tensor if tensor.dim() == dims else tensor[:, None]


def _ordered(entries: Tensor) -> Tensor:
    return entries.masked_fill(entries < 0, ABSENT).sort(dim=-1).values


def _marks(entries: Tensor, first: int, count: int) -> Tensor:
    """bool [b, x, count]: which of the numbers first .. first + count - 1 are among the entries [b, x, c]."""
    count = max(count, 0)
    inside = (entries >= first) & (entries < first + count)
    place = torch.where(inside, entries - first, count).to(torch.int64)
    marks = torch.zeros((*entries.shape[:-1], count + 1), dtype=torch.bool, device=entries.device)
    return marks.scatter_(-1, place, True)[..., :count]


def counts_before(marks: Tensor) -> Tensor:
    """int32 [..., n + 1]: how many are marked before each place."""
    counts = torch.zeros((*marks.shape[:-1], marks.shape[-1] + 1), dtype=torch.int32, device=marks.device)
    torch.cumsum(marks, dim=-1, dtype=torch.int32, out=counts[..., 1:])
    return counts


def numbers_of(counts: Tensor, most: int) -> Tensor:
    """int32 [..., m], m at most `most`: the marked places, in ascending order, and past them the number of places."""
    most = min(most, counts.shape[-1] - 1)
    each = torch.arange(1, most + 1, dtype=torch.int32, device=counts.device)
    return torch.searchsorted(counts, each.expand(*counts.shape[:-1], -1).contiguous(), out_int32=True) - 1


def _cells(counts: Tensor, indices: Tensor, columns: int) -> Tensor:
    """bool [b, x, rows, columns]: the first counts[b, x, r] of indices[b, x, r] that are columns."""
    place = torch.arange(indices.shape[-1], device=indices.device)
    listed = torch.where(place < counts[..., None], indices, -1)
    return _marks(listed, 0, columns)


def _labels(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """int32 labels, equal where the given ones are, and negative where these are."""
    if queries.dtype == keys.dtype == torch.int32:
        return queries.contiguous(), keys.contiguous()
    batch, heads = max(queries.shape[0], keys.shape[0]), max(queries.shape[1], keys.shape[1])
    of_heads = (t.to(torch.int64).repeat_interleave(heads // t.shape[1], dim=1) for t in (queries, keys))
    both = torch.cat([each.expand(batch, -1, -1) for each in of_heads], dim=-1)
    ordered, place = both.sort(dim=-1)
    rank = torch.zeros_like(ordered)
    torch.cumsum(ordered[..., 1:] != ordered[..., :-1], dim=-1, out=rank[..., 1:])
    ranked = torch.empty_like(rank).scatter_(-1, place, rank).masked_fill_(both < 0, -1).to(torch.int32)
    return ranked[..., : queries.shape[-1]].contiguous(), ranked[..., queries.shape[-1] :].contiguous()


def _ancestors(parents: Tensor) -> Tensor:
    """uint8 [b, 1, n, n]: whether the column's token is the row's or an ancestor of it. `parents`: [b, n].

    A parent that does not come before its child is none. Each round doubles the number of steps toward the root that
    are known of every token (pointer jumping).
    """
    n = parents.shape[1]
    known = torch.eye(n + 1, dtype=torch.bool, device=parents.device).repeat(parents.shape[0], 1, 1)
    known[:, n] = False  # the token that a root has for parent
    inside = (parents >= 0) & (parents < torch.arange(n, device=parents.device))
    up = torch.nn.functional.pad(torch.where(inside, parents, n).to(torch.int64), (0, 1), value=n)
    for _ in range(max(n - 1, 0).bit_length()):
        known = known | known.gather(1, up[:, :, None].expand(-1, -1, n + 1))
        up = up.gather(1, up)
    return known[:, None, :n, :n].to(torch.uint8).contiguous()

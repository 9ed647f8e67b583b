"""The tensors of run-time inputs -> the pairs for which each holds, straight from the table of kinds.

Invariant: nothing here knows how a kernel reads an input. A list names a position by its number; an entry that is
negative, or past the end, is absent; and what speaks of a query or a key is looked up by its row in the call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.sema.inputs import settled
from sparsec.sema.model import InputDecl, InputKind, InputUnit, ResolvedPattern
from sparsec.sema.shapes import FORMS, Given, Sizes, form_of, problem_of, tile_of

FAR = 2**40
"""Past every position and distance: larger entries of lists are taken for this one."""

InputValue = Tensor | Sequence[Tensor]
"""What a call gives for an input: a tensor, or a pair of them."""
Slices = tuple[tuple[Tensor, ...], ...]
"""By ordinal, the tensors of an input for one sequence and one head: without the axes B and X."""


class Positions:
    """i and qb as columns [Nq, 1], j and kb as rows [1, Nk], all int64; `//` rounds toward minus infinity.

    `first`: the row of the call at which query 0 and key 0 stand; more than 0 only in documents that restart.
    """

    def __init__(self, start: int, n_q: int, n_k: int, block: int, first: int = 0) -> None:
        self.start, self.n_q, self.n_k, self.block = start, n_q, n_k, block
        self.key_blocks = -(-n_k // block)
        self.i = torch.arange(start, start + n_q, dtype=torch.int64)[:, None]
        self.j = torch.arange(n_k, dtype=torch.int64)[None, :]
        self.qb = self.i // block
        self.kb = self.j // block
        self.queries = slice(first, first + n_q)
        self.keys = slice(first, first + n_k)


@dataclass(frozen=True, slots=True)
class GivenInputs:
    """The tensors of a call, all with axes [B or 1, X, ...], on the CPU; X is 1, the KV heads or the query heads."""

    tensors: Slices
    batch: int
    heads: int

    @property
    def by_head(self) -> bool:
        """Whether heads of one term may see different keys."""
        return any(tensor.shape[1] > 1 for pair in self.tensors for tensor in pair)

    def at(self, sequence: int, head: int) -> Slices:
        """Those of one sequence and one query head."""
        return tuple(
            tuple(t[sequence if t.shape[0] > 1 else 0, head * t.shape[1] // self.heads] for t in pair)
            for pair in self.tensors
        )


def given_inputs(
    heads: ResolvedPattern, inputs: Mapping[str, InputValue] | None, n_q: int, n_k: int, start: int
) -> GivenInputs:
    """The tensors of every declared input; weights may be left out. Raises CallError for other names or shapes."""
    given = {} if inputs is None else dict(inputs)
    declared = {decl.name: decl.kind for decl in heads.inputs}
    missing = [name for name, kind in declared.items() if name not in given and kind is not InputKind.WEIGHTS]
    if missing or not set(given) <= set(declared):
        raise CallError(f"expected inputs {sorted(declared)}, got {sorted(map(str, given))}")
    sizes = Sizes(None, heads.heads, heads.kv_heads, n_q, n_k, n_k, start)
    found: list[tuple[Tensor, ...]] = []
    for decl in settled(heads.inputs, heads.block):
        if decl.name not in given:
            found.append(())
            continue
        value = given[decl.name]
        pair = tuple(value) if isinstance(value, tuple | list) else (value,)
        if not all(isinstance(tensor, Tensor) for tensor in pair):
            raise CallError(f"expected input {decl.name!r} as a tensor or a pair of tensors, got {value!r:.80}")
        shapes = [Given(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for tensor in pair]
        if (problem := problem_of(decl, shapes, sizes)) is not None:
            raise CallError(problem)
        form = form_of(decl, shapes) or FORMS[decl.kind][0]
        with_heads = [t if "X" in own.axes else t.unsqueeze(1) for own, t in zip(form, pair, strict=True)]
        found.append(tuple(tensor.cpu() for tensor in with_heads))
    batches = {tensor.shape[0] for pair in found for tensor in pair} - {1}
    if len(batches) > 1:
        raise CallError(f"expected inputs of one batch size, or 1, got {sorted(batches)}")
    return GivenInputs(tuple(found), max(batches, default=1), heads.heads)


def length_of(tensors: tuple[Tensor, ...]) -> int:
    """A run-time length; what is negative counts as 0."""
    return min(max(int(tensors[0]), 0), FAR)


def holds(decl: InputDecl, tensors: tuple[Tensor, ...], at: Positions) -> Tensor:
    """Whether a settled input holds for each pair, in a shape that broadcasts to [Nq, Nk]."""
    first = tensors[0]
    match decl.kind:
        case InputKind.TOKENS:
            return first[at.keys][None, :]
        case InputKind.COLUMNS:
            return torch.isin(at.kb if decl.unit is InputUnit.BLOCKS else at.j, _entries(first))
        case InputKind.SLASHES:
            return _slashes(decl.unit, _entries(first), at)
        case InputKind.ROWS:
            blocks = decl.unit is InputUnit.BLOCKS
            count, lists = (at.key_blocks if blocks else at.n_k), first[at.queries].to(torch.int64)
            listed = torch.zeros((lists.shape[0], count + 1), dtype=torch.bool)
            listed.scatter_(1, torch.where((lists >= 0) & (lists < count), lists, count), True)
            return listed[:, (at.kb if blocks else at.j).flatten()]
        case InputKind.BLOCKS:
            return _tiles(tile_of(decl), tensors, at)
        case InputKind.LABELS:
            of_query, of_key = first[at.queries].to(torch.int64)[:, None], tensors[1][at.keys].to(torch.int64)[None, :]
            return (of_query == of_key) & (of_query >= 0)
        case InputKind.TREE:
            return _tree(first.tolist(), at)
        case InputKind.LENGTH | InputKind.WEIGHTS:
            raise AssertionError("a length and weights are no terms")
        case _:
            assert_never(decl.kind)


def _entries(values: Tensor) -> Tensor:
    """The entries of a list that are there, int64."""
    values = values.to(torch.int64).flatten()
    return values[values >= 0].clamp(max=FAR)


def _slashes(unit: InputUnit, listed: Tensor, at: Positions) -> Tensor:
    match unit:
        case InputUnit.TOKENS:
            return torch.isin(at.i - at.j, listed)
        case InputUnit.BLOCKS:
            return torch.isin(at.qb - at.kb, listed)
        case InputUnit.TILES:
            least = at.qb * at.block - at.j  # the first listed one from there on is near enough, or none is
            ordered = torch.cat((listed.sort().values, listed.new_full((1,), torch.iinfo(torch.int64).max)))
            return ordered[torch.searchsorted(ordered, least)] < least + at.block
        case _:
            assert_never(unit)


def _tiles(tile: tuple[int, int], tensors: tuple[Tensor, ...], at: Positions) -> Tensor:
    """Rows of tiles count from that of the first query; what the tensor has no row or column for is not set."""
    m, n = tile
    row, column = at.i // m - at.start // m, at.j // n
    found = torch.zeros((at.n_q, at.n_k), dtype=torch.bool)
    if len(tensors) == 1:
        for r, marks in enumerate(tensors[0]):
            found |= (row == r) & torch.isin(column, marks.nonzero().flatten())
    else:
        for r, (count, indices) in enumerate(zip(tensors[0].tolist(), tensors[1], strict=True)):
            found |= (row == r) & torch.isin(column, _entries(indices[: max(count, 0)]))
    return found


def _tree(parents: list[int], at: Positions) -> Tensor:
    """A parent that does not come before its child is none."""
    first = at.n_k - len(parents)
    found = (at.j < first).expand(at.n_q, at.n_k).clone()
    for query in range(at.n_q):
        token = at.start + query - first
        while 0 <= token < len(parents):
            if first + token >= 0:
                found[query, first + token] = True
            token = parents[token] if parents[token] < token else -1
    return found

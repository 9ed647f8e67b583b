"""Tensors of inputs on each rank -> those of a call on one piece of its queries.

Invariant: what speaks of keys is gathered from all ranks; what speaks of queries stays where they are; the rest says
the same on every rank.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from sparsec.diagnostics.model import CallError, InternalError
from sparsec.distributed.held import tiles_in
from sparsec.distributed.needs import Range
from sparsec.runtime.inputs.checks import InputTensors as InputTensors
from sparsec.sema.model import Documents, InputDecl, InputKind
from sparsec.sema.shapes import tile_of

if TYPE_CHECKING:
    from sparsec.distributed.planning import Plan

OF_ALL_KEYS = (InputKind.TOKENS, InputKind.WEIGHTS)
OF_QUERIES = (InputKind.ROWS,)

Given = dict[str, InputTensors]


@dataclass(frozen=True, slots=True)
class HeldPiece:
    """What `of_piece` is asked for: queries of a rank, by absolute positions and among the rank's own tokens, and the
    keys of their call; `length`: of the sequence."""

    queries: Range
    rows: Range
    keys: Range
    chunks: tuple[Range, ...]
    length: int


def check_kinds(inputs: Sequence[InputDecl], documents: Documents) -> None:
    """Raises CallError for a kind that is not served."""
    for decl in inputs:
        if decl.kind is InputKind.BLOCKS and documents is Documents.RESTART:
            raise CallError(f"expected no input of kind blocks where documents restart, got {decl.name}")


def check_whole(inputs: Sequence[InputDecl], counts: Collection[int], tokens: int) -> None:
    """Before a prompt of sequences of so many tokens, of a plan of `tokens`. Raises CallError."""
    shorter = set(counts) - {0, tokens}
    tiled = [decl.name for decl in inputs if decl.kind is InputKind.BLOCKS]
    if shorter and tiled:  # the tiles of a shorter sequence would be others than those of the plan's tokens
        raise CallError(
            f"expected sequences of the plan's {tokens} tokens for input {tiled[0]!r}, got one of {min(shorter)}"
        )


def inputs_by_name(inputs: Sequence[InputDecl], given: Mapping[str, InputTensors] | None) -> Mapping[str, InputTensors]:
    """The tensors by the names of the inputs. Raises CallError for others."""
    names = {decl.name for decl in inputs}
    if set(given or {}) != names:
        raise CallError(f"expected inputs {sorted(names)}, got {sorted(given or {})}")
    return given or {}


def with_keys_of_all(inputs: Sequence[InputDecl], given: Mapping[str, InputTensors] | None, plan: Plan) -> Given:
    """The tensors with what speaks of keys for the whole sequence. Raises CallError."""
    given = inputs_by_name(inputs, given)
    found: Given = {}
    for decl in inputs:
        each = given[decl.name]
        if decl.kind in OF_ALL_KEYS:
            found[decl.name] = plan.unshard(_tensor(decl, each), -1)
        elif decl.kind is InputKind.LABELS:
            of_queries, of_keys = _pair(decl, each)
            found[decl.name] = of_queries, plan.unshard(of_keys, -1)
        elif decl.kind is InputKind.BLOCKS:
            check_tile_rows(decl, each, plan.chunks)
            found[decl.name] = each
        else:
            found[decl.name] = each
    return found


def of_sequences(inputs: Sequence[InputDecl], given: Given, rows: Sequence[int]) -> Given:
    """The tensors of these sequences of the batch."""
    found: Given = {}
    for decl in inputs:
        each = given[decl.name]
        found[decl.name] = given_as([of if len(of) == 1 else of[list(rows)] for of in tensors_of(each)])
    return found


def of_piece(inputs: Sequence[InputDecl], given: Given, piece: HeldPiece) -> Given:
    """The tensors of a call with these of the rank's queries, on a range of keys."""
    start, count = piece.rows[0], piece.rows[1] - piece.rows[0]
    seen = slice(*piece.keys)
    found: Given = {}
    for decl in inputs:
        each = given[decl.name]
        if decl.kind in OF_ALL_KEYS:
            found[decl.name] = _tensor(decl, each)[..., seen]
        elif decl.kind is InputKind.LABELS:
            of_queries, of_keys = _pair(decl, each)
            found[decl.name] = of_queries.narrow(-1, start, count), of_keys[..., seen]
        elif decl.kind in OF_QUERIES:
            found[decl.name] = _tensor(decl, each).narrow(2, start, count)
        elif decl.kind is InputKind.BLOCKS:
            rows = tile_rows_of(piece.queries, piece.chunks, tile_of(decl)[0])
            found[decl.name] = given_as([of.narrow(2, *rows) for of in tensors_of(each)])
        elif decl.kind is InputKind.TREE:  # parents come first: those of the tokens that are keys of the call
            parents = _tensor(decl, each)
            found[decl.name] = parents[:, : max(parents.shape[-1] - (piece.length - piece.keys[1]), 0)]
        else:
            found[decl.name] = each
    return found


def tile_rows_of(queries: Range, chunks: Sequence[Range], tile: int) -> Range:
    """The first, and how many, of the rows of tiles that a rank's chunks touch, chunk by chunk, that queries of one
    chunk touch."""
    before = 0
    for chunk in chunks:
        if chunk[0] <= queries[0] < chunk[1]:
            return before + queries[0] // tile - chunk[0] // tile, tiles_in(queries, tile)
        before += tiles_in(chunk, tile)
    raise InternalError(f"queries {queries} are not of this rank's")


def check_tile_rows(decl: InputDecl, given: InputTensors, chunks: Sequence[Range]) -> None:
    """Raises CallError."""
    tile = tile_of(decl)[0]
    wanted = sum(tiles_in(chunk, tile) for chunk in chunks)
    for each in tensors_of(given):
        if each.dim() < 3 or each.shape[2] != wanted:
            raise CallError(
                f"expected input {decl.name!r} with the {wanted} rows of tiles that this rank's chunks touch along "
                f"dimension 2 (Plan.shard with tile={tile}), got {list(each.shape)}"
            )


def tensors_of(given: InputTensors) -> tuple[Tensor, ...]:
    """One tensor or two."""
    return (given,) if isinstance(given, Tensor) else tuple(given)


def given_as(tensors: Sequence[Tensor]) -> InputTensors:
    """The other way."""
    return tensors[0] if len(tensors) == 1 else (tensors[0], tensors[1])


def _tensor(decl: InputDecl, given: InputTensors) -> Tensor:
    if not isinstance(given, Tensor):
        raise CallError(f"expected a tensor for input {decl.name}, got {type(given).__name__}")
    return given


def _pair(decl: InputDecl, given: InputTensors) -> tuple[Tensor, Tensor]:
    if isinstance(given, Tensor) or len(given) != 2:
        raise CallError(f"expected a pair of tensors for input {decl.name}, got {type(given).__name__}")
    return given[0], given[1]

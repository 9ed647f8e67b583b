"""What is wrong with the numbers of an input: found on the device, told with the place of the first.

Invariant: tensors that pass have distinct entries in every list, counts within their lists, parents before children,
lengths that are positions and weights that a sum may hold.
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.sema.model import InputDecl, InputKind, InputUnit
from sparsec.sema.shapes import Sizes, tile_of


def check_values(decl: InputDecl, given: tuple[Tensor, ...], sizes: Sizes, block: int) -> None:
    """Raises CallError for the first wrong number of an input whose shapes are right. It waits for the device."""
    first = given[0]
    match decl.kind:
        case InputKind.LENGTH:
            _within(f"lengths of input {decl.name!r}", first, (first < 0) | (first > POSITION_LIMIT), 0, POSITION_LIMIT)
        case InputKind.COLUMNS | InputKind.ROWS:
            _distinct(decl.name, first, _end(sizes.n_k, block if decl.unit is InputUnit.BLOCKS else 1))
        case InputKind.SLASHES:
            _distinct(decl.name, first, _slash_end(decl.unit, sizes, block))
        case InputKind.BLOCKS if len(given) == 2:
            counts, indices = given
            most = indices.shape[-1]
            _within(f"counts of input {decl.name!r}", counts, (counts < 0) | (counts > most), 0, most)
            counted = torch.arange(most, device=indices.device) < counts[..., None]
            _distinct(decl.name, torch.where(counted, indices, -1), _end(sizes.n_k, tile_of(decl)[1]))
        case InputKind.TREE:
            _parents(decl.name, first)
        case InputKind.WEIGHTS:
            wrong = first.isnan() | (first == torch.inf)
            if (place := _first(wrong)) is not None:
                got = f"{first[place].item()} at {list(place)}"
                raise CallError(f"expected the weights of input {decl.name!r} below infinity, got {got}")
        case InputKind.TOKENS | InputKind.BLOCKS | InputKind.LABELS:
            pass
        case _:
            assert_never(decl.kind)


def _first(wrong: Tensor) -> tuple[int, ...] | None:
    """Where the first of the elements is that are true; None if none is."""
    places = wrong.nonzero()
    return tuple(places[0].tolist()) if len(places) else None


def _within(what: str, values: Tensor, wrong: Tensor, least: int, most: int) -> None:
    if (place := _first(wrong)) is not None:
        raise CallError(f"expected {what} from {least} to {most}, got {values[place].item()} at {list(place)}")


def _end(n_k: int | None, width: int) -> int | None:
    """How many keys, or blocks of keys, there are."""
    return None if n_k is None else -(-n_k // width)


def _slash_end(unit: InputUnit, sizes: Sizes, block: int) -> int | None:
    """Past every distance that some query has to some key."""
    if sizes.n_k is None:
        return None
    last = sizes.n_k - 1 if sizes.q_offset is None else sizes.q_offset + sizes.n_q - 1
    match unit:
        case InputUnit.TOKENS:
            return last + 1
        case InputUnit.BLOCKS:
            return last // block + 1
        case InputUnit.TILES:
            return (last // block + 1) * block
        case _:
            assert_never(unit)


def _distinct(name: str, entries: Tensor, end: int | None) -> None:
    """Of each list along the last axis, those that are there: not negative, and not past the end where it is known."""
    there = entries >= 0 if end is None else (entries >= 0) & (entries < end)
    absent = torch.arange(-1, -1 - entries.shape[-1], -1, device=entries.device, dtype=torch.int64)
    ordered = torch.where(there, entries.to(torch.int64), absent).sort(dim=-1).values
    if (place := _first(ordered[..., 1:] == ordered[..., :-1])) is not None:
        twice, where = ordered[place].item(), list(place[:-1])
        found = (entries[place[:-1]] == twice).nonzero().flatten().tolist()
        raise CallError(
            f"expected the entries of a list of input {name!r} to be distinct, got {twice} at {[*where, found[0]]} "
            f"and at {[*where, found[1]]}"
        )


def _parents(name: str, parents: Tensor) -> None:
    tokens = torch.arange(parents.shape[-1], device=parents.device)
    if (place := _first((parents < -1) | (parents >= tokens))) is not None:
        token, parent = place[-1], parents[place].item()
        wanted = f"{name!r} from -1 to {token - 1}" if token else f"{name!r} to be -1"
        raise CallError(f"expected the parent of token {token} of input {wanted}, got {parent} at {list(place)}")

"""Inputs of a call over pages, drawn, and of each request the same as a call of it alone would give them.

Invariant: a request's own are cut out by what the language says of each kind, with plain loops for its draft.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsec.sema.inputs import settled
from sparsec.sema.model import InputKind, ResolvedPattern
from sparsec.sema.shapes import tile_of
from sparsec.testing.inputs import InputTensors, drawn_inputs

PAST = 5
"""Positions of keys that are spoken of beyond those of the longest request, or too few of them."""


def packed_inputs(
    pattern: ResolvedPattern, requests: Sequence[tuple[int, int]], seed: int
) -> tuple[dict[str, InputTensors], list[dict[str, InputTensors]]]:
    """`requests`: the tokens of each, and how many of them are the call's. Keys that nobody speaks of are unmarked."""
    tokens = sum(count for _, count in requests)
    longest = max(length for length, _ in requests)
    positions = max(longest + PAST * (seed % 3 - 1), 1)
    declared = settled(pattern.inputs, pattern.block)
    tall = max((tile_of(decl)[0] for decl in declared if decl.kind is InputKind.BLOCKS), default=1)
    whole = drawn_inputs(
        pattern,
        batch=len(requests),
        n_q=tokens + 2 * tall,
        n_k=max(longest, 1),
        new_keys=positions,
        q_offset=0,
        seed=seed,
    )
    for decl in declared:
        value = whole[decl.name]
        if decl.kind is InputKind.ROWS:
            assert isinstance(value, Tensor)
            whole[decl.name] = value[:1, :, :tokens]
        elif decl.kind is InputKind.LABELS:
            whole[decl.name] = value[0][:1, :, :tokens], value[1]
    own = []
    start = 0
    for r, (length, count) in enumerate(requests):
        of_kind = {decl.name: (decl.kind, whole[decl.name]) for decl in declared}
        rows = slice(start, start + count)
        own.append({name: _of_request(kind, value, r, rows, length) for name, (kind, value) in of_kind.items()})
        start += count
    return whole, own


def _of_request(kind: InputKind, value: InputTensors, r: int, rows: slice, length: int) -> InputTensors:
    pair = tuple(t[r : r + 1] if len(t) > 1 else t for t in (value if isinstance(value, tuple) else (value,)))
    first, last = pair[0], pair[-1]
    count = rows.stop - rows.start
    match kind:
        case InputKind.ROWS:
            return first[:, :, rows]
        case InputKind.TOKENS:
            return known(last, length, 0)
        case InputKind.WEIGHTS:
            return known(last, length, 0)
        case InputKind.LABELS:
            return first[:, :, rows], known(last, length, -1)
        case InputKind.TREE:
            return first[:, :count] if count <= first.shape[1] else first[:, :0]
        case _:
            return first if len(pair) == 1 else (first, last)


def known(of_keys: Tensor, length: int, past: int) -> Tensor:
    """Of the first `length` positions; `past` of those that the tensor has not."""
    found = torch.full((*of_keys.shape[:-1], length), past, dtype=of_keys.dtype)
    most = min(length, of_keys.shape[-1])
    found[..., :most] = of_keys[..., :most]
    return found

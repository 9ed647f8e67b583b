"""A 2-D attention mask, or the positions of packed sequences -> where the tokens of each sequence are.

Invariant: the tokens of a row lie in one run, or CallError is raised; a row's first token has position 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError

Spans = tuple[tuple[int, int], ...]
"""For each row of a batch, the columns [first, stop) that hold its tokens."""


def token_spans(mask: Tensor | None, batch: int, new: int) -> Spans | None:
    """The runs of ones in `mask` [batch, new]; None if all are ones."""
    if mask is None:
        return None
    ones = _ones(mask, batch, new)
    if bool(ones.all()):
        return None
    counts = ones.sum(1).tolist()
    firsts = ones.int().argmax(1).tolist()
    for row, (first, count) in enumerate(zip(firsts, counts, strict=True)):
        if not bool(ones[row, first : first + count].all()):
            raise CallError(f"expected an attention_mask with one run of ones a row, got holes in row {row}")
    return tuple((first, first + count) for first, count in zip(firsts, counts, strict=True))


def packed_bounds(positions: Tensor, tokens: int) -> tuple[int, ...] | None:
    """Where the sequences start that one row [1, tokens] packs end to end, and `tokens` last; None for one sequence.

    Raises CallError unless positions count up by 1, and from 0 in each sequence after the first.
    """
    steps = positions[0].diff()
    starts = ((steps != 1).nonzero().flatten() + 1).tolist()
    if not starts:
        return None
    if bool((positions[0, starts] != 0).any()) or int(positions[0, 0]) != 0:
        raise CallError(
            "expected position_ids that count up by 1, from 0 in each sequence that a row packs, got others"
        )
    return (0, *starts, tokens)


def given_bounds(queries: Any, keys: Any, tokens: int) -> tuple[int, ...]:
    """Likewise, from cu_seq_lens_q and cu_seq_lens_k. Raises CallError where they are not from 0 up to `tokens`."""
    if not isinstance(queries, Tensor) or not isinstance(keys, Tensor) or queries.tolist() != keys.tolist():
        raise CallError("expected cu_seq_lens_q and cu_seq_lens_k, the same ones, got others")
    bounds = tuple(int(each) for each in queries.flatten().tolist())
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != tokens or list(bounds) != sorted(bounds):
        raise CallError(f"expected cu_seq_lens_q from 0 up to the {tokens} tokens of the row, got {list(bounds)}")
    return bounds


def new_tokens(mask: Tensor | None, lengths: Sequence[int], columns: int, new: int) -> tuple[int, ...] | None:
    """How many of the last `new` columns are tokens of each row; None if all are.

    mask: [rows, columns + new], ones at tokens, with padding at the left alone. lengths: the tokens of each row among
    the first `columns`, which a cache holds already.
    """
    if mask is None:
        return None
    ones = _ones(mask, len(lengths), columns + new)
    if bool((ones[:, 1:] < ones[:, :-1]).any()):
        raise CallError(
            "expected an attention_mask padded at the left alone with a cache, got zeros after ones; "
            "generate() takes each pad_token_id in its input for padding, if it is given no attention_mask"
        )
    had = ones[:, :columns].sum(1).tolist()
    if had != list(lengths):
        raise CallError(
            f"expected an attention_mask with {list(lengths)} ones in its first {columns} columns, which the cache "
            f"holds, got {had}"
        )
    counts = tuple(ones[:, columns:].sum(1).tolist())
    return None if counts == (new,) * len(counts) else counts


def _ones(mask: Tensor, rows: int, columns: int) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        shape = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise CallError(f"expected an attention_mask [batch, tokens], got {shape}: the pattern says who sees whom")
    if tuple(mask.shape) != (rows, columns):
        raise CallError(f"expected an attention_mask [{rows}, {columns}], got {list(mask.shape)}")
    return mask.to("cpu", torch.bool)

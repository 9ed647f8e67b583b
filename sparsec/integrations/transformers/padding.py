"""A 2-D attention mask -> where the tokens of each row are, for attention that knows sequences and no masks.

Invariant: the tokens of a row lie in one run, or CallError is raised; a row's first token has position 0.
"""

from __future__ import annotations

from collections.abc import Sequence

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

"""Which sequences of a cache are in use -> how many tokens of a call are each one's own.

Invariant: no call has a token of a released sequence; where a CUDA graph is captured, each replay asks anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sparsec.diagnostics.model import CallError

NOW, _, RELEASED = range(3)
"""Rows of a cache's `state`."""


def without_released(given: Sequence[int], released: Sequence[int], *, asked: bool) -> list[int]:
    """The tokens of each sequence, none of a released one. Raises CallError where some were `asked` for."""
    for row, (own, gone) in enumerate(zip(given, released, strict=True)):
        if asked and gone and own:
            raise CallError(
                f"expected no token of sequence {row}, which is released, got {own}; nothing was written; "
                f"KVCache.admit({row}) has a sequence begin there"
            )
    return [0 if gone else own for own, gone in zip(given, released, strict=True)]


def of_live(live: Tensor, counts: Tensor | None, new: int) -> Tensor:
    """int32 [B], on the device of `live`: the counts of a call of `new` tokens (None: all of them), by what `live` says
    when they are read."""
    if counts is None:
        return live if new == 1 else live * new
    return counts * live

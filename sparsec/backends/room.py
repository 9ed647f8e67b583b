"""The room of a cache, held against a call's tokens.

Invariant: what is asked here has changed nothing yet.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.diagnostics.model import CallError


def check_room(lengths: Sequence[int], counts: Sequence[int], max_len: int) -> None:
    """Raises CallError unless `counts` more tokens fit in each sequence."""
    for row, (have, more) in enumerate(zip(lengths, counts, strict=True)):
        if have + more > max_len:
            raise CallError(
                f"expected at most {max_len} tokens in the cache, got {have} + {more} in sequence {row}; "
                "nothing was written; KVCache.grow makes room for more"
            )

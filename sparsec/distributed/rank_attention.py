"""The call of attention to a sequence that ranks hold, which is one whatever of it a rank holds.

Invariant: there is an LSE where one is asked for; else none is sent for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, overload

from torch import Tensor, nn

from sparsec.distributed.inputs import InputTensors
from sparsec.runtime.kv.cache import KVCache


class RankAttention(nn.Module):
    """What `SparseAttention.parallel` gives."""

    @overload
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        return_lse: Literal[False] = False,
        inputs: Mapping[str, InputTensors] | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        replicated: bool | None = None,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        return_lse: Literal[True],
        inputs: Mapping[str, InputTensors] | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        replicated: bool | None = None,
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        return_lse: bool = False,
        inputs: Mapping[str, InputTensors] | None = None,
        cache: KVCache | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        replicated: bool | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attends with this rank's queries, to keys of all ranks. Every rank of the plan has to make the same calls.

        q: [B, heads, tokens, head_dim], k: [B, kv_heads, tokens, head_dim], v: [B, kv_heads, tokens, value_dim]: the
        plan's tokens of this rank (`Plan.shard`); with documents B is 1.
        inputs: as of `SparseAttention`, but that what speaks of queries, or of keys, is given for this rank's tokens,
        and `blocks` by the rows of tiles that its chunks touch, chunk by chunk (`Plan.shard` with `tile`); lists name
        absolute positions; a `tree` is the same on every rank.
        cache: of `new_cache`, without gradients. While it is empty, q, k and v are a prompt: the plan's tokens of this
        rank, of sequences of the plan's length. After that they are new tokens, any number of them, which every rank
        gives and gets the output of (`replicated`: True for such tokens in an empty cache too; None: as the cache is).
        lengths: as of `SparseAttention`; a prompt's are read on the host.
        Returns this rank's output [B, heads, tokens, value_dim], and with `return_lse` its natural-log LSE, float32
        [B, heads, tokens]. Gradients of k and v come back from the ranks that needed them; that of a learned sink is
        of this rank's queries. Raises CallError, and ExchangeError if another rank has died or stalls.
        """
        out, lse = self._attended(q, k, v, inputs, cache, lengths, replicated, return_lse)
        if not return_lse:
            return out
        assert lse is not None, "asked for"
        return out, lse

    def _attended(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        inputs: Mapping[str, InputTensors] | None,
        cache: KVCache | None,
        lengths: Tensor | Sequence[int] | None,
        replicated: bool | None,
        with_lse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """The output and, unless it is not wanted and costs something, the LSE."""
        raise NotImplementedError

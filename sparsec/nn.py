"""Modules for models: a pattern with the projections around it -> a layer from and to [batch, tokens, features].

Invariant: nothing in a module depends on the length, so one graph of `torch.compile` serves every length.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.model import CallError
from sparsec.program import Pattern
from sparsec.runtime.compile import compile
from sparsec.runtime.kv.cache import KVCache
from sparsec.sema.arguments import Given

__all__ = ["SelfAttention"]


class SelfAttention(nn.Module):
    """Self-attention with a pattern: projections to queries, keys and values, the compiled pattern, and one back.

    embed_dim: features of a token. heads, kv_heads: query heads, and KV heads that divide them (all if left out).
    pattern: a Pattern, a path (a Path, or a string that ends in `.sparse`), or source text; `name` and `params` choose
    the pattern of a file and override its parameters. head_dim: embed_dim / heads if left out.
    rotary: turn queries and keys by their position, from 0, the halves of a head as pairs, by rotary_base. Scores then
    depend on distances, so packed documents need no positions of their own.
    bias: of the four projections. dtype, device: of the parameters, as for `torch.nn.Linear`.
    kernel_dtype: of the attention itself, `dtype` if left out: float32 parameters under autocast may want bfloat16.
    target: as for `sparsec.compile`.

    Attributes: `q_proj`, `k_proj`, `v_proj`, `o_proj` (torch.nn.Linear) and `attention` (sparsec.SparseAttention).
    Raises CallError for a wrong argument, DiagnosticError for a bad pattern, BuildError if the compiler fails.
    """

    def __init__(
        self,
        embed_dim: int,
        heads: int,
        kv_heads: int | None = None,
        *,
        pattern: Pattern | Path | str,
        name: str | None = None,
        params: Mapping[str, Given] | None = None,
        head_dim: int | None = None,
        rotary: bool = False,
        rotary_base: float = 10000.0,
        bias: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        kernel_dtype: torch.dtype | None = None,
        target: str | None = None,
    ) -> None:
        super().__init__()
        embed_dim, heads = integer("embed_dim", embed_dim, 1), integer("heads", heads, 1)
        if head_dim is None and embed_dim % heads:
            raise CallError(f"expected heads that divide embed_dim, or a head_dim, got {heads} heads for {embed_dim}")
        size = embed_dim // heads if head_dim is None else integer("head_dim", head_dim, 1)
        if rotary and size % 2:
            raise CallError(f"expected an even head_dim with rotary, got {size}")
        if rotary_base <= 0:
            raise CallError(f"expected rotary_base above 0, got {rotary_base}")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        where = torch.get_default_device() if device is None else device
        self.attention = compile(
            pattern,
            heads=heads,
            kv_heads=heads if kv_heads is None else kv_heads,
            head_dim=size,
            dtype=dtype if kernel_dtype is None else kernel_dtype,
            device=None if str(where) == "meta" else where,  # parameters that wait for their values; kernels do not
            target=target,
            name=name,
            params=params,
        ).to(device)
        self.embed_dim, self.rotary_base = embed_dim, rotary_base if rotary else None

        def linear(n_in: int, n_out: int) -> nn.Linear:
            return nn.Linear(n_in, n_out, bias=bias, dtype=dtype, device=device)

        self.q_proj = linear(embed_dim, self.attention.heads * size)
        self.k_proj = linear(embed_dim, self.attention.kv_heads * size)
        self.v_proj = linear(embed_dim, self.attention.kv_heads * size)
        self.o_proj = linear(self.attention.heads * size, embed_dim)

    def forward(
        self,
        x: Tensor,
        cu_seqlens: Tensor | None = None,
        *,
        cache: KVCache | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """x: [B, N, embed_dim], of the parameters' dtype or under autocast. Returns the same shape.

        cu_seqlens: int32 [documents + 1], for patterns with `documents` alone; B is then 1. cache: of
        `SparseAttention.new_cache`; x are then the N tokens that follow those in it. lengths: with a cache, int [B],
        how many of the N each sequence has, the last ones, as for `SparseAttention.forward`. Raises CallError.
        """
        if x.dim() != 3 or x.shape[2] != self.embed_dim:
            raise CallError(f"expected x of shape [B, N, {self.embed_dim}], got {list(x.shape)}")
        attention = self.attention
        q, k, v = (
            project(x).unflatten(2, (-1, attention.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.rotary_base is not None:
            positions = torch.arange(x.shape[1], device=x.device)
            if cache is not None:  # read on the device, [B, 1, N]: a graph of one step serves them all
                positions = cache.lengths_tensor[:, None, None] + positions
                if lengths is not None:
                    positions = positions + (lengths.to(x.device) - x.shape[1])[:, None, None]
            cos, sin = _turns(positions, attention.head_dim, self.rotary_base)
            q, k = _turned(q, cos, sin), _turned(k, cos, sin)
        of_kernel = attention.dtype
        out = attention(
            q.to(of_kernel), k.to(of_kernel), v.to(of_kernel), cu_seqlens=cu_seqlens, cache=cache, lengths=lengths
        )
        return self.o_proj(out.transpose(1, 2).flatten(2).to(self.o_proj.weight.dtype))  # type: ignore[no-any-return]  # torch leaves a module's call untyped

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, rotary_base={self.rotary_base}"


def _turns(positions: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine [..., N, head_dim / 2], in float32 whatever the model's dtype: bfloat16 cannot count to 300."""
    pairs = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions.float()[..., None] * base ** (-pairs / head_dim)
    return angles.cos(), angles.sin()


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, heads, N, D] with the pair of features (d, d + D/2) turned by angle d of each position."""
    left, right = x.float().chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, left * sin + right * cos), dim=-1).to(x.dtype)

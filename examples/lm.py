"""A small decoder for the examples: `sparsec.nn.SelfAttention`, a perceptron, and norms; and a progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import sparsec
from sparsec.nn import SelfAttention
from sparsec.runtime.kv.cache import KVCache


@dataclass(frozen=True, slots=True)
class Layer:
    """The pattern of a layer, or its `name` in a file or text, with `params`; `rotary` gives it positions.

    With `bias` a head can look at a distance whatever the symbols are.
    """

    pattern: str | sparsec.Pattern
    name: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    rotary: bool = True
    rotary_base: float = 10000.0
    bias: bool = False


class Block(nn.Module):
    def __init__(
        self, embed_dim: int, heads: int, kv_heads: int | None, head_dim: int | None, layer: Layer, device: str
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(embed_dim, device=device) for _ in range(2))
        self.attention = SelfAttention(
            embed_dim,
            heads,
            kv_heads,
            pattern=layer.pattern,
            name=layer.name,
            params=layer.params or None,
            head_dim=head_dim,
            rotary=layer.rotary,
            rotary_base=layer.rotary_base,
            bias=layer.bias,
            device=device,
            kernel_dtype=torch.float32 if device == "cpu" else torch.bfloat16,
        )
        self.expand = nn.Linear(embed_dim, 4 * embed_dim, device=device)
        self.contract = nn.Linear(4 * embed_dim, embed_dim, device=device)

    def forward(self, x: Tensor, cache: KVCache | None) -> Tensor:
        x = x + self.attention(self.norms[0](x), cache=cache)
        hidden = nn.functional.gelu(self.expand(self.norms[1](x)), approximate="tanh")
        return x + self.contract(hidden)  # type: ignore[no-any-return]  # a module's call is untyped


class Decoder(nn.Module):
    """Symbols [B, N] below `vocabulary` -> logits [B, N, vocabulary]. The same seed gives the same weights.

    With `caches`, one a layer, the symbols follow those that the caches hold; then without `smear`.

    With `smear` a token's features hold those of the one before it too, through a learned matrix, as in H3 or Mamba.
    """

    def __init__(
        self,
        vocabulary: int,
        embed_dim: int,
        heads: int,
        layers: Sequence[Layer],
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        embedding_std: float = 0.02,
        smear: bool = False,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(vocabulary, embed_dim, device=device)
        self.smear = nn.Linear(embed_dim, embed_dim, bias=False, device=device) if smear else None
        blocks = [Block(embed_dim, heads, kv_heads, head_dim, layer, device) for layer in layers]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(embed_dim, device=device)
        self.head = nn.Linear(embed_dim, vocabulary, bias=False, device=device)
        nn.init.normal_(self.embedding.weight, std=embedding_std)
        nn.init.normal_(self.head.weight, std=0.02)
        for block in blocks:
            for linear in (each for each in block.modules() if isinstance(each, nn.Linear)):
                nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            for out in (block.attention.o_proj, block.contract):
                nn.init.normal_(out.weight, std=(2 * len(blocks) * out.in_features) ** -0.5)

    def forward(self, symbols: Tensor, caches: Sequence[KVCache] | None = None) -> Tensor:
        x = self.embedding(symbols)
        if self.smear is not None:
            x = x + nn.functional.pad(self.smear(x)[:, :-1], (0, 0, 1, 0))
        for n, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[n])
        return self.head(self.norm(x))  # type: ignore[no-any-return]  # a module's call is untyped


def attentions(model: nn.Module) -> list[sparsec.SparseAttention]:
    return [module for module in model.modules() if isinstance(module, sparsec.SparseAttention)]


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int, str], None]]:
    """Gives a function of (steps done, what to say); draws on stderr where that is a terminal."""
    started, seen = time.perf_counter(), sys.stderr.isatty()

    def show(done: int, text: str) -> None:
        if not seen:
            return
        full = 30 * done // total
        left = (time.perf_counter() - started) * (total - done) / max(done, 1)
        bar = "#" * full + "-" * (30 - full)
        sys.stderr.write(f"\r\x1b[2K[{bar}] {done}/{total}  {text}  {left:.0f} s left")
        sys.stderr.flush()

    show(0, "")
    try:
        yield show
    finally:
        if seen:
            sys.stderr.write("\r\x1b[2K")

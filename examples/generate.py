"""Generates from a long prompt with a KV cache that keeps only the keys which the pattern can still need.

A decoder with random weights, LongGen's layers (the first with full attention, the others sparse), reads the prompt in
chunks and then writes greedily. The same weights then do it again over a cache that keeps every key, with the pattern
as a dense mask from its reference meaning: the tokens must be the same, and the figures stand side by side.

    python examples/generate.py                  a prompt of 32,768 tokens, 256 new ones
    python examples/generate.py --quick          some seconds: shows that it runs
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from lm import Decoder, Layer, progress_bar
from torch import Tensor

import sparsec
from sparsec.runtime.kv.cache import KVCache

HERE = Path(__file__).parent
VOCABULARY = 256
MASK_ROWS = 256
"""Queries whose dense mask is made at a time."""


class DenseCache:
    """Every key and value of one layer; attends under rows of the pattern's mask, which is the same for all heads."""

    def __init__(self, attention: sparsec.SparseAttention, pattern: sparsec.Pattern, max_len: int) -> None:
        shape = (1, attention.kv_heads, max_len, attention.head_dim)
        self.pattern = pattern.resolve(1, 1)
        self.keys, self.values = torch.zeros(shape), torch.zeros(shape)
        self.lengths_tensor = torch.zeros(1, dtype=torch.int32)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from sparsec.reference import mask

        start = int(self.lengths_tensor)
        stop = start + q.shape[2]
        self.keys[:, :, start:stop], self.values[:, :, start:stop] = k, v
        self.lengths_tensor += q.shape[2]
        parts = []
        for first in range(start, stop, MASK_ROWS):
            last = min(first + MASK_ROWS, stop)
            live = mask(self.pattern, last - first, last, q_offset=first)
            parts.append(
                torch.nn.functional.scaled_dot_product_attention(
                    q[:, :, first - start : last - start],
                    self.keys[:, :, :last],
                    self.values[:, :, :last],
                    attn_mask=live,
                    enable_gqa=q.shape[1] != k.shape[1],
                )
            )
        return torch.cat(parts, dim=2)


class Masked(torch.nn.Module):
    """Stands where a SparseAttention stood, and attends over a DenseCache."""

    def __init__(self, attention: sparsec.SparseAttention) -> None:
        super().__init__()
        self.head_dim, self.dtype = attention.head_dim, attention.dtype

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens: None, cache: DenseCache, lengths: None) -> Tensor:
        return cache.attend(q, k, v)


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds of the prompt and of each new token after the first, and what the caches of all layers hold."""

    tokens: list[int]
    prompt_seconds: float
    token_seconds: float
    nbytes: int


@torch.no_grad()
def generate(
    model: Decoder, caches: list[KVCache] | list[DenseCache], prompt: Tensor, new: int, chunk: int, what: str
) -> Run:
    """Reads prompt [1, N] in chunks, then takes the likeliest token `new` times."""
    started, length = time.perf_counter(), prompt.shape[1]
    with progress_bar(length + new) as show:
        for first in range(0, length, chunk):
            logits = model(prompt[:, first : first + chunk], caches)[:, -1]
            show(min(first + chunk, length), what)
        read = time.perf_counter()
        tokens = [int(logits.argmax())]
        while len(tokens) < new:
            logits = model(torch.tensor([tokens[-1:]]), caches)[:, -1]
            tokens.append(int(logits.argmax()))
            show(length + len(tokens), what)
    done = time.perf_counter()
    nbytes = sum(cache.nbytes for cache in caches)
    return Run(tokens, read - started, (done - read) / max(new - 1, 1), nbytes)


def patterns(depth: int) -> list[sparsec.Pattern]:
    program = sparsec.load(HERE / "longgen.sparse")
    sparse, full = program.pattern("longgen_blocks"), program.pattern("longgen_full")
    return [full if layer == depth // 2 else sparse for layer in range(depth)]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=32_768, help="tokens of the prompt")
    parser.add_argument("--new", type=int, default=256, help="tokens to generate")
    parser.add_argument("--chunk", type=int, default=4096, help="tokens of the prompt read at a time")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--embed-dim", type=int, default=256)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a short prompt")
    return parser


def main() -> None:
    options = arguments().parse_args()
    if options.quick:
        options.prompt, options.new, options.chunk = 1500, 20, 500
    layers = [Layer(pattern) for pattern in patterns(options.layers)]
    model = Decoder(
        VOCABULARY,
        options.embed_dim,
        options.heads,
        layers,
        kv_heads=options.kv_heads,
        head_dim=options.head_dim,
        embedding_std=1.0,
        seed=options.seed,
    ).eval()
    prompt = torch.randint(VOCABULARY, (1, options.prompt), generator=torch.Generator().manual_seed(options.seed))
    longest = options.prompt + options.new
    attentions = [block.attention.attention for block in model.blocks]
    print(
        f"{options.layers} layers ({', '.join(pattern.name for pattern in patterns(options.layers))}), {options.heads} "
        f"query heads on {options.kv_heads} KV heads of {options.head_dim}, prompt {options.prompt}, {options.new} new "
        f"tokens, {torch.get_num_threads()} threads\n"
    )
    evicting = [attention.new_cache(1, longest) for attention in attentions]
    ours = generate(model, evicting, prompt, options.new, options.chunk, "evicting cache")
    dense = [
        DenseCache(attention, pattern, longest)
        for attention, pattern in zip(attentions, patterns(options.layers), strict=True)
    ]
    for block in model.blocks:
        block.attention.attention = Masked(block.attention.attention)
    theirs = generate(model, dense, prompt, options.new, options.chunk, "dense cache, masked")
    report(ours, theirs, options.prompt)


def report(ours: Run, theirs: Run, prompt: int) -> None:
    print(f"{'':22}{'cache MB':>10}{'prompt tokens/s':>17}{'ms a new token':>16}{'new tokens/s':>14}")
    for name, run in (("evicting cache", ours), ("dense cache, masked", theirs)):
        print(
            f"{name:22}{run.nbytes / 1e6:>10.1f}{prompt / run.prompt_seconds:>17.0f}"
            f"{run.token_seconds * 1e3:>16.1f}{1 / run.token_seconds:>14.1f}"
        )
    same = ours.tokens == theirs.tokens
    print(f"\n{len(ours.tokens)} tokens, {'the same' if same else 'NOT the same'} in both runs")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

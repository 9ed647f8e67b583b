"""Small random Llamas, with a tokenizer of numbers, saved as transformers does; and the tokens that they are to give.

Invariant: what is held against the server's tokens comes from transformers alone, with the pattern's dense mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
import transformers
from torch import Tensor

import sparsec

VOCABULARY = 512


@dataclass(frozen=True, slots=True)
class Sizes:
    layers: int = 2
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 32
    longest: int = 36_000
    dtype: torch.dtype = torch.float32


def save(folder: Path, text: str, sizes: Sizes) -> Path:
    """The folder of a model whose config asks for the pattern `text`; without one if it is empty."""
    torch.manual_seed(0)
    width = sizes.heads * sizes.head_dim
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        max_position_embeddings=sizes.longest,
        initializer_range=0.15,  # so that the logits of a random model are apart
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    if text:
        config.sparsec = {"text": text}
    model = transformers.LlamaForCausalLM(config).to(sizes.dtype).eval()
    model.save_pretrained(folder)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w3"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="w0", eos_token="w1", pad_token="w2", unk_token="w3"
    ).save_pretrained(folder)
    return folder


def prompt(tokens: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, VOCABULARY, (tokens,), generator=generator).tolist()


class Reference:
    """transformers' model with, in each layer, the dense mask of the layer's pattern."""

    def __init__(self, folder: Path, text: str, sizes: Sizes) -> None:
        self.model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=sizes.dtype).eval()
        self.model.set_attn_implementation("sdpa")
        program, self.sizes, self.masks = sparsec.parse(text), sizes, list[Tensor]()
        patterns = program.model() if program.models else None
        self.patterns = [patterns.layer(n) if patterns else program.pattern() for n in range(sizes.layers)]
        for layer, block in enumerate(self.model.model.layers):
            block.self_attn.register_forward_pre_hook(self._masked(layer), with_kwargs=True)

    def _masked(self, layer: int):  # type: ignore[no-untyped-def]  # a hook of torch
        def hook(module, args, kwargs):  # type: ignore[no-untyped-def]  # a hook of torch
            return args, {**kwargs, "attention_mask": self.masks[layer]}

        return hook

    @torch.no_grad()
    def first_wrong(self, prompt: list[int], given: list[int]) -> tuple[int, float] | None:
        """Of the tokens that were given after a prompt, the first that is not the likeliest, and by how much.

        Where there is none, every token is what greedy decoding gives.
        """
        ids = torch.tensor([prompt + given])
        n, made = ids.shape[1], dict[int, Tensor]()
        for pattern in self.patterns:
            if id(pattern) not in made:
                heads = self.sizes.heads, self.sizes.kv_heads
                alike = len(set(pattern.resolve(*heads).terms)) == 1
                made[id(pattern)] = pattern.mask(n, n, *((1, 1) if alike else heads))[None]
        self.masks = [made[id(pattern)] for pattern in self.patterns]
        logits = self.model(ids, use_cache=False, logits_to_keep=len(given) + 1).logits[0, :-1].float()
        best = logits.max(dim=-1)
        for n, token in enumerate(given):
            if token != int(best.indices[n]):
                return n, float(best.values[n] - logits[n, token])
        return None

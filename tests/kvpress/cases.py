"""The models, presses and prompts of the comparison; both sides read them here.

Invariant: a press is made anew for each use, and both sides make the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from kvpress import AdaKVPress, ExpectedAttentionPress, KnormPress, SnapKVPress, TOVAPress
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen3Config, Qwen3ForCausalLM

RATIO, LENGTH, ROWS, FOLLOWING = 0.7, 300, 2, 4
SIZES = {
    "vocab_size": 211,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.2,  # far from uniform attention, so that heads differ
}
MODELS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "phi3": (Phi3ForCausalLM, Phi3Config(**SIZES, pad_token_id=0)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES)),
}
PRESSES: dict[str, Callable[[], Any]] = {
    "SnapKV": lambda: SnapKVPress(RATIO, window_size=32),
    "Knorm": lambda: KnormPress(RATIO),
    "ExpectedAttention": lambda: ExpectedAttentionPress(RATIO),
    "TOVA": lambda: TOVAPress(RATIO),
    "AdaKV of SnapKV": lambda: AdaKVPress(SnapKVPress(RATIO, window_size=32)),
}


def tokens() -> Tensor:
    """Prompts, and tokens that follow them."""
    return torch.randint(3, 211, (ROWS, LENGTH + FOLLOWING), generator=torch.Generator().manual_seed(5))

"""Sizes of models that tests make, as configurations of decoders in transformers take them."""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
SMALL = TINY | {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 32, "max_position_embeddings": 128}
PEAKED = {"initializer_range": 0.3}
"""Weights far from uniform, so that attention decides."""

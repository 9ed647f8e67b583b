"""transformers' names of causal language models -> small random ones of each kind.

Invariant: the same name and seed give the same model.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 96
PLAIN = 16
"""The first token without a meaning of its own."""

Sizes = dict[str, Any]


class Absent(Exception):
    """A type that this version of transformers cannot build."""


def entries() -> tuple[str, ...]:
    """The model types that `AutoModelForCausalLM` knows."""
    return tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def make(name: str, seed: int = 0) -> Any:
    """A small random model of that type, in eval mode, with its own eager attention."""
    if name == "gemma4_assistant":
        raise Absent("its config wants every layer to take the keys of another, and then fails for want of that other")
    config = _config(CONFIG_MAPPING[name], _sizes(random.Random(f"{name} {seed}")), OWN.get(name, {}))
    found = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]
    model_class = getattr(transformers, found if isinstance(found, str) else found[0])
    for part, kind in getattr(type(config), "sub_configs", {}).items():
        if kind is model_class.config_class:
            config = getattr(config, part)
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter.is_floating_point():
            nn.init.normal_(parameter, std=0.15)  # large enough that attention decides what comes out
    return model


def _sizes(generator: random.Random) -> Sizes:
    """Sizes under the names that configs have for them."""
    heads, kv_heads = generator.choice(((4, 1), (4, 2), (4, 4), (2, 2)))
    hidden = 64
    widths = (
        "hidden_size",
        "n_embd",
        "d_model",
        "dim",
        "n_embed",
        "dim_model",
        "emb_dim",
        "embed_dim",
        "embedding_size",
    )
    depths = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")
    head_counts = ("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "encoder_attention_heads")
    inner = ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "n_inner", "ffn_hidden_size", "dff")
    expert = (
        "moe_intermediate_size",
        "shared_expert_intermediate_size",
        "dim_ff",
        "moe_shared_expert_intermediate_size",
    )
    lengths = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length")
    experts = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    head_dims = ("head_dim", "dim_head", "kv_channels", "attention_head_dim", "global_head_dim")
    return {
        "vocab_size": VOCABULARY,
        "vocab_size_per_layer_input": VOCABULARY,
        **dict.fromkeys(widths, hidden),
        **dict.fromkeys(depths, generator.choice((2, 3))),
        **dict.fromkeys(("layers", "depth"), 2),
        **dict.fromkeys((*head_counts, "num_heads"), heads),
        **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), kv_heads),
        **dict.fromkeys(head_dims, hidden // heads),
        **dict.fromkeys(("rotary_dim", "hidden_size_per_layer_input"), 8),
        **dict.fromkeys((*inner, *expert), 48),
        **dict.fromkeys(("expert_ffn_hidden_size", "intermediate_size_mlp", "shared_intermediate_size"), 48),
        **dict.fromkeys(lengths, 128),
        **dict.fromkeys(experts, 4),
        **dict.fromkeys(("num_experts_per_tok", "moe_topk", "num_selected_experts", "moe_k", "moe_top_k"), 2),
        **dict.fromkeys(("n_group", "topk_group", "n_shared_experts"), 1),
        **{"q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
        **{"is_decoder": True, "is_encoder_decoder": False, "add_cross_attention": False},
        **{"image_size": 16, "patch_size": 8, "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 8},
    }


SHARED = {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4, "num_kv_shared_layers": 2}

LATENT = {"num_attention_heads": 4, "num_key_value_heads": 4}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1e4}

OWN: Mapping[str, Sizes] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots3_note_text"), LATENT),
    **dict.fromkeys(("glm_moe_dsa", "minicpm3", "glm4_moe_lite", "youtu"), LATENT),
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "blt_local_encoder": {"hidden_size_global": 64},
    "blt_local_decoder": {"hidden_size_global": 64},
    "cohere_compass_text": {"rope_parameters": {"full_attention": PLAIN_ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}},
    "dots3_note_audio_encoder": {"adapter_input_size": 64, "adapter_out_dim": 64},
    "dots3_note_vision_encoder": {"num_hidden_layers": 42, "adapter_in_dim": 64, "adapter_out_dim": 64},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma3n_text": SHARED,
    "gemma4_text": SHARED,
    "gemma4_unified_text": SHARED,
    "gpt_neo": {"num_hidden_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "longcat_flash": {"head_dim": 8},
    "lfm2_moe": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 16, "expand": 2},
    "moshi": {"audio_vocab_size": 32},
    "reformer": {"axial_pos_embds_dim": (16, 48), "axial_pos_shape": (8, 16), "attn_layers": ["local", "local"]},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
    "zamba2": {"num_hidden_layers": 2, "layers_block_type": ["linear_attention", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
    "musicgen_decoder": {"num_codebooks": 1},
    "musicgen_melody_decoder": {"num_codebooks": 1},
}
"""What a type needs beside or in place of the sizes that all get; a type may be that of a sub-config."""

DRAFTS = ("gemma4_unified_assistant",)
"""Types that run on the states of another model alone."""


def _config(config_class: Any, sizes: Sizes, own: Sizes) -> Any:
    """A config of the class: of `sizes` what its constructor takes, in its sub-configs too, and of `own` all."""
    given = {name: value for name, value in sizes.items() if name in _names(config_class)}
    for name, kind in getattr(config_class, "sub_configs", {}).items():
        part = type(getattr(config_class(), name)) if kind is transformers.AutoConfig else kind
        if issubclass(part, transformers.PreTrainedConfig):
            given[name] = _config(part, sizes, OWN.get(part.model_type, {}))
    return config_class(**given | own)


def _names(config_class: Any) -> set[str]:
    names = set(inspect.signature(config_class.__init__).parameters) | set(config_class.attribute_map)
    return names.union(*(vars(each).get("__annotations__", {}) for each in config_class.__mro__))

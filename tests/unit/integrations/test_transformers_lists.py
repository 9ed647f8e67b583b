"""Models that choose their keys: their lists reach a pattern's inputs; and selectors for the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

import sparsec
from sparsec.integrations.transformers import apply, remove

TOKENS = "pattern dsa { input picks : rows  causal  attend picks }"
BLOCKS = "pattern msa { block 16  input picks : rows(blocks)  causal  attend picks }"
MIXED = f"""
{BLOCKS}
pattern dense {{ causal attend full }}
model m {{ layers 3  where l == 0 use dense  otherwise use msa }}
"""
IDS = torch.arange(2 * 40).reshape(2, 40) * 29 % 97


def deepseek() -> PreTrainedModel:
    found = pytest.importorskip("transformers.models.deepseek_v32", reason="transformers 5.4 has no such model")
    torch.manual_seed(0)
    config = found.DeepseekV32Config(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        moe_intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=32,
        kv_lora_rank=16,
        qk_nope_head_dim=16,
        qk_rope_head_dim=8,
        v_head_dim=12,
        index_n_heads=2,
        index_head_dim=16,
        index_topk=6,
        max_position_embeddings=128,
        pad_token_id=0,
        eos_token_id=None,
    )
    model: PreTrainedModel = found.DeepseekV32ForCausalLM(config).eval()
    return model


def minimax() -> PreTrainedModel:
    name = "transformers.models.minimax_m3_vl"
    found = pytest.importorskip(f"{name}.modeling_minimax_m3_vl", reason="transformers 5.4 has no such model")
    torch.manual_seed(0)
    config = pytest.importorskip(name).MiniMaxM3VLTextConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=32,
        dense_intermediate_size=96,
        shared_intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
        mlp_layer_types=["dense", "sparse", "sparse"],
        index_n_heads=2,
        index_head_dim=8,
        index_block_size=16,
        index_topk_blocks=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model: PreTrainedModel = found.MiniMaxM3VLForCausalLM(config).eval()
    return model


MODELS = {"deepseek": (deepseek, TOKENS), "minimax": (minimax, MIXED)}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", ["torch", pytest.param("cpu", marks=pytest.mark.kernels)])
def test_logits_and_gradients_are_those_of_eager_attention(name: str, target: str) -> None:
    make, text = MODELS[name]
    own, mine = make(), make()
    own.set_attn_implementation("eager")
    apply(mine, sparsec.parse(text), target=target)
    for model in (own, mine):
        model.train()
    expected, found = (model(IDS, use_cache=False).logits for model in (own, mine))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for logits in (expected, found):
        (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    for (label, theirs), ours in zip(own.named_parameters(), mine.parameters(), strict=True):
        assert (theirs.grad is None) == (ours.grad is None), label
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-4, rtol=1e-3, msg=label)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:the cache keeps every key")
def test_generate_gives_the_tokens_of_eager_attention(name: str) -> None:
    make, text = MODELS[name]
    model = make()
    model.set_attn_implementation("eager")
    mask = torch.ones_like(IDS)
    if name == "deepseek":
        mask[1, :9] = 0  # padding at the left, which lists of tokens are counted without
    arguments = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False}
    expected = model.generate(IDS, **arguments)
    apply(model, sparsec.parse(text), target="torch")
    assert torch.equal(model.generate(IDS, **arguments), expected)
    beams = model.generate(IDS, **arguments, num_beams=3)
    remove(model)
    assert torch.equal(model.generate(IDS, **arguments, num_beams=3), beams)


def test_padding_before_blocks_is_refused() -> None:
    model = apply(minimax(), sparsec.parse(MIXED), target="torch")
    mask = torch.ones_like(IDS)
    mask[0, :3] = 0
    with pytest.raises(sparsec.SparsecError, match="expected no padding at the left"):
        model(IDS, attention_mask=mask, use_cache=False)


def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    return LlamaForCausalLM(config).eval()


def test_a_selector_gives_what_a_pattern_asks() -> None:
    seen: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []

    def everything(layer: int, q: Tensor, k: Tensor) -> dict[str, Tensor]:
        seen.append((layer, tuple(q.shape), tuple(k.shape)))
        rows, columns = -(-q.shape[2] // 64), -(-k.shape[2] // 64)
        return {"tiles": torch.ones((1, 1, rows, columns), dtype=torch.bool)}

    model = llama()
    expected = model(IDS, use_cache=False).logits
    apply(
        model,
        sparsec.parse("pattern p { input tiles : blocks causal attend tiles }"),
        target="torch",
        inputs=everything,
    )
    torch.testing.assert_close(model(IDS, use_cache=False).logits, expected, atol=1e-5, rtol=1e-5)
    assert seen == [(layer, (2, 4, 40, 16), (2, 2, 40, 16)) for layer in range(2)]


@pytest.mark.parametrize(
    ("make", "text", "message"),
    [
        (llama, TOKENS, "expected inputs=, a function that gives 'picks'"),
        (deepseek, BLOCKS, "expected a pattern with one input of kind rows, .* got none"),
        (deepseek, "pattern p { causal attend full }", "expected a pattern with one input of kind rows, .* got none"),
        (minimax, MIXED.replace("block 16", "block 32"), "expected a pattern with block 16, .* got block 32"),
        (
            deepseek,
            "pattern p { input picks : rows  input more : tokens  causal  attend picks | more }",
            "expected inputs=, a function that gives 'more'",
        ),
    ],
)
def test_what_a_model_and_a_pattern_lack(make: object, text: str, message: str) -> None:
    assert callable(make)
    with pytest.raises(sparsec.SparsecError, match=message):
        apply(make(), sparsec.parse(text), target="torch")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"spots": None}, "expected inputs= to return 'marks' for layer 0, got 'spots'"),
        ({"marks": None, "more": None}, "expected inputs= to return 'marks' for layer 0, got 'marks', 'more'"),
        ({}, "expected inputs= to return 'marks' for layer 0, got none"),
        (None, "expected inputs= to return a dict with 'marks' for layer 0, got NoneType"),
    ],
)
def test_a_selector_that_gives_something_else(given: object, message: str) -> None:
    """`picks` is given by the layers, and so it is not for the selector to give."""
    text = "pattern p { input picks : rows input marks : tokens causal attend picks | marks }"
    model = deepseek()
    with pytest.raises(sparsec.SparsecError, match=message):
        apply(model, sparsec.parse(text), target="torch", inputs=lambda layer, q, k: given)  # type: ignore[arg-type,return-value]  # what is wrong is what is tested
        model(IDS, use_cache=False)

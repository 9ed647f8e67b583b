"""What a model or a call asks for, and a pattern cannot give, is a CallError that names both."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from tiny_models import SMALL
from torch import Tensor
from transformers.masking_utils import create_causal_mask

import sparsec
from sparsec.integrations.transformers import apply, new_cache, remove

SIZES = SMALL | {"head_dim": 16}
PATTERN = "pattern p { causal attend window(6) | sink(2) }"

Model = transformers.PreTrainedModel
Call = Callable[[Model, Tensor], object]


def llama(**changes: Any) -> Model:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | changes))


def mistral(**changes: Any) -> Model:
    return transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES | {"sliding_window": 8} | changes))


def gemma3(**changes: Any) -> Model:
    own = {"sliding_window": 8, "layer_types": ["full_attention"] * 2}
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**SIZES | own | changes))


def gpt_oss() -> Model:
    own = {"num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["full_attention"] * 2}
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(**SIZES | own))


def t5() -> Model:
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=8, num_layers=1, num_heads=4)
    )


@pytest.mark.parametrize(
    ("make", "text", "message"),
    [
        (llama, "pattern p { heads 8 kv 2 causal attend full }", "(?s)8.*4"),
        (llama, "pattern p { causal attend full scale 0.5 }", r"model's scale 0\.25, got scale 0\.5"),
        (llama, PATTERN.replace("}", "learned_sink }"), "without learned_sink; got one with it"),
        (gpt_oss, PATTERN, "with learned_sink, for the model has sinks; got one without it"),
        (mistral, PATTERN, "layer 0 of the model has its own sliding_window 8"),
        (lambda: gemma3(layer_types=["full_attention", "sliding_attention"]), PATTERN, "layer 1 .* sliding_attention"),
        (lambda: gemma3(attn_logit_softcapping=30.0), PATTERN, "the model's `softcap 30`, got None"),
        (lambda: gemma3(use_bidirectional_attention=True), PATTERN, "a model whose mask is causal"),
        (t5, PATTERN, "expected a causal LM, got the encoder-decoder T5"),
        (lambda: torch.nn.Linear(2, 2), PATTERN, "expected a model of transformers, got Linear"),
        (
            llama,
            PATTERN + "model m { layers 3 otherwise use p }",
            "model 'm': expected layers=3, as its file says, got layers=2",
        ),
        (llama, PATTERN + PATTERN.replace("p {", "r {"), "one of: p, r; got no name"),
    ],
)
def test_a_model_that_the_pattern_does_not_fit(make: Callable[[], Model], text: str, message: str) -> None:
    model = make()
    with pytest.raises(sparsec.CallError, match=message):
        apply(model, text, target="torch")
    if hasattr(model, "config"):
        assert model.config._attn_implementation != "sparsec" and not hasattr(model.config, "sparsec")


@pytest.mark.parametrize(
    "text", ["pattern p { attend window(3, ahead = 3) }", "pattern p { documents causal attend full }"]
)
def test_a_pattern_that_is_not_of_one_causal_sequence(text: str) -> None:
    with pytest.raises(sparsec.DiagnosticError):
        apply(llama(), text, target="torch")


def test_a_softcap_and_a_window_that_agree() -> None:
    model = gemma3(attn_logit_softcapping=30.0, layer_types=["sliding_attention"] * 2)
    apply(model, PATTERN.replace("}", "softcap 30 }"), replace_window=True, target="torch")
    assert model(torch.ones(1, 4, dtype=torch.int64)).logits.isfinite().all()


@pytest.fixture(scope="module")
def model() -> Model:
    return apply(llama(), PATTERN, target="torch").eval()


def padded(*columns: int) -> Tensor:
    mask = torch.ones(2, 6, dtype=torch.int64)
    mask[1, list(columns)] = 0
    return mask


def after_a_prefill(model: Model, ids: Tensor, mask: Tensor) -> object:
    cache = new_cache(model, 16)
    model(ids[:, :4], past_key_values=cache)
    return model(ids[:, 4:], past_key_values=cache, attention_mask=mask)


def wider_mask(model: Model, ids: Tensor) -> object:
    return create_causal_mask(
        config=model.config,
        inputs_embeds=model.model.embed_tokens(ids),
        attention_mask=None,
        past_key_values=None,
        or_mask_function=lambda b, h, q, k: k < 2,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, i: m(i, attention_mask=torch.zeros(2, 1, 6, 6)), r"\[batch, tokens\], got \[2, 1, 6, 6\]"),
        (lambda m, i: m(i, attention_mask={"full_attention": None}), "got dict"),
        (lambda m, i: m(i, attention_mask=padded(2)), "got holes in row 1"),
        (lambda m, i: m(i, attention_mask=torch.ones(2, 7)), r"attention_mask \[2, 6\], got \[2, 7\]"),
        (lambda m, i: m(i, output_attentions=True), "output_attentions=False"),
        (lambda m, i: m(i, past_key_values=transformers.DynamicCache()), "new_cache.*, got DynamicCache"),
        (lambda m, i: m(i, position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]])), "count up by 1"),
        (lambda m, i: m(i, cu_seq_lens_q=torch.tensor([0, 12])), "expected cu_seq_lens_q with one row"),
        (lambda m, i: m(i, is_causal=False), "is_causal=False"),
        (lambda m, i: m(i, head_mask=torch.ones(4)), "takes q, k and v alone, got head_mask"),
        (lambda m, i: wider_mask(m, i), "one that adds pairs"),
        (lambda m, i: m(i, past_key_values=new_cache(m, 5)), r"at most 5 tokens in the cache, got 0 \+ 6"),
        (lambda m, i: m(i, past_key_values=new_cache(m, 9), attention_mask=padded(5)), "left alone"),
        (lambda m, i: after_a_prefill(m, i, padded(0)), r"\[4, 4\] ones in its first 4 columns.*, got \[4, 3\]"),
        (lambda m, i: after_a_prefill(m, i, padded()[:, 4:]), r"attention_mask \[2, 6\], got \[2, 2\]"),
        (lambda m, i: m.generate(i, attention_mask=padded(5), max_new_tokens=2), "left alone"),
        (lambda m, i: m.generate(i, cache_implementation="static", max_new_tokens=2), "cache_implementation.*'static'"),
        (lambda m, i: m.generate(i, past_key_values=transformers.DynamicCache(), max_new_tokens=2), "got DynamicCache"),
        (lambda m, i: new_cache(m, 0), "max_len of at least 1, got 0"),
        (lambda m, i: new_cache(llama(), 4), "got one without"),
        (lambda m, i: remove(llama()), "got one without"),
        (lambda m, i: apply(llama(), PATTERN, rollback=-1), "rollback of at least 0, got -1"),
    ],
)
@torch.no_grad()
def test_a_call_that_asks_for_more(model: Model, call: Call, message: str) -> None:
    with pytest.raises(sparsec.CallError, match=message):
        call(model, torch.full((2, 6), 3))


def test_dropout_of_weights_in_training() -> None:
    model = apply(llama(attention_dropout=0.1), PATTERN, target="torch")
    ids = torch.full((1, 4), 3)
    assert model.eval()(ids).logits.isfinite().all()
    with pytest.raises(sparsec.CallError, match=r"no dropout of attention weights, got 0\.1"):
        model.train()(ids)


def test_a_model_that_shares_only_the_config(model: Model) -> None:
    other = transformers.LlamaForCausalLM(model.config)
    with pytest.raises(sparsec.CallError, match="on this model itself"):
        other(torch.full((1, 4), 3))


def test_a_cache_and_gradient_checkpointing(model: Model) -> None:
    other = copy.deepcopy(model).train()
    other.gradient_checkpointing_enable()
    with pytest.raises(sparsec.CallError, match="no cache with gradient checkpointing"):
        other(torch.full((1, 4), 3), past_key_values=new_cache(other, 8))


def test_more_tokens_taken_back_than_are_held(model: Model) -> None:
    cache = new_cache(model, 40, rollback=3)
    with torch.no_grad():
        model(torch.full((1, 30), 3), past_key_values=cache)
    with pytest.raises(sparsec.CallError, match="has been overwritten"):
        cache.crop(-12)
    assert cache.get_seq_length() == 30

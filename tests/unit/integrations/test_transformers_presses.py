"""Presses, which are objects with kvpress's `score`, and what `compress` does not take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_transformers_compress import by_mass, held, run
from test_transformers_profile import HEADS, KV_HEADS, LAYERS, LENGTH, NEW, generated, llama, prompt
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers import Prompt, adaptive, apply, compress, new_cache

pytestmark = pytest.mark.kernels


class Press:
    """Scores by the keys that it computes itself, and notes what it was given."""

    compression_ratio = 0.9

    def __init__(self) -> None:
        self.prepared: list[nn.Module] = []
        self.calls: list[tuple[int, Tensor, Tensor]] = []

    def post_init_from_model(self, model: nn.Module) -> None:
        self.prepared.append(model)

    def score(
        self, module: nn.Module, hidden_states: Tensor, keys: Tensor, values: Tensor, attentions: Any, kwargs: Any
    ) -> Tensor:
        shape = (*hidden_states.shape[:2], KV_HEADS, -1)
        own = module.k_proj(hidden_states).view(shape).transpose(1, 2)
        cos, sin = kwargs["position_embeddings"]
        assert cos.shape[1] == hidden_states.shape[1] and attentions is None
        ahead = module.rotary_emb(own, torch.arange(cos.shape[1])[None])  # counts from each row's first token
        torch.testing.assert_close(ahead[0].expand_as(cos), cos)
        torch.testing.assert_close(module.v_proj(hidden_states).view(shape).transpose(1, 2), values)
        own = apply_rotary_pos_emb(own, own, cos, sin)[0]
        torch.testing.assert_close(own, keys)
        self.calls.append((module.layer_idx, own, keys))
        return own[..., 0]


def first_number(prompt: Prompt) -> Tensor:
    return prompt.k[..., 0]


@pytest.mark.parametrize("chunk", [None, 9])
def test_a_press_is_given_what_it_scores_by(chunk: int | None) -> None:
    """Without the padding of its row, and all of a prompt that comes in chunks."""
    ids, press = prompt(3), Press()
    ids[1, :11], ids[1, 11] = 0, 1
    options = {"attention_mask": (ids != 0).long(), "prefill_chunk_size": chunk}
    model = compress(llama(), press, 0.3, target="cpu")
    out = generated(model, ids, **options)
    assert press.prepared == [model]
    assert [(layer, tuple(keys.shape)) for layer, keys, _ in press.calls] == [
        (layer, (rows, KV_HEADS, length, 16))
        for layer in range(LAYERS)
        for rows, length in ((1, LENGTH - 11), (2, LENGTH))
    ]
    wanted = generated(compress(llama(), first_number, 0.3, target="cpu"), ids, **options)
    assert torch.equal(out.sequences, wanted.sequences)
    assert not any(
        "rotary_emb" in dict(module.named_children()) for module in model.modules() if hasattr(module, "k_proj")
    )


def test_a_prompt_is_what_the_layer_had() -> None:
    ids, seen = prompt(2), []

    def score(prompt: Prompt) -> Tensor:
        seen.append(prompt)
        share = HEADS // KV_HEADS
        scores = prompt.q @ prompt.k.repeat_interleave(share, 1).mT * prompt.scale
        probabilities = scores.masked_fill(~torch.ones(LENGTH, LENGTH).tril().bool(), -math.inf).softmax(-1)
        torch.testing.assert_close(prompt.mass, probabilities.sum(2))
        return prompt.v[..., 0]

    model = compress(llama(), score, 5, target="cpu")
    cache = new_cache(model, LENGTH)
    run(model, ids, cache)
    assert [each.layer for each in seen] == list(range(LAYERS))
    assert [each.module for each in seen] == [layer.self_attn for layer in model.model.layers]
    assert all(each.hidden_states.shape == (2, LENGTH, 64) for each in seen)
    for row in range(2):
        wanted = [each.v[row, :, :, 0].topk(5).indices.sort().values.tolist() for each in seen]
        assert held(cache, row) == wanted


class Demands:
    """As kvpress's ObservedAttentionPress."""

    def score(self, module: Any, hidden_states: Any, keys: Any, values: Any, attentions: Any, kwargs: Any) -> Tensor:
        assert attentions is not None, 'Set attn_implementation="eager" to use this hook'
        return attentions.sum(2)


class Chooses:
    """As kvpress's AdaKVPress, which is callable."""

    def compress(self, *_: Any) -> None: ...

    def __call__(self, model: Any) -> None: ...


def shaped(*shape: int) -> Callable[[Prompt], Tensor]:
    return lambda prompt: torch.zeros(shape)


FITTING = (1, KV_HEADS, LENGTH)
AT_A_CALL: dict[str, tuple[Any, Any, str]] = {
    "attentions": (
        Demands(),
        0.3,
        "expected Demands to score layer 0 by hidden states, keys and values, for attention",
    ),
    "no tensor": (
        lambda prompt: None,
        0.3,
        "expected scores [batch, KV heads, keys] [1, 2, 48] in layer 0, got NoneType",
    ),
    "heads": (
        lambda prompt: prompt.mass,
        0.3,
        "expected scores [batch, KV heads, keys] [1, 2, 48] in layer 0, got [1, 4, 48]",
    ),
    "nan": (
        lambda prompt: shaped(*FITTING)(prompt) / 0,
        0.3,
        "expected scores that are real numbers in layer 0, got NaN",
    ),
    "integers": (lambda prompt: shaped(*FITTING)(prompt).long(), 0.3, "in layer 0, got torch.int64"),
    "a budget": (by_mass, lambda scores, layer: scores[..., :1] > 0, "expected a budget [batch, KV heads, keys]"),
    "numbers": (
        by_mass,
        lambda scores, layer: scores,
        "expected a budget that gives bool in layer 0, got torch.float32",
    ),
}


@pytest.mark.parametrize("case", AT_A_CALL)
def test_scores_and_budgets_that_are_refused_when_a_prompt_ends(case: str) -> None:
    score, keep, message = AT_A_CALL[case]
    model = compress(llama(), score, keep, target="cpu")
    with pytest.raises(CallError) as caught:
        model.generate(prompt(), max_new_tokens=NEW)
    assert message in str(caught.value)


AT_ONCE: dict[str, tuple[Any, Any, str]] = {
    "chooses itself": (Chooses(), 0.3, "expected a press with score(...), got Chooses, which chooses the keys itself"),
    "no function": ("snapkv", 0.3, "expected score, a function of a Prompt or a press, got str"),
    "nothing": (by_mass, 0.0, "expected a share above 0 and up to 1, or a number of keys of at least 1"),
    "percent": (by_mass, 30.0, "for layer 0, got 30.0"),
    "no key": (by_mass, 0, "for layer 0, got 0"),
    "truth": (by_mass, True, "for layer 0, got True"),
    "layers": (by_mass, [0.3, 0.4], "expected a budget for each of 3 layers, got 2"),
    "a layer": (by_mass, adaptive([0.3, 0.4, -1]), "for layer 2, got -1"),
}


@pytest.mark.parametrize("case", AT_ONCE)
def test_arguments_that_are_refused_change_nothing(case: str) -> None:
    score, keep, message = AT_ONCE[case]
    model = llama()
    with pytest.raises(CallError) as caught:
        compress(model, score, keep, target="torch")
    assert message in str(caught.value)
    assert model.config._attn_implementation != "sparsec" and not hasattr(model.config, "sparsec")


def test_what_else_is_refused() -> None:
    with pytest.raises(CallError, match="expected floor from 0 to 1"):
        adaptive(0.3, floor=1.5)
    ids, model = prompt(), llama(num_hidden_layers=1)
    special = "param special_ids = [1, 2]\npattern p { input special : tokens  causal  attend special | window(4) }"
    apply(model, special, target="torch")
    with pytest.raises(CallError, match=r"expected patterns without inputs, .* got 'p' with special"):
        compress(model, by_mass, 0.3)
    assert model.generate(ids, max_new_tokens=2).shape == (1, LENGTH + 2), "as before"
    model = compress(llama(), by_mass, 0.3, target="cpu")
    for options in ({"assistant_model": llama()}, {"prompt_lookup_num_tokens": 2}):
        with pytest.raises(CallError, match=r"expected generate\(\) without an assistant"):
            model.generate(ids, max_new_tokens=NEW, **options)
    with pytest.raises(CallError, match="expected prompt of at least 1, got 0"):
        new_cache(model, 9, prompt=0)


def model_of(kind: str, **changes: Any) -> PreTrainedModel:
    own = llama().config.to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")
    sizes = {name: own[name] for name in (*names, "num_key_value_heads", "initializer_range", "eos_token_id")}
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **{**sizes, "pad_token_id": 0, **changes})
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "windows": ("mistral", {"sliding_window": 9}),
    "some windows": ("gemma3_text", {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"] * 2}),
    "a soft cap": ("gemma2", {"sliding_window": 9, "layer_types": ["full_attention", "sliding_attention"] * 2}),
    "sinks": ("gpt_oss", {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"] * 2}),
    "chunks": ("llama4_text", {"attention_chunk_size": 8, "layer_types": ["chunked_attention", "full_attention"] * 2}),
}


@pytest.mark.parametrize("case", OWN)
def test_a_model_keeps_what_its_own_attention_has(case: str) -> None:
    kind, changes = OWN[case]
    more = {"num_local_experts": 2, "num_experts_per_tok": 1} if kind in ("gpt_oss", "llama4_text") else {}
    model, ids = model_of(kind, num_hidden_layers=4, **changes, **more), prompt()
    wanted = generated(model, ids)
    out = generated(compress(model, first_number, 1.0, target="torch"), ids)
    assert torch.equal(out.sequences, wanted.sequences)
    for logits, own in zip(out.logits, wanted.logits, strict=True):
        torch.testing.assert_close(logits, own, atol=2e-4, rtol=1e-3)
    less = generated(compress(model, first_number, 0.3), ids)
    assert torch.equal(less.logits[0], out.logits[0]) and not torch.equal(less.logits[1], out.logits[1])


def test_layers_of_another_kind_are_refused() -> None:
    model = llama()
    model.config.layer_types = ["full_attention", "other_attention", "full_attention"]
    with pytest.raises(CallError, match="expected replace_window=True, for layer 1 of the model has its own other_att"):
        compress(model, by_mass, 0.3, target="torch")

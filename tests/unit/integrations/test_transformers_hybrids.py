"""Models some of whose layers do not attend: the others get their pattern, and all keep what they need in one cache."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from tiny_models import PEAKED, TINY
from transformers import cache_utils

import sparsec
from sparsec.integrations.transformers import apply, compress, describe, new_cache

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(not hasattr(cache_utils, "LinearAttentionLayer"), reason="transformers has no such caches yet"),
]

SIZES = {name: size for name, size in TINY.items() if name != "num_hidden_layers"} | PEAKED
PATTERN = "pattern p { causal attend window(5) | sink(1) }"
LAYERS = "pattern all { causal attend full } model m { layers 3 where l == 1 use p otherwise use all }" + PATTERN

Model = transformers.PreTrainedModel


def lfm2() -> Model:
    torch.manual_seed(0)
    kinds = ["conv", "full_attention", "conv"]
    return transformers.Lfm2ForCausalLM(transformers.Lfm2Config(**SIZES, num_hidden_layers=3, layer_types=kinds)).eval()


def greedy(model: Model, ids: torch.Tensor, **options: Any) -> list[list[int]]:
    usual = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "do_sample": False}
    return model.generate(ids, **usual | options).tolist()


def test_full_attention_is_the_model_itself() -> None:
    model = lfm2()
    dense, ids = copy.deepcopy(model), torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(1))
    apply(model, "pattern p { causal attend full }", target="torch")
    torch.testing.assert_close(model(ids).logits, dense(ids).logits, rtol=2e-4, atol=2e-4)
    padded = torch.ones_like(ids)
    padded[1, :4] = 0
    for options in ({}, {"num_beams": 2}, {"attention_mask": padded}):
        assert greedy(model, ids, **options) == greedy(dense, ids, **options)


def test_a_cache_evicts_in_the_layer_that_attends() -> None:
    model = apply(lfm2(), LAYERS, target="torch")
    ids = torch.randint(3, 64, (1, 20), generator=torch.Generator().manual_seed(1))
    assert greedy(model, ids) == greedy(model, ids, use_cache=False)
    cache = new_cache(model, 40)
    with torch.no_grad():
        whole = model(ids).logits
        parts = [model(ids[:, at : at + 7], past_key_values=cache).logits for at in (0, 7, 14)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=2e-4, atol=2e-4)
    assert [layer.kvs[0].max_len for layer in cache.own] == [40] and cache.nbytes == 1 * 2 * 2 * 6 * 8 * 4
    assert "1" in describe(model).split("\n")[4].split()[0] and "Layers 0, 2 do not attend" in describe(model)


def test_refusals() -> None:
    with pytest.raises(sparsec.CallError, match="expected layers=2, as its file says, got layers=3"):
        apply(lfm2(), LAYERS.replace("layers 3", "layers 2"), target="torch")
    with pytest.raises(sparsec.CallError, match="whose layers attends for compress, got 1 of 3"):
        compress(lfm2(), lambda prompt: prompt.k.norm(dim=-1), 0.5, target="torch")
    model = apply(lfm2(), PATTERN, target="torch")
    ids = torch.full((1, 6), 3)
    with pytest.raises(sparsec.CallError, match="layers that do not attend, whose states would go"):
        model(ids, position_ids=torch.tensor([[0, 1, 0, 1, 2, 3]]))
    with pytest.raises(sparsec.CallError, match="without an assistant for a model with layers that keep states"):
        model.generate(ids, attention_mask=torch.ones_like(ids), prompt_lookup_num_tokens=2, max_new_tokens=4)

"""Sequences that a collator packs into one row attend as they would alone; windows of a model's own, equal and not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from tiny_models import PEAKED, TINY
from torch import Tensor

import sparsec
from sparsec.integrations.transformers import apply, new_cache

pytestmark = pytest.mark.kernels

SIZES = TINY | PEAKED
PATTERN = "pattern p { causal attend window(4) | stride(5, phase = -g) | sink(2) }"
LENGTHS = (9, 20, 1, 13)

Model = transformers.PreTrainedModel


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return apply(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval(), PATTERN, target="torch")


def sequences() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 64, (length,), generator=generator).tolist() for length in LENGTHS]


def collated(**options: Any) -> dict[str, Any]:
    collator = transformers.DataCollatorWithFlattening(**options)
    return dict(collator([{"input_ids": each} for each in sequences()]))


@pytest.mark.parametrize("options", [{}, {"return_flash_attn_kwargs": True}])
def test_packed_sequences_are_those_sequences(model: Model, options: dict[str, Any]) -> None:
    batch = collated(**options)
    model.zero_grad()
    found = model(**batch)
    alone = [model(torch.tensor([each])).logits for each in sequences()]
    torch.testing.assert_close(found.logits, torch.cat(alone, 1), rtol=2e-4, atol=2e-4)
    found.loss.backward()
    name, weight = next((name, each) for name, each in model.named_parameters() if "q_proj" in name)
    packed = weight.grad.clone()
    model.zero_grad()
    labels, logits = batch["labels"][0, 1:], torch.cat([model(torch.tensor([s])).logits for s in sequences()], 1)
    torch.nn.functional.cross_entropy(logits[0, :-1], labels).backward()
    torch.testing.assert_close(packed, weight.grad, rtol=1e-3, atol=1e-5, msg=lambda text: f"{name}: {text}")


def positions(*lengths: int, start: int = 0) -> Tensor:
    return torch.cat([torch.arange(length) for length in lengths])[None] + start


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"position_ids": torch.tensor([[0, 1, 2, 5, 6, 7]])}, "count up by 1, from 0 in each sequence"),
        ({"cu_seq_lens_q": torch.tensor([0, 6])}, "cu_seq_lens_q and cu_seq_lens_k, the same"),
        ({"cu_seq_lens_q": torch.tensor([0, 4]), "cu_seq_lens_k": torch.tensor([0, 4])}, "from 0 up to the 6 tokens"),
    ],
)
def test_bounds_that_do_not_fit(model: Model, more: dict[str, Any], message: str) -> None:
    with pytest.raises(sparsec.CallError, match=message):
        model(torch.full((1, 6), 3), **more)


def test_packed_sequences_have_no_cache_and_no_inputs(model: Model) -> None:
    bounds = {"cu_seq_lens_q": torch.tensor([0, 2, 6]), "cu_seq_lens_k": torch.tensor([0, 2, 6])}
    with pytest.raises(sparsec.CallError, match="with one row, without a cache"):
        model(torch.full((1, 6), 3), past_key_values=new_cache(model, 9), **bounds)
    with pytest.raises(sparsec.CallError, match="with one row, without a cache"):
        model(torch.full((2, 6), 3), **bounds)
    own = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    text = "param kept_ids = [5] pattern p { input kept : tokens causal attend kept | window(4) }"
    apply(own, text, target="torch")
    with pytest.raises(sparsec.CallError, match="for a pattern with inputs, got packed sequences"):
        own(torch.full((1, 6), 3), position_ids=positions(2, 4))


@pytest.mark.parametrize(
    ("own", "term"),
    [
        ({"sliding_window": 8}, "window(8)"),
        ({"sliding_window": 8}, "full & window(8) | none"),
    ],
)
def test_a_window_that_is_the_model_s_own(own: dict[str, Any], term: str) -> None:
    torch.manual_seed(0)
    dense = transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES | own)).eval()
    ids = torch.arange(3, 33)[None]
    wanted = dense(ids).logits
    model = apply(dense, f"pattern p {{ causal attend {term} }}", target="torch")
    torch.testing.assert_close(model(ids).logits, wanted, rtol=2e-4, atol=2e-4)
    with pytest.raises(sparsec.CallError, match="expected replace_window=True"):
        apply(model, "pattern p { causal attend window(9) }", target="torch")


def test_layers_with_windows_and_without() -> None:
    """As Gemma has them: the pattern of each layer says what the layer's own attention would."""
    torch.manual_seed(0)
    kinds = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=6, layer_types=kinds)
    model = transformers.Gemma3ForCausalLM(config).eval()
    ids = torch.arange(3, 33)[None]
    wanted = model(ids).logits
    text = "pattern near { causal attend window(6) } pattern all { causal attend full }"
    apply(model, text + "model m { layers 2 where l == 0 use near otherwise use all }", target="torch")
    torch.testing.assert_close(model(ids).logits, wanted, rtol=2e-4, atol=2e-4)
    with pytest.raises(sparsec.CallError, match=r"layer 0 .* sliding_attention, which pattern 'all'"):
        apply(model, text, "all", target="torch")

"""What continuous batching does not do for a model with a pattern is one sentence, before a request is taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from test_transformers import PATTERN, SIZES, Model, llama

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers import apply, compress
from sparsec.integrations.transformers.batching import has_allocators
from sparsec.integrations.transformers.names import with_names

pytestmark = pytest.mark.kernels

INPUTS = "pattern marked { input kept : tokens causal attend window(4) | kept }"
ENDS = "pattern ends { causal attend window(4) | columns(-3 ..) }"


def marked(model: Model) -> Model:
    return apply(model, INPUTS, target="torch", inputs=lambda layer, q, k: {"kept": torch.ones(1, k.shape[2])})


def chosen(model: Model) -> Model:
    return compress(model, lambda prompt: prompt.k.norm(dim=3), 0.5, target="torch")


def refused(model: Model, **settings: Any) -> str:
    config = transformers.ContinuousBatchingConfig(num_blocks=4, **settings)
    with pytest.raises(CallError) as error:
        model.generate_batch([[5, 6, 7]], continuous_batching_config=config, max_new_tokens=1)
    return str(error.value)


def test_a_version_without_allocators(monkeypatch: pytest.MonkeyPatch) -> None:
    model = apply(llama().eval(), PATTERN, target="torch")
    if has_allocators():
        monkeypatch.setattr(transformers, "__version__", "5.4.0")
    assert refused(model) == (
        f"expected transformers 5.23 or later for continuous batching of a model with a pattern, got "
        f"{transformers.__version__}, whose paged cache has no allocators that others can stand for: update "
        "transformers, or give generate() a padded batch"
    )


needs_allocators = pytest.mark.skipif(not has_allocators(), reason="an older version refuses them all")


@needs_allocators
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (marked, "expected patterns without inputs for continuous batching, got 'marked' with kept in layer 0"),
        (chosen, "expected patterns without inputs for continuous batching, got 'layer_0' with "),
        (lambda model: apply(model, ENDS, target="torch"), "expected patterns without bounds that count from the end"),
        (lambda model: apply(model, PATTERN, target="torch", kv_dtype="int8"), "expected no kv_dtype for continuous"),
    ],
)
def test_a_pattern_that_batches_do_not_take(make: Any, message: str) -> None:
    assert refused(make(llama().eval())).startswith(message)


@needs_allocators
def test_a_kind_of_layers_that_batches_do_not_know() -> None:
    model = apply(llama().eval(), PATTERN, target="torch")
    model.config.layer_types = ["full_attention", "chunked_attention"]
    assert refused(model) == (
        "expected layers that transformers' continuous batching knows, full_attention and sliding_attention, got "
        "chunked_attention"
    )


@needs_allocators
def test_a_decoder_that_counts_positions_itself() -> None:
    sizes = {"vocab_size": 96, "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 2, "num_hidden_layers": 2}
    model = transformers.BartForCausalLM(transformers.BartConfig(**sizes, is_decoder=True, is_encoder_decoder=False))
    apply(model.eval(), "pattern p { causal attend window(4) }", target="torch")
    assert refused(model).startswith("expected a decoder that takes position_ids")


@needs_allocators
def test_a_layer_that_attends_twice() -> None:
    model = transformers.DiffLlamaForCausalLM(transformers.DiffLlamaConfig(**SIZES))
    apply(model.eval(), "pattern p { causal attend window(4) }", target="torch")
    assert refused(model) == "expected layers that attend once in a forward, got 2 times in layer 0"


@needs_allocators
def test_a_config_without_one_head_dim(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Gemma 4's, whose layers differ."""
    model = apply(llama().eval(), PATTERN, target="torch")

    def find(config: Any) -> int:
        raise RuntimeError("it varies")

    monkeypatch.setattr("transformers.generation.continuous_batching.utils.find_head_dim", find)
    assert refused(model) == (
        "expected a config with one head_dim, by which transformers' continuous batching sizes its cache, got "
        "LlamaConfig without"
    )


@needs_allocators
def test_settings_that_leave_the_host_out() -> None:
    model = apply(llama().eval(), PATTERN, target="torch")
    message = "expected use_async_batching=False in the continuous batching config, for the host says before each"
    assert refused(model, use_async_batching=True).startswith(message)


def test_a_function_that_does_not_look_a_name_up() -> None:
    with pytest.raises(CallError, match="expected llama of test_transformers to look up Nothing, as in transformers 5"):
        with_names(llama, Nothing=None)
    assert with_names(llama, SIZES={"hidden_size": 8}).__globals__["SIZES"] == {"hidden_size": 8}

"""Some of what `every_model.py` runs all of: a kind of model each."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch
from every_model import check


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small operations wait for threads more than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "name",
    [
        "llama",  # and most others: RoPE, grouped heads
        "gemma3_text",  # windows and full layers
        "gemma3n_text",  # layers that share keys and values
        "gpt_oss",  # sinks
        "gpt2",  # learned positions, no grouped heads
        "jetmoe",  # attention of chosen experts
        "modernbert-decoder",  # a head that is named decoder
        "whisper",  # a decoder alone, that could attend to an encoder
    ],
)
def test_a_model_computes_what_its_own_attention_does(name: str) -> None:
    assert check(name) == ""


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("bloom", "AttentionInterface"),
        pytest.param(
            "deepseek_v32",
            "a pattern with one input of kind rows",
            marks=pytest.mark.skipif(
                find_spec("transformers.models.deepseek_v32") is None, reason="transformers 5.4 has no such model"
            ),
        ),
        ("doge", "the pattern says who sees whom, in layer 0"),
        ("gemma3", "a dict"),
        ("jamba", "self-attention in each of"),
        ("stablelm", "hand keyword arguments down"),
        ("rwkv", "AttentionInterface"),
    ],
)
def test_a_model_that_lacks_something_is_refused_and_unchanged(name: str, lacks: str) -> None:
    assert lacks in check(name)

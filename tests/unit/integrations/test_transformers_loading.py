"""Models that are loaded with a pattern in their config: a warning, or the pattern; and what a model attends by."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import TINY

import sparsec
from sparsec.integrations.transformers import apply, describe, explain, remove, restore

pytestmark = pytest.mark.kernels

SIZES = TINY
PATTERN = "pattern p { causal attend window(6) | stride(5, phase = -g) } pattern all { causal attend full }"
MODEL = PATTERN + "model m { layers 2 where l == 0 use p otherwise use all }"
IDS = torch.arange(3, 12)[None]


def llama(**changes: Any) -> transformers.PreTrainedModel:
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | changes)).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    apply(llama(), MODEL, target="torch").save_pretrained(tmp_path)
    return tmp_path


def test_a_loaded_model_that_runs_without_its_pattern_warns_once(saved: Path) -> None:
    with pytest.warns(UserWarning, match="names a pattern .*runs without: call .*restore"):
        model = transformers.AutoModelForCausalLM.from_pretrained(saved)
        model(IDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(IDS)
        loaded, info = transformers.AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
        assert not info["missing_keys"]
        restore(loaded, target="torch")(IDS)
        llama().save_pretrained(saved)
        transformers.AutoModelForCausalLM.from_pretrained(saved)(IDS)


def test_a_call_around_the_model_s_own_warns_too(saved: Path) -> None:
    """As PEFT calls a model's forward, and as some call its decoder."""
    for call in (lambda model: model.model(IDS), lambda model: model.forward(IDS)):
        model = transformers.AutoModelForCausalLM.from_pretrained(saved)
        with pytest.warns(UserWarning, match="this LlamaForCausalLM names a pattern") as caught:
            call(model)
            model(IDS)
        assert sum("names a pattern" in str(each.message) for each in caught) == 1


def test_an_import_restores_what_is_loaded(saved: Path) -> None:
    wanted = apply(llama(), MODEL, target="torch")(IDS).logits
    script = (
        "import sys, torch, transformers\n"
        "import sparsec.integrations.transformers.auto\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()\n"
        "torch.save(model(torch.arange(3, 12)[None]).logits, sys.argv[2])\n"
        "print(type(model.model._sparsec).__name__)\n"
    )
    run = [sys.executable, "-W", "error::UserWarning", "-c", script, str(saved), str(saved / "logits.pt")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "Patch", done.stderr
    torch.testing.assert_close(torch.load(saved / "logits.pt"), wanted, rtol=1e-4, atol=1e-4)


def test_a_model_is_described() -> None:
    model = apply(llama(), MODEL, target="torch")
    text = describe(model, 48)
    assert text.startswith("LlamaForCausalLM: 2 layers, 4 query heads on 2 KV heads of 8, float32, 48 tokens")
    rows = [line.split() for line in text.splitlines()]
    assert [row[0] for row in rows if row and row[0] in ("0", "1")] == ["0", "1"]
    assert "(window(6) | stride(5)) & causal, 1 more" in text and "The caches of all layers: " in text
    found = explain(model, 48)
    assert [(part.name, part.layers) for part in found.parts] == [("p", (0,)), ("all", (1,))]
    live = int(sparsec.parse(MODEL).pattern("p").mask(48, 48, 4, 2).sum())
    assert found.parts[0].live_pairs == live and found.tokens == 48
    assert explain(model).tokens == 64
    lines = str(found).splitlines()
    assert lines[0] == "4 query heads on 2 KV heads of 8, float32, 48 tokens"
    assert [line.split()[0] for line in lines[4:7]] == ["p", "all", "all"] and "KV cache, 2 layers" in lines
    with pytest.raises(sparsec.CallError, match="a model that a pattern was applied to"):
        describe(llama())


def test_layers_of_several_head_dimensions_are_described() -> None:
    """Gemma 4's full layers have wider heads: bytes and head dimensions are those of each layer."""
    if not hasattr(transformers, "Gemma4TextModel"):
        pytest.skip("this transformers has no such model")
    kinds = ["sliding_attention", "full_attention"]
    own = {"head_dim": 16, "global_head_dim": 32, "layer_types": kinds, "sliding_window": 6, "num_kv_shared_layers": 0}
    own |= {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 64}
    model = transformers.Gemma4TextModel(transformers.Gemma4TextConfig(**SIZES | own)).eval()
    text = PATTERN.replace("window(6) | stride(5, phase = -g)", "window(6)")
    apply(model, text + "model m { layers 2 where l == 0 use p otherwise use all }", target="torch")
    found = explain(model, 48)
    assert [part.geometry.head_dim for part in found.parts] == [16, 32]
    price = next(each for each in found.prices if each.tokens == 48)
    assert price.dense_bytes == 48 * 2 * 2 * (16 + 32) * 4
    assert price.bytes == sum(part.cache.bytes for part in found.parts if part.cache is not None)
    assert "query heads on 2 KV heads of 16 and 4 query heads on 2 KV heads of 32, float32" in describe(model, 48)


class Wrapped(torch.nn.Module):
    """A model of PEFT, as far as `apply` knows one."""

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        super().__init__()
        self.base, self.peft_config, self.config = model, {}, model.config

    def get_base_model(self) -> transformers.PreTrainedModel:
        return self.base


def test_a_model_inside_one_of_peft() -> None:
    inside = llama()
    outside = Wrapped(inside)
    before = inside(IDS).logits
    assert apply(outside, MODEL, target="torch") is outside
    assert describe(outside).startswith("Wrapped: 2 layers")
    torch.testing.assert_close(inside(IDS).logits, apply(llama(), MODEL, target="torch")(IDS).logits)
    assert remove(outside) is outside
    torch.testing.assert_close(inside(IDS).logits, before)

"""Encoders with a pattern are those encoders with eager attention and its dense mask; what decoders have is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from tiny_models import PEAKED, TINY
from torch import Tensor, nn

import sparsec
from sparsec.integrations.transformers import apply, compress, describe, new_cache, restore

pytestmark = pytest.mark.kernels

OF_DECODERS = ("num_key_value_heads", "bos_token_id", "eos_token_id")
SIZES = {name: size for name, size in TINY.items() if name not in OF_DECODERS} | PEAKED
PATTERN = "pattern p { attend window(3, ahead = 2) | global(1) | stride(4, phase = h) }"

Model = transformers.PreTrainedModel
LATER = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.20"), reason="this ModernBERT takes no attention of others"
)


def bert() -> Model:
    torch.manual_seed(0)
    return transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, attention_probs_dropout_prob=0.0)).eval()


def modernbert() -> Model:
    torch.manual_seed(0)
    kinds = {"layer_types": ["full_attention", "sliding_attention"], "local_attention": 8}
    special = dict.fromkeys(("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id"), 1)
    return transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**SIZES, **special, **kinds)).eval()


def masked(model: Model, pattern: sparsec.Pattern) -> Model:
    """A copy of `model` whose layers attend by the dense mask of the pattern."""
    dense = copy.deepcopy(model)
    dense.set_attn_implementation("eager")
    mask = torch.where(pattern.mask(64, 64, 4, 4), 0.0, -1e30)[None]

    def swap(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        tokens = (args[0] if args else kwargs["hidden_states"]).shape[1]
        kept = {name: value for name, value in kwargs.items() if name != "attention_mask"}
        return args[:1], {**kept, "attention_mask": mask[:, :, :tokens, :tokens]}

    for module in dense.modules():
        if getattr(module, "layer_idx", None) is not None and hasattr(module, "is_causal"):
            module.register_forward_pre_hook(swap, with_kwargs=True)
    return dense


def ids(batch: int = 2, length: int = 13) -> Tensor:
    return torch.randint(3, 64, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", [bert, pytest.param(modernbert, marks=LATER)])
def test_an_encoder_is_its_dense_masked_self(make: Callable[[], Model]) -> None:
    model = make()
    dense = masked(model, sparsec.parse(PATTERN).pattern())
    apply(model, PATTERN, replace_window=True, target="torch")
    found, wanted = model(ids(), labels=ids()), dense(ids(), labels=ids())
    torch.testing.assert_close(found.logits, wanted.logits, rtol=2e-4, atol=2e-4)
    found.loss.backward()
    wanted.loss.backward()
    for (name, left), right in zip(model.named_parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    assert "keys in a cache" in describe(model) and "The caches of" not in describe(model)


def test_padding_at_the_right_is_seen_by_nobody() -> None:
    model = apply(bert(), PATTERN, target="torch")
    mask = torch.ones(2, 13, dtype=torch.int64)
    mask[1, 8:] = 0
    with torch.no_grad():
        found = model(ids(), attention_mask=mask).logits
        torch.testing.assert_close(found[1:, :8], model(ids()[1:, :8]).logits, rtol=2e-4, atol=2e-4)
        torch.testing.assert_close(found[:1], model(ids()[:1]).logits, rtol=2e-4, atol=2e-4)


def test_a_causal_pattern_is_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    apply(bert(), PATTERN, target="torch")
    assert not [each for each in recwarn if "no later token" in str(each.message)]
    with pytest.warns(UserWarning, match="pattern 'late' sees no later token, where BertModel sees them all"):
        apply(bert(), "pattern late { causal  attend window(8) }", target="torch")


@pytest.mark.parametrize("batch", [1, 2])
def test_positions_that_repeat_are_of_one_sequence(batch: int) -> None:
    """As in the encoder itself, whose masks do not read them; bounds that are given divide a row."""
    model, positions = bert(), torch.arange(10).repeat(2)[None]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        wanted = model(ids(batch, 20), position_ids=positions).logits
        alone = model(ids(batch, 20)[:, :10]).logits
        apply(model, "pattern p { attend full }", target="torch")
        torch.testing.assert_close(model(ids(batch, 20), position_ids=positions).logits, wanted, rtol=1e-5, atol=1e-5)
        if batch == 1:
            bounds = dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), torch.tensor([0, 10, 20]))
            found = model(ids(batch, 20), position_ids=positions, **bounds).logits
            torch.testing.assert_close(found[:, :10], alone, rtol=2e-4, atol=2e-4)


@LATER
def test_the_window_of_its_own_layers() -> None:
    """ModernBERT's local layers see half of `local_attention` on either side."""
    model = modernbert()
    wanted = model(ids(2, 20)).logits
    text = "pattern near { attend window(5, ahead = 4) } pattern all { attend full }"
    layers = text + "model m { layers 2 where l == 1 use near otherwise use all }"
    apply(model, layers, target="torch")
    torch.testing.assert_close(model(ids(2, 20)).logits, wanted, rtol=2e-4, atol=2e-4)
    with pytest.raises(sparsec.CallError, match="layer 1 of the model has its own sliding_attention"):
        apply(modernbert(), text, "all", target="torch")


def test_windows_that_vary_by_layer() -> None:
    """A config that varies by layer raises where it is asked for what varies."""
    if not hasattr(transformers, "NeoMMEForMaskedLM"):
        pytest.skip("this transformers has no such model")
    kinds, full = ["sliding_attention"] * 2 + ["full_attention"], {"sliding_window": None}
    own = {"num_key_value_heads": 2, "head_dim": 16, "embedding_rank": 16, "sliding_window": 4, "layer_types": kinds}
    own |= {"num_hidden_layers": 3, "per_layer_config": {1: {"sliding_window": 6}, 2: full}}
    torch.manual_seed(0)
    model = transformers.NeoMMEForMaskedLM(transformers.NeoMMEConfig(**SIZES | own)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.set_attn_implementation("eager")
    wanted = model(input_ids=ids(2, 20)).logits
    terms = ("window(5, ahead = 4)", "window(7, ahead = 6)", "full")
    text = " ".join(f"pattern p{place} {{ attend {term} }}" for place, term in enumerate(terms))
    with pytest.raises(sparsec.CallError, match="layer 0 of the model has its own sliding_attention"):
        apply(model, text, "p1", target="torch")
    with pytest.raises(sparsec.CallError, match="expected a decoder for context_parallel and compress"):
        compress(model, lambda prompt: prompt.k.norm(dim=-1), 0.5, target="torch")
    layers = "model m { layers 3 where l == 0 use p0 where l == 1 use p1 otherwise use p2 }"
    apply(model, text + layers, target="torch")
    torch.testing.assert_close(model(input_ids=ids(2, 20)).logits, wanted, rtol=2e-4, atol=2e-4)
    assert float(wanted.detach().std()) > 1e-2


def test_an_encoder_is_saved_and_restored(tmp_path: Path) -> None:
    model = apply(bert(), PATTERN, target="torch")
    model.save_pretrained(tmp_path)
    loaded = restore(transformers.AutoModelForMaskedLM.from_pretrained(tmp_path), target="torch")
    torch.testing.assert_close(loaded(ids()).logits, model(ids()).logits)


def test_refusals() -> None:
    model = apply(bert(), PATTERN, target="torch")
    with pytest.raises(sparsec.CallError, match="both directions, which has no cache"):
        new_cache(model, 8)
    with pytest.raises(sparsec.CallError, match="expected a decoder for context_parallel and compress"):
        compress(bert(), lambda prompt: prompt.k.norm(dim=-1), 0.5, target="torch")
    with pytest.raises(sparsec.CallError, match="a pattern without documents"):
        apply(bert(), "pattern p { documents attend full }", target="torch")
    with pytest.raises(sparsec.CallError, match="got holes in row 0"):
        mask = torch.ones(2, 13)
        mask[0, 3] = 0
        model(ids(), attention_mask=mask)

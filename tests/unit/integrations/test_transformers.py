"""A model with a pattern is that model with eager attention and the pattern's dense mask: training, and generate()."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import PEAKED, SMALL
from torch import Tensor, nn

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers import apply, new_cache, remove, restore

pytestmark = pytest.mark.kernels

SIZES = SMALL | PEAKED | {"head_dim": 16}
HEADS, KV_HEADS, VOCABULARY = SIZES["num_attention_heads"], SIZES["num_key_value_heads"], SIZES["vocab_size"]
LONGEST = 64
PATTERN = "pattern sparse { causal attend window(6) | stride(5, phase = -g) | sink(2) }"
LAYERS = PATTERN + "pattern all { causal attend full } model m { layers 2 where l == 0 use sparse otherwise use all }"
SINKS = PATTERN.replace("}", "learned_sink }")

Model = transformers.PreTrainedModel


def llama(**changes: Any) -> Model:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | changes))


def mistral(**changes: Any) -> Model:
    return transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES | {"sliding_window": 9} | changes))


def qwen3(**changes: Any) -> Model:
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES | changes))


def gemma3(**changes: Any) -> Model:
    """Its scale is 1/sqrt(24), and one of its layers has a window."""
    own = {"query_pre_attn_scalar": 24, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**SIZES | own | changes))


def phi3(**changes: Any) -> Model:
    sizes = {name: value for name, value in SIZES.items() if name != "head_dim"}
    return transformers.Phi3ForCausalLM(transformers.Phi3Config(**sizes | changes))


def gpt_oss(**changes: Any) -> Model:
    own = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8, "rope_parameters": None}
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(**SIZES | own | changes))


def eager(model: Model, patterns: Sequence[sparsec.Pattern]) -> Model:
    """A copy of `model` whose layer l attends by the dense mask of patterns[l]."""
    dense = copy.deepcopy(model)
    dense.set_attn_implementation("eager")
    masks = [torch.where(each.mask(LONGEST, LONGEST, HEADS, KV_HEADS), 0.0, -1e30)[None] for each in patterns]

    def swap(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        tokens = kwargs["hidden_states"].shape[1]
        return args, {**kwargs, "attention_mask": masks[module.layer_idx][:, :, :tokens, :tokens]}

    for layer in dense.model.layers:
        layer.self_attn.register_forward_pre_hook(swap, with_kwargs=True)
    return dense


def tokens(batch: int = 1, length: int = 15, seed: int = 0) -> Tensor:
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def greedy(model: Model, ids: Tensor, new: int = 12, **options: Any) -> list[list[int]]:
    found = model.generate(ids, max_new_tokens=new, do_sample=False, **options)
    return found[:, ids.shape[1] :].tolist()


@pytest.fixture(scope="module")
def pair() -> tuple[Model, Model]:
    """A Llama with a pattern a layer, and its dense counterpart."""
    torch.manual_seed(1)
    model = llama().eval()
    layers = sparsec.parse(LAYERS).model()
    dense = eager(model, [layers.layer(0), layers.layer(1)])
    return apply(model, LAYERS, target="torch"), dense


@pytest.mark.parametrize(
    ("make", "text", "target"),
    [
        (llama, PATTERN, "cpu"),
        (mistral, PATTERN, "torch"),
        (qwen3, PATTERN, "torch"),
        (gemma3, PATTERN, "torch"),
        (phi3, PATTERN, "torch"),
        (gpt_oss, SINKS, "cpu"),
    ],
)
def test_a_model_is_its_dense_masked_self(make: Callable[[], Model], text: str, target: str) -> None:
    torch.manual_seed(0)
    model = make()
    program = sparsec.parse(text)
    dense = eager(model, [program.pattern()] * 2)
    replace = make in (mistral, gemma3, gpt_oss)
    apply(model, program, replace_window=replace, target=target)
    names = set(dense.state_dict())
    assert set(model.state_dict()) == names, "the state dict is the model's own"

    ids = tokens(batch=2, length=21)
    found, wanted = model(ids, labels=ids), dense(ids, labels=ids, use_cache=False)
    torch.testing.assert_close(found.logits, wanted.logits, rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(found.loss, wanted.loss, rtol=1e-5, atol=1e-5)
    found.loss.backward()
    wanted.loss.backward()
    for (name, left), right in zip(model.named_parameters(), dense.parameters(), strict=True):
        assert right.grad is not None and left.grad is not None, name
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")

    prompt = tokens()
    assert greedy(model.eval(), prompt, 40) == greedy(dense.eval(), prompt, 40, use_cache=False)


def test_beams_and_samples_are_those_of_the_dense_model(pair: tuple[Model, Model]) -> None:
    model, dense = pair
    ids = tokens(batch=2, length=9)
    assert greedy(model, ids, num_beams=3) == greedy(dense, ids, num_beams=3, use_cache=False)
    drawn = []
    for each, options in ((model, {}), (dense, {"use_cache": False})):
        torch.manual_seed(3)
        drawn.append(each.generate(ids, max_new_tokens=12, do_sample=True, **options))
    assert torch.equal(*drawn)


def test_left_padding_changes_nothing(pair: tuple[Model, Model]) -> None:
    model, _ = pair
    short, long = tokens(length=4, seed=1), tokens(length=13, seed=2)
    ids = torch.cat((torch.cat((torch.zeros(1, 9, dtype=torch.int64), short), 1), long))
    mask = (ids != 0).long()
    alone = greedy(model, short) + greedy(model, long)
    assert greedy(model, ids, attention_mask=mask) == alone
    assert greedy(model, ids, attention_mask=mask, use_cache=False) == alone
    assert greedy(model, ids, attention_mask=mask, prefill_chunk_size=5) == alone, "one chunk is padding alone"


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_in_training_changes_no_token_and_no_gradient(pair: tuple[Model, Model], side: str) -> None:
    model = copy.deepcopy(pair[0])
    ids = tokens(batch=2, length=12)
    kept = slice(5, None) if side == "left" else slice(None, 7)
    mask = torch.zeros(2, 12, dtype=torch.int64)
    mask[0], mask[1, kept] = 1, 1
    found = model(ids, attention_mask=mask).logits
    wanted = (model(ids[:1]).logits[0], model(ids[1:, kept]).logits[0])
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1, kept], wanted[1], rtol=1e-4, atol=1e-4)
    gradients = []
    for loss in (found[0].square().mean() + found[1, kept].square().mean(), sum(w.square().mean() for w in wanted)):
        model.zero_grad()
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


def test_padding_at_the_right_moves_no_bound_that_counts_from_the_end() -> None:
    model = apply(llama(), "pattern p { causal attend window(3) | rows(-4 ..) }", target="torch").eval()
    ids = tokens(batch=2, length=12)
    mask = torch.ones(2, 12, dtype=torch.int64)
    mask[1, 7:] = 0
    with torch.no_grad():
        found, wanted = model(ids, attention_mask=mask).logits[1, :7], model(ids[1:, :7]).logits[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_chunks_through_a_cache_that_evicts(pair: tuple[Model, Model]) -> None:
    model, _ = pair
    ids = tokens(batch=2, length=40)
    cache = new_cache(model, 48, rollback=8)
    with torch.no_grad():
        wanted = model(ids).logits
        parts = [model(part, past_key_values=cache).logits for part in ids.split([7, 1, 12, 20], 1)]
        torch.testing.assert_close(torch.cat(parts, 1), wanted, rtol=1e-4, atol=1e-4)
        assert cache.get_seq_length() == 40 and cache.lengths == (40, 40) and cache.max_len == 48
        sparse, full = (layer.kv.nbytes for layer in cache.layers)
        assert full == 2 * 2 * KV_HEADS * 48 * 16 * 4 and sparse < 0.8 * full, "keys and values, 2 rows, float32"
        assert cache.nbytes == sparse + full and cache.max_cache_len == 48, "the name that a StaticCache has for it"

        cache.crop(-7)
        again = model(ids[:, 33:], past_key_values=cache).logits
        torch.testing.assert_close(again, wanted[:, 33:], rtol=1e-4, atol=1e-4)
        cache.crop(33)
        assert cache.get_seq_length() == 33
        cache.reorder_cache(torch.tensor([1, 1]))
        again = model(ids[[1, 1], 33:], past_key_values=cache).logits
        torch.testing.assert_close(again, wanted[[1, 1], 33:], rtol=1e-4, atol=1e-4)
        cache.batch_select_indices(torch.tensor([0]))
        cache.batch_repeat_interleave(3)
        assert cache.batch_size == 3
        cache.reset()
        again = model(ids, past_key_values=cache).logits
        torch.testing.assert_close(again, wanted, rtol=1e-4, atol=1e-4)


def test_a_cache_of_int8_is_near_the_model_without_one(tmp_path: Path) -> None:
    model = apply(llama().eval(), LAYERS, target="torch", kv_dtype="int8")
    ids, cache = tokens(batch=2, length=40), new_cache(model, 48)
    with torch.no_grad():
        wanted = model(ids).logits
        parts = [model(part, past_key_values=cache).logits for part in ids.split([30, 1, 1, 8], 1)]
        off = (torch.cat(parts, 1) - wanted).abs().max() / wanted.abs().max()
        assert 0 < off < 0.15, "of peaked weights; a number of a row is off by at most 1/254 of its largest"
        assert cache.layers[1].kv.nbytes == 2 * 2 * KV_HEADS * 48 * (16 + 4), "keys and values, 2 rows, a scale each"
    model.save_pretrained(tmp_path)
    loaded = restore(transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval(), target="torch")
    made = loaded.generate(ids, max_new_tokens=3, do_sample=False, return_dict_in_generate=True).past_key_values
    assert {layer.kv.kv_dtype for layer in made.layers} == {torch.int8}
    with pytest.raises(CallError, match="expected kv_dtype None or one of"):
        apply(llama(), LAYERS, target="torch", kv_dtype="int4")


def test_assisted_generation_takes_tokens_back(pair: tuple[Model, Model]) -> None:
    model, _ = pair
    ids = tokens(length=6).repeat(1, 4)
    options = {"suppress_tokens": [0], "eos_token_id": 1}  # a 0 that is drafted would be taken for padding
    wanted = greedy(model, ids, 16, **options)
    assert greedy(model, ids, 16, prompt_lookup_num_tokens=3, **options) == wanted
    assert greedy(model, ids, 16, assistant_model=copy.deepcopy(model), **options) == wanted


def test_generation_goes_on_from_a_cache(pair: tuple[Model, Model]) -> None:
    model, _ = pair
    ids, cache = tokens(), new_cache(model, 64)
    first = model.generate(ids, max_new_tokens=5, do_sample=False, past_key_values=cache)
    second = model.generate(first, max_new_tokens=7, do_sample=False, past_key_values=cache)
    assert second[:, 15:].tolist() == greedy(model, ids, 12)


def test_a_chat_goes_on_from_the_cache_of_generate(pair: tuple[Model, Model]) -> None:
    """Turn after turn, each a prompt after the answers: the cache is handed on, and grows."""
    model, _ = pair
    said, cache, rooms = tokens(batch=2), None, []
    for turn in range(4):
        wanted = greedy(model, said, 8)
        found = model.generate(
            said, max_new_tokens=8, do_sample=False, past_key_values=cache, return_dict_in_generate=True
        )
        cache = found.past_key_values
        assert found.sequences[:, said.shape[1] :].tolist() == wanted
        assert cache.lengths == (said.shape[1] + 7,) * 2
        rooms.append(cache.max_len)
        said = torch.cat([found.sequences, tokens(batch=2, length=5 + turn)], 1)
    assert rooms == sorted(rooms) and rooms[0] < cache.get_seq_length() <= rooms[-1]


def test_gradient_checkpointing_changes_no_gradient(pair: tuple[Model, Model]) -> None:
    model = copy.deepcopy(pair[0]).train()
    ids = tokens(batch=2)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right)


def test_the_forward_is_one_graph(pair: tuple[Model, Model]) -> None:
    model, _ = pair
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    ids = tokens(batch=2)
    torch.testing.assert_close(compiled(ids).logits, model(ids).logits)
    torch._dynamo.reset()


def test_a_pattern_is_saved_with_its_model(tmp_path: Path, pair: tuple[Model, Model]) -> None:
    model = copy.deepcopy(pair[0])
    text = "param near = 6\n" + PATTERN.replace("window(6)", "window(near)")
    apply(model, sparsec.parse(text), "sparse", params={"near": 3}, target="torch")
    ids = tokens()
    model.save_pretrained(tmp_path)
    loaded = restore(transformers.AutoModelForCausalLM.from_pretrained(tmp_path), target="torch")
    assert loaded.config.sparsec == model.config.sparsec and loaded.config.sparsec["params"] == {"near": 3}
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=0)
    assert not torch.allclose(model(ids).logits, pair[0](ids).logits), "the parameter counts"
    assert greedy(loaded, ids) == greedy(model, ids)
    with pytest.raises(sparsec.CallError, match="config without `sparsec`"):
        restore(llama())


def test_a_model_may_be_copied_converted_and_given_back(pair: tuple[Model, Model]) -> None:
    torch.manual_seed(0)
    plain = llama()
    model = apply(copy.deepcopy(plain), PATTERN, target="torch")
    ids = tokens()
    other = copy.deepcopy(model)
    assert greedy(other, ids, 4) == greedy(model, ids, 4)
    assert other.to(torch.bfloat16)(ids).logits.dtype == torch.bfloat16
    assert len(greedy(other, ids, 4)[0]) == 4
    with torch.autocast("cpu", torch.bfloat16):
        assert len(greedy(model, ids, 4)[0]) == 4
    assert not torch.allclose(model(ids).logits, plain(ids).logits)
    for each in (model, other.float()):
        remove(each)
        assert not hasattr(each.config, "sparsec")
    assert torch.equal(model(ids).logits, plain(ids).logits)
    assert type(model.generate(ids, max_new_tokens=2, return_dict_in_generate=True).past_key_values).__name__ == (
        "DynamicCache"
    )

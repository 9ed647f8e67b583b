"""FastGen profiles are those of a dense soft-max by hand, and what they make decodes as a masked dense model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AttentionMaskInterface, LlamaConfig, LlamaForCausalLM, PreTrainedModel

import sparsec
from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers import apply, new_cache, profile, profile_streaming, restore
from sparsec.integrations.transformers.marks import most_attended
from sparsec.integrations.transformers.profile_text import Profile
from sparsec.integrations.transformers.profiling import fastgen_of, profile_by
from sparsec.integrations.transformers.recovery import StreamingHeads

pytestmark = pytest.mark.kernels

HEADS, KV_HEADS, LAYERS, LENGTH, NEW = 4, 2, 3, 48, 8
SPECIAL, PUNCTUATION = (1, 2), (5, 6, 7, 30)


def llama(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(3)
    config = LlamaConfig(
        **{
            "vocab_size": 97,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "max_position_embeddings": 4096,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": None,
            "initializer_range": 0.3,  # far from uniform, so that heads differ
            **changes,
        }
    )
    return LlamaForCausalLM(config).eval()


def prompt(rows: int = 1, length: int = LENGTH) -> Tensor:
    ids = torch.randint(3, 97, (rows, length), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = 1
    return ids


class Eager:
    """Dense attention under masks by layer; holds the soft-max of each layer: [B, heads, N, N]."""

    def __init__(self, mask: Callable[[int, int], Tensor] | None = None) -> None:
        self.mask = mask
        self.probabilities: dict[int, Tensor] = {}

    def __call__(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, _mask: Any, scaling: float, **_: Any
    ) -> tuple[Tensor, None]:
        n, share, layer = q.shape[2], q.shape[1] // k.shape[1], module.layer_idx
        k, v = (each.repeat_interleave(share, 1).double() for each in (k, v))
        live = torch.ones(n, n).tril().bool() if self.mask is None else self.mask(layer, n)
        scores = (q.double() @ k.mT * scaling).masked_fill(~live, -math.inf)
        self.probabilities[layer] = scores.softmax(-1).nan_to_num(0)
        return (self.probabilities[layer] @ v).to(q.dtype).transpose(1, 2), None

    def logits(self, model: PreTrainedModel, ids: Tensor) -> Tensor:
        before = model.config._attn_implementation
        AttentionInterface.register("by_hand", self)
        AttentionMaskInterface.register("by_hand", lambda *_, **__: None)
        model.set_attn_implementation("by_hand")
        with torch.no_grad():
            found: Tensor = model(ids, use_cache=False).logits
        model.set_attn_implementation(before)
        return found


def among(ids: Tensor, numbers: tuple[int, ...]) -> Tensor:
    return (ids[..., None] == torch.tensor(numbers)).any(-1)


def frequent_by_hand(probabilities: Tensor, ids: Tensor, count: int) -> Tensor:
    """bool [groups, N] of one prompt."""
    mass = probabilities.sum(1).view(KV_HEADS, -1, ids.shape[0]).sum(1)
    mass[:, among(ids, SPECIAL + PUNCTUATION)] = -1
    found = torch.zeros(KV_HEADS, ids.shape[0], dtype=torch.bool)
    for group, row in enumerate(mass.tolist()):
        ranked = sorted(range(len(row)), key=lambda key: -row[key])
        found[group, [key for key in ranked[:count] if row[key] >= 0]] = True
    return found


def held_by_hand(probabilities: Tensor, ids: Tensor, local: float, frequent: float) -> list[Tensor]:
    """Of one prompt and layer bool [groups, N, N]: what each policy sees."""
    n = ids.shape[0]
    causal, distance = torch.ones(n, n).tril().bool(), torch.arange(n)[:, None] - torch.arange(n)
    special, listed = among(ids, SPECIAL), among(ids, SPECIAL + PUNCTUATION)
    most = frequent_by_hand(probabilities, ids, math.ceil(frequent * n)) | listed
    near = distance < max(1, int(local * n))
    sets = [special.expand(KV_HEADS, n, n), listed.expand(KV_HEADS, n, n), most[:, None].expand(-1, n, n)]
    return [each & causal for each in [*sets, sets[2] | near, torch.ones(KV_HEADS, n, n).bool()]]


def recovered_by_hand(probabilities: Tensor, held: Tensor, *, minimum: bool = False) -> Tensor:
    """[groups]"""
    of_heads = (probabilities * held.repeat_interleave(HEADS // KV_HEADS, 0)).sum(-1).mean(-1).view(KV_HEADS, -1)
    return of_heads.amin(1) if minimum else of_heads.mean(1)


def fastgen(model: PreTrainedModel, ids: Tensor, recovery: float, **options: Any) -> Profile:
    shares = {"local": options.pop("local", 0.3), "frequent": options.pop("frequent", 0.3)}
    method = fastgen_of(None, special=SPECIAL, punctuation=PUNCTUATION, **shares)
    return profile_by(method, model, ids, recovery=recovery, **options)


@pytest.mark.parametrize("minimum", [False, True])
@pytest.mark.parametrize("recovery", [0.12, 0.14, 0.47, 0.83])
def test_policies_and_recoveries_are_those_of_a_dense_soft_max(recovery: float, minimum: bool) -> None:
    model, ids, eager = llama(), prompt(), Eager()
    eager.logits(model, ids)
    found = fastgen(model, ids, recovery, minimum=minimum, local=0.25, frequent=0.1)
    names = ("special", "+ punctuation", "+ frequent", "+ local", "full")
    for layer, groups in enumerate(found.layers):
        probabilities = eager.probabilities[layer][0]
        held = held_by_hand(probabilities, ids[0], 0.25, 0.1)
        mass = torch.stack([recovered_by_hand(probabilities, each, minimum=minimum) for each in held])
        for group, each in enumerate(groups):
            place = next(n for n in range(5) if n == 4 or mass[n, group] >= recovery)
            assert each.policy.name == names[place]
            assert each.recovered == pytest.approx(float(mass[place, group]), abs=2e-6)
            keys = int(held[place][group, -1].sum())
            assert each.nbytes == keys * 2 * 16 * 4, "the last query sees what the cache holds"
    assert found.dense_bytes == LAYERS * KV_HEADS * LENGTH * 2 * 16 * 4


def test_the_mean_and_the_minimum_of_heads_choose_differently() -> None:
    model, ids = llama(), prompt()
    mean, least = (
        fastgen(model, ids, 0.45, minimum=minimum, local=0.25, frequent=0.1).nbytes for minimum in (False, True)
    )
    assert mean < least


def test_prompts_of_a_batch_count_together() -> None:
    model, ids, eager = llama(), prompt(3), Eager()
    eager.logits(model, ids)
    found = fastgen(model, ids, 0.5)
    for layer, groups in enumerate(found.layers):
        each_row = [
            [recovered_by_hand(row, held) for held in held_by_hand(row, row_ids, 0.3, 0.3)]
            for row, row_ids in zip(eager.probabilities[layer], ids, strict=True)
        ]
        mass = torch.stack([torch.stack(row) for row in each_row]).mean(0)
        for group, each in enumerate(groups):
            wanted = next(float(m) for m in mass[:, group] if m >= 0.5)
            assert each.recovered == pytest.approx(wanted, abs=2e-6)


def test_streaming_groups_are_those_of_a_dense_soft_max() -> None:
    model, ids, eager = llama(), prompt(), Eager()
    eager.logits(model, ids)
    distance = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    held = ((distance < 9) | (torch.arange(LENGTH) < 3)) & (distance >= 0)
    mass = torch.stack(
        [recovered_by_hand(eager.probabilities[n][0], held.expand(KV_HEADS, -1, -1)) for n in range(LAYERS)]
    )
    middle = float(mass.flatten().sort().values[2:4].mean())  # half of the six groups stream
    found = profile_by(StreamingHeads(3, 9), model, ids, recovery=middle)
    for layer, groups in enumerate(found.layers):
        assert [each.policy.name for each in groups] == ["streaming" if m >= middle else "full" for m in mass[layer]]
    program = profile_streaming(model, ids, recovery=middle, sink=3, recent=9)
    for layer in range(LAYERS):
        masks = program.model().layer(layer).mask(LENGTH, LENGTH)
        for group in range(KV_HEADS):
            full = torch.ones(LENGTH, LENGTH).tril().bool()
            assert torch.equal(masks[2 * group], held if mass[layer, group] >= middle else full)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_prompts(length: int) -> None:
    program = profile(llama(), prompt(length=length)[0], special=SPECIAL, punctuation=PUNCTUATION)
    assert len(program.model()) == LAYERS


def test_a_recovery_of_one_gives_the_tokens_of_the_dense_model() -> None:
    model, ids = llama(), prompt()
    wanted = model.generate(ids, max_new_tokens=NEW, do_sample=False)
    program = profile(model, ids, recovery=1.0, special=range(97), punctuation=[], local=1.0)
    assert all(program.model().layer(n).resolve().inputs == () for n in range(LAYERS)), "everything alone"
    assert torch.equal(apply(model, program).generate(ids, max_new_tokens=NEW, do_sample=False), wanted)


def test_the_text_parses_to_the_same_and_stands_as_fmt_has_it(tmp_path: Path) -> None:
    program = mixed(llama(), prompt())
    path = tmp_path / "m.sparse"
    path.write_text(program.source.text)
    again = sparsec.load(path)
    assert (again.source.text, again.models) == (program.source.text, ("fastgen",))
    assert again.diagnostics == ()
    for layer in range(LAYERS):
        assert again.model().layer(layer).resolve() == program.model().layer(layer).resolve()


def mixed(model: PreTrainedModel, ids: Tensor) -> sparsec.Program:
    """Groups of one layer have different policies."""
    program = profile(
        model, ids, recovery=0.47, special=SPECIAL, punctuation=PUNCTUATION, local=0.25, frequent=0.1, target="torch"
    )
    assert "where g == 0" in program.source.text and "frequent" in program.source.text
    assert "window(latest)" in program.source.text
    return program


def generated(model: PreTrainedModel, ids: Tensor, new: int = NEW, **options: Any) -> Any:
    return model.generate(
        ids, max_new_tokens=new, do_sample=False, return_dict_in_generate=True, output_logits=True, **options
    )


@pytest.mark.parametrize("target", ["torch", pytest.param("cpu", marks=pytest.mark.kernels)])
def test_the_memory_of_keys_that_policies_drop_is_given_back(target: str) -> None:
    model, ids = llama(), prompt()
    program = mixed(model, ids)
    apply(model, program, target=target)
    cache = new_cache(model, 3 * LENGTH)
    with torch.no_grad():
        model(ids, past_key_values=cache, use_cache=True)
    held = [sum(kv.nbytes for kv in layer.kvs) for layer in cache.layers]
    every_key = 3 * LENGTH * 2 * model.config.num_key_value_heads * model.config.head_dim * 4
    policies = [program.model().layer(layer).resolve().inputs for layer in range(LAYERS)]
    assert any(policies)
    for given_back, inputs in zip((nbytes < every_key / 2 for nbytes in held), policies, strict=True):
        assert given_back or not inputs, (held, every_key)


def test_without_a_cache_the_model_is_dense_and_ids_of_a_call_are_needed_with_one() -> None:
    model, ids = llama(), prompt()
    with torch.no_grad():
        dense = model(ids).logits
        apply(model, mixed(model, ids), target="torch")
        torch.testing.assert_close(model(ids).logits, dense, atol=1e-4, rtol=1e-4)
        embedded = model.get_input_embeddings()(ids)
        with pytest.raises(CallError, match="expected input_ids, which say what the pattern's inputs mark"):
            model(inputs_embeds=embedded, past_key_values=new_cache(model, 64), use_cache=True)


def test_what_was_saved_is_restored_with_its_marks(tmp_path: Path) -> None:
    model, ids = llama(), prompt()
    wanted = generated(apply(model, mixed(model, ids), target="torch"), ids)
    model.save_pretrained(tmp_path)
    again = restore(LlamaForCausalLM.from_pretrained(tmp_path).eval(), target="torch")
    assert torch.equal(generated(again, ids).sequences, wanted.sequences)


def test_parameters_may_be_overridden() -> None:
    """With every token special the cache drops nothing."""
    model, ids = llama(), prompt()
    wanted = model.generate(ids, max_new_tokens=NEW, do_sample=False)
    apply(model, mixed(model, ids), params={"special_ids": "[0..97]"}, target="torch")
    assert torch.equal(model.generate(ids, max_new_tokens=NEW, do_sample=False), wanted)


def test_the_most_attended_keys_are_not_listed_ones() -> None:
    mass = torch.tensor([[[5.0, 9.0, 1.0, 2.0], [0.0, 0.0, 3.0, 0.0]]])
    listed = torch.tensor([[False, True, False, False]])
    wanted = [[[True, False, True, False]], [[True, False, True, True]]]
    assert [most_attended(mass, listed, 1, count).tolist()[0] for count in (2, 4)] == wanted
    assert not most_attended(mass, listed, 2, 0).any()


class Largest(TorchDispatchMode):
    """The most entries that a tensor has had."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, Tensor):
                self.entries = max(self.entries, each.untyped_storage().nbytes() // each.element_size())
        return found


def test_no_tensor_has_an_entry_for_each_pair() -> None:
    model, ids, pairs = llama(num_hidden_layers=1), prompt(length=2048), 2048**2
    with Largest() as eager:
        Eager().logits(model, ids)
    assert eager.entries >= pairs, "the count sees them"
    with Largest() as ours:
        profile(model, ids, special=SPECIAL, punctuation=PUNCTUATION)
    assert ours.entries < pairs / 8


def test_layers_are_profiled_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer's queries and keys outlive it."""
    import gc
    import weakref

    from sparsec.integrations.transformers import profiling

    seen: list[weakref.ref[Tensor]] = []
    own = profiling.layer_recovery

    def watched(method: Any, tokens: Any, dense: Any, held: Any, q: Tensor, *rest: Any, **options: Any) -> Any:
        gc.collect()
        assert all(each() is None for each in seen)
        seen.append(weakref.ref(q))
        return own(method, tokens, dense, held, q, *rest, **options)

    monkeypatch.setattr(profiling, "layer_recovery", watched)
    fastgen(llama(), prompt(), 0.5, target="torch")
    assert len(seen) == LAYERS

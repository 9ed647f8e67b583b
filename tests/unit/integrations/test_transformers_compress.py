"""A model that keeps the best keys of a prompt is that model, dense, under a mask that hides the others by KV group."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_transformers_profile import (
    HEADS,
    KV_HEADS,
    LAYERS,
    LENGTH,
    NEW,
    Eager,
    Largest,
    generated,
    llama,
    prompt,
)
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

import sparsec
from sparsec.integrations.transformers import Prompt, adaptive, apply, compress, new_cache, remove, restore
from sparsec.integrations.transformers.budgets import Amount, Budget
from sparsec.integrations.transformers.cache import SparseCache

pytestmark = pytest.mark.kernels

SHARE = HEADS // KV_HEADS
targets = pytest.mark.parametrize("target", ["cpu", "torch"])
WINDOWED = "pattern windowed { causal attend window(20) | sink(3) }"
STRIDED = "pattern strided { causal attend window(6) | stride(3, phase = -h) }"
Marks = list[list[list[int]]]
"""By layer and KV group the keys of one prompt that stay."""


def by_mass(prompt: Prompt) -> Tensor:
    return prompt.mass.unflatten(1, (KV_HEADS, -1)).sum(2)


def even(rows: list[list[float]], amount: float) -> list[list[int]]:
    each = amount if isinstance(amount, int) else int(amount * len(rows[0]))
    return [sorted(range(len(row)), key=lambda key: -row[key])[:each] for row in rows]


def divided(rows: list[list[float]], amount: float, floor: float = 0.2) -> list[list[int]]:
    each = int(amount * len(rows[0]))
    kept = even(rows, int(floor * each))
    others = [(row[key], group, key) for group, row in enumerate(rows) for key in range(len(row))]
    for _, group, key in sorted((each for each in others if each[2] not in kept[each[1]]), reverse=True):
        if sum(map(len, kept)) < each * len(rows):
            kept[group].append(key)
    return kept


BUDGETS: dict[str, tuple[Amount | Budget, Callable[[list[list[float]], int], list[list[int]]]]] = {
    "a share": (0.3, lambda rows, layer: even(rows, 0.3)),
    "a number": (9, lambda rows, layer: even(rows, 9)),
    "by layer": ([0.5, 7, 0.1], lambda rows, layer: even(rows, [0.5, 7, 0.1][layer])),
    "adaptive": (adaptive(0.25), lambda rows, layer: divided(rows, 0.25)),
    "a function": (
        lambda scores, layer: scores > scores.mean(2, keepdim=True) * (layer + 1),
        lambda rows, layer: [
            [key for key in range(len(row)) if row[key] > sum(row) / len(row) * (layer + 1)] for row in rows
        ],
    ),
}


def kept_by_hand(ids: Tensor, budget: str, mask: Callable[[int, int], Tensor] | None = None) -> Marks:
    """Of the prompt `ids` [N], by the soft-max of the dense model, or of one under a mask."""
    eager, found = Eager(mask), []
    eager.logits(llama(), ids[None])
    for layer in range(LAYERS):
        mass = eager.probabilities[layer][0].sum(1).view(KV_HEADS, SHARE, -1).sum(1).tolist()
        found.append(BUDGETS[budget][1](mass, layer))
    return found


def masked_by_hand(kept: Marks, start: int, pattern: Callable[[int], Tensor] | None = None) -> Any:
    """A function (layer, N) -> bool [heads, N, N]: what queries after the prompt of `start` tokens do not see of it."""

    def mask(layer: int, n: int) -> Tensor:
        live = torch.ones(HEADS, n, n).tril().bool() if pattern is None else pattern(n)
        for group, keys in enumerate(kept[layer]):
            gone = torch.tensor(sorted(set(range(start)) - set(keys)), dtype=torch.int64)
            for head in range(group * SHARE, (group + 1) * SHARE):
                live[head, start:, gone] = False
        return live

    return mask


def check_steps(
    kept: Marks, ids: Tensor, out: Any, row: int = 0, pattern: Callable[[int], Tensor] | None = None
) -> None:
    """The logits of each step are those of a dense model under the mask; `ids`: the row's own prompt, [N]."""
    start = len(ids)
    tokens = out.sequences[row, -(start + NEW) :]
    assert torch.equal(tokens[:start], ids)
    masked = Eager(masked_by_hand(kept, start, pattern)).logits(llama(), tokens[None, :-1])[0]
    for step, logits in enumerate(out.logits):
        torch.testing.assert_close(logits[row], masked[start - 1 + step], atol=2e-4, rtol=1e-4)
    plain = Eager(None if pattern is None else lambda layer, n: pattern(n)).logits(llama(), tokens[None, :-1])[0]
    assert (plain[-1] - masked[-1]).abs().max() > 1e-2, "what was dropped changes what is computed"


@targets
@pytest.mark.parametrize("beams", [1, 3])
def test_to_keep_everything_gives_the_tokens_of_the_dense_model(target: str, beams: int) -> None:
    model, ids, options = llama(), prompt(2), {"max_new_tokens": NEW, "do_sample": False, "num_beams": beams}
    wanted = model.generate(ids, **options)
    compress(model, lambda prompt: -prompt.k.norm(dim=-1), 1.0, target=target)
    assert torch.equal(model.generate(ids, **options), wanted)


@pytest.mark.parametrize(("budget", "target"), [*((budget, "cpu") for budget in BUDGETS), ("adaptive", "torch")])
def test_generate_is_a_masked_dense_model_at_each_step(budget: str, target: str) -> None:
    ids = prompt()
    model = compress(llama(), by_mass, BUDGETS[budget][0], target=target)
    check_steps(kept_by_hand(ids[0], budget), ids[0], generated(model, ids))


def test_rows_of_a_padded_batch_are_scored_alone() -> None:
    ids, short = prompt(3), LENGTH - 11
    ids[1, : LENGTH - short], ids[1, LENGTH - short] = 0, 1
    mask = (torch.arange(LENGTH) >= torch.tensor([[0], [LENGTH - short], [0]])).long()
    out = generated(compress(llama(), by_mass, adaptive(0.25), target="cpu"), ids, attention_mask=mask)
    for row, own in enumerate((ids[0], ids[1, -short:], ids[2])):
        check_steps(kept_by_hand(own, "adaptive"), own, out, row)


def test_a_prompt_in_chunks_is_a_prompt() -> None:
    model, ids = compress(llama(), by_mass, 0.3, target="cpu"), prompt(2)
    ids[1, :9] = 0
    options = {"attention_mask": (ids != 0).long()}
    wanted, calls = generated(model, ids, **options), []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    out = generated(model, ids, prefill_chunk_size=7, **options)
    handle.remove()
    assert len(calls) == math.ceil(LENGTH / 7) + NEW - 1
    assert torch.equal(out.sequences, wanted.sequences)
    for logits, own in zip(out.logits, wanted.logits, strict=True):
        torch.testing.assert_close(logits, own, atol=2e-4, rtol=1e-4)


def run(model: PreTrainedModel, ids: Tensor, cache: SparseCache, **options: Any) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(ids, past_key_values=cache, use_cache=True, **options).logits
    return logits


def held(cache: SparseCache, row: int = 0) -> Marks:
    """The keys that a row has in lists."""
    found = []
    for layer in cache.layers:
        lists, entries = layer.kv.kept.lists[row].tolist(), layer.kv.kept.entries[0]
        found.append([entries[base : base + count].tolist() for base, _, count in lists])
    return found


def ordered(kept: Marks) -> Marks:
    return [[sorted(keys) for keys in groups] for groups in kept]


def test_a_cache_by_hand_knows_where_a_prompt_in_chunks_ends() -> None:
    model, ids = compress(llama(), by_mass, 0.3, target="cpu"), prompt()
    cache = new_cache(model, LENGTH + NEW, prompt=LENGTH)
    wanted = ordered(kept_by_hand(ids[0], "a share"))
    for _ in range(2):
        for part in ids.split(20, 1):
            run(model, part, cache)
        assert held(cache) == wanted
        cache.reset()
    run(model, ids[:, :20], cache)
    with pytest.raises(sparsec.CallError, match="expected calls that end where the prompt of 48 columns does"):
        run(model, ids, cache)


def test_memory_after_a_prompt_is_that_of_the_keys_that_stay() -> None:
    """Ragged by sequence and group; and layer by layer, so that no two layers hold the whole prompt at once."""
    ids, row_bytes, most = prompt(2, length=1024), 2 * 16 * 4, []

    def score(prompt: Prompt) -> Tensor:
        whole = [layer.kv for layer in cache.layers if layer.kv is not None and layer.kv.kept is None]
        most.append(len(whole))
        return by_mass(prompt)

    model = compress(llama(), score, adaptive(0.2), target="cpu")
    cache = new_cache(model, 1024 + NEW)
    run(model, ids, cache)
    assert most == [1] * LAYERS
    keys = [held(cache, row) for row in range(2)]
    each = [len(group) for row in keys for layer in row for group in layer]
    assert sum(each) == 2 * LAYERS * KV_HEADS * int(0.2 * 1024), "a layer has the budget of all its groups"
    assert len(set(each)) > 1, "ragged"
    assert cache.nbytes <= 1.2 * sum(each) * row_bytes
    for new in range(NEW):
        run(model, ids[:, new : new + 1], cache)
    assert sum(len(g) for row in range(2) for layer in held(cache, row) for g in layer) == sum(each) + 2 * NEW * 6


@pytest.mark.parametrize("text", [WINDOWED, STRIDED])
def test_a_pattern_that_was_applied_stays(text: str) -> None:
    model, ids = llama(), prompt()
    program = sparsec.parse(text)
    apply(model, program, target="torch")

    def mask(n: int) -> Tensor:
        return program.pattern().mask(n, n, heads=HEADS, kv_heads=KV_HEADS)

    prompt_alone = model(ids, use_cache=False).logits
    kept = kept_by_hand(ids[0], "a share", lambda layer, n: mask(n))
    compress(model, by_mass, 0.3)
    torch.testing.assert_close(model(ids, use_cache=False).logits, prompt_alone, atol=2e-4, rtol=1e-4)
    out = generated(model, ids)
    torch.testing.assert_close(out.logits[0], prompt_alone[:, -1], atol=2e-4, rtol=1e-4)
    check_steps(kept, ids[0], out, pattern=mask)


def test_beams_see_what_stays_of_their_prompt() -> None:
    """As beams of the masked dense model, which computes all anew at each step."""
    ids, plain = prompt(), llama()
    options = {"max_new_tokens": NEW, "do_sample": False, "num_beams": 4, "length_penalty": 0.0}
    AttentionInterface.register("by_hand", Eager(masked_by_hand(kept_by_hand(ids[0], "a share"), LENGTH)))
    AttentionMaskInterface.register("by_hand", lambda *_, **__: None)
    plain.set_attn_implementation("by_hand")
    wanted = plain.generate(ids, use_cache=False, **options)
    model = compress(llama(), by_mass, 0.3, target="cpu")
    assert torch.equal(model.generate(ids, **options), wanted)
    assert not torch.equal(llama().generate(ids, **options), wanted)


def test_a_second_turn_adds_to_what_stayed() -> None:
    model, ids = compress(llama(), by_mass, 0.3, target="cpu"), prompt(length=LENGTH + 12)
    first, cache = ids[:, :LENGTH], new_cache(model, LENGTH + 12)
    run(model, first, cache)
    logits = run(model, ids[:, LENGTH:], cache)[0]
    kept = kept_by_hand(first[0], "a share")
    masked = Eager(masked_by_hand(kept, LENGTH)).logits(llama(), ids)[0, LENGTH:]
    torch.testing.assert_close(logits, masked, atol=2e-4, rtol=1e-4)
    assert held(cache) == [[sorted(keys) + list(range(LENGTH, LENGTH + 12)) for keys in layer] for layer in kept]
    cache.crop(LENGTH + 3)
    again = run(model, ids[:, LENGTH + 3 :], cache)[0]
    torch.testing.assert_close(again, masked[3:], atol=2e-4, rtol=1e-4)


def test_a_compressed_model_drafts_for_another() -> None:
    model, ids = llama(), prompt()
    wanted = model.generate(ids, max_new_tokens=NEW, do_sample=False)
    assistant = compress(llama(), by_mass, 0.3, target="cpu")
    assert torch.equal(model.generate(ids, max_new_tokens=NEW, do_sample=False, assistant_model=assistant), wanted)


def test_training_and_calls_without_a_cache_are_as_before() -> None:
    ids, model, plain = prompt(2), compress(llama(), by_mass, 0.3, target="torch").train(), llama().train()
    losses = [each(ids, labels=ids, use_cache=False).loss for each in (model, plain)]
    torch.testing.assert_close(losses[0], losses[1])
    for loss in losses:
        loss.backward()
    for (name, own), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_remove_and_restore(tmp_path: Path) -> None:
    model, ids = llama(), prompt()
    wanted = model.generate(ids, max_new_tokens=NEW, do_sample=False)
    apply(model, WINDOWED, target="torch")
    windowed = model.generate(ids, max_new_tokens=NEW, do_sample=False)
    own = compress(model, by_mass, 0.3).generate(ids, max_new_tokens=NEW, do_sample=False)
    assert len({tuple(each[0].tolist()) for each in (wanted, windowed, own)}) == 3
    model.save_pretrained(tmp_path)
    again = restore(type(model).from_pretrained(tmp_path).eval(), target="torch")
    assert torch.equal(again.generate(ids, max_new_tokens=NEW, do_sample=False), windowed)
    compress(model, by_mass, 0.5)
    assert torch.equal(compress(model, by_mass, 0.3).generate(ids, max_new_tokens=NEW, do_sample=False), own), (
        "the last call counts"
    )
    remove(model)
    assert torch.equal(model.generate(ids, max_new_tokens=NEW, do_sample=False), wanted)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert "_prefill" not in vars(model)


def test_no_tensor_has_an_entry_for_each_pair() -> None:
    model, ids, pairs = llama(num_hidden_layers=1), prompt(length=2048), 2048**2
    compress(model, by_mass, 0.1, target="cpu")
    with Largest() as ours:
        run(model, ids, new_cache(model, 2049))
    assert ours.entries < pairs / 8

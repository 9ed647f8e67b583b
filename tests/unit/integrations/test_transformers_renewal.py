"""What a FastGen program decodes is a masked dense model, whose frequent keys are found by hand after each token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_transformers_profile import (
    HEADS,
    KV_HEADS,
    LAYERS,
    LENGTH,
    PUNCTUATION,
    SPECIAL,
    Eager,
    among,
    frequent_by_hand,
    generated,
    llama,
    mixed,
    prompt,
)
from torch import Tensor

import sparsec
from sparsec.integrations.transformers import apply, new_cache

pytestmark = pytest.mark.kernels


def decoded_masks(program: sparsec.Program, ids: Tensor, start: int) -> tuple[list[Tensor], bool]:
    """Of each layer bool [heads, N, N], and whether a frequent set has changed after the prompt.

    A prompt sees everything. A later row sees what the program says, where the frequent keys of a group are those with
    the greatest sums of the rows before, of those that were frequent and new ones; or they are in its window.
    """
    most = program.parameters()["frequent_keys"]
    assert isinstance(most, int)
    n, listed, changed = ids.shape[0], among(ids, SPECIAL + PUNCTUATION), False
    masks = [torch.ones(n, n).tril().bool().expand(HEADS, n, n).clone() for _ in range(LAYERS)]
    frequent = [torch.zeros(KV_HEADS, n, dtype=torch.bool) for _ in range(LAYERS)]
    sums = [torch.zeros(KV_HEADS, n, dtype=torch.float64) for _ in range(LAYERS)]
    plain, eager = llama(), Eager(lambda layer, stop: masks[layer][:, :stop, :stop])

    def row(layer: int, at: int, marked: bool) -> Tensor:
        """What the heads see at that position, of all keys or of those that are seen without marks."""
        pattern = program.model().layer(layer)
        given = {"special": among(ids, SPECIAL)[None], "punctuation": among(ids, PUNCTUATION)[None]}
        given["frequent"] = frequent[layer]
        names = {each.name for each in pattern.resolve().inputs}
        inputs = {name: (each[:, : at + 1] & marked)[None] for name, each in given.items() if name in names}
        return pattern.mask(at + 1, at + 1, inputs=inputs).view(HEADS, at + 1, at + 1)[:, at]

    for stop in range(start, n):
        eager.logits(plain, ids[None, :stop])
        for layer in range(LAYERS):
            probabilities = eager.probabilities[layer][0]
            new = probabilities if stop == start else probabilities[:, -1:]
            sums[layer][:, :stop] += new.sum(1).view(KV_HEADS, -1, stop).sum(1)
            if stop == start:
                frequent[layer][:, :stop] = frequent_by_hand(probabilities, ids[:stop], most)
            else:
                near = row(layer, stop, marked=False)[:: HEADS // KV_HEADS]
                for group, marks in enumerate(frequent[layer]):
                    ranked = sorted(marks.nonzero().flatten().tolist(), key=lambda key: -sums[layer][group, key])
                    marks[[key for key in ranked[most:] if not near[group, key]]] = False
                    changed |= bool(marks[start:stop].any()) and int(marks[:start].sum()) < most
            frequent[layer][:, stop] = ~listed[stop]
            masks[layer][:, stop, : stop + 1] = row(layer, stop, marked=True)
    return masks, changed


def check_steps(program: sparsec.Program, ids: Tensor, out: Any, row: int = 0) -> bool:
    """The logits of each step are those of a dense model under the masks; `ids`: the row's own prompt. Returns whether
    a frequent set has changed after it."""
    plain, start = llama(), ids.shape[0]
    tokens = out.sequences[row, -(start + len(out.logits)) :]
    assert torch.equal(tokens[:start], ids)
    masks, changed = decoded_masks(program, tokens[:-1], start)
    masked = Eager(lambda layer, n: masks[layer]).logits(plain, tokens[None, :-1])[0]
    for step, logits in enumerate(out.logits):
        torch.testing.assert_close(logits[row], masked[start - 1 + step], atol=2e-4, rtol=1e-4)
    dense = Eager().logits(plain, tokens[None, :-1])[0]
    assert (dense[-1] - masked[-1]).abs().max() > 1e-2, "the marks change what is computed"
    return changed


@pytest.mark.parametrize("target", ["cpu", "torch"])
def test_generate_is_a_masked_dense_model_at_each_step(target: str) -> None:
    model, ids = llama(), prompt()
    program = mixed(model, ids)
    apply(model, program, target=target)
    check_steps(program, ids[0], generated(model, ids))
    assert check_steps(program, ids[0, :9], generated(model, ids[:, :9], 30)), "new tokens become frequent"


def test_rows_of_a_padded_batch_have_their_own_marks() -> None:
    model, ids = llama(), prompt(2)
    program = mixed(model, ids[:1])
    short = LENGTH - 11
    ids[1, : LENGTH - short] = 0
    ids[1, LENGTH - short] = 1
    mask = (torch.arange(LENGTH) >= torch.tensor([[0], [LENGTH - short]])).long()
    out = generated(apply(model, program, target="torch"), ids, attention_mask=mask)
    check_steps(program, ids[0], out, 0)
    check_steps(program, ids[1, -short:], out, 1)


def test_new_tokens_are_marked_by_their_ids() -> None:
    model, ids = llama(), prompt()
    program = mixed(model, ids)
    apply(model, program, target="torch")
    following = torch.tensor([[5, 50, 2, 60]])
    cache = new_cache(model, LENGTH + 4)
    with torch.no_grad():
        model(ids, past_key_values=cache, use_cache=True)
        logits = torch.cat(
            [model(token, past_key_values=cache, use_cache=True).logits[0] for token in following.split(1, 1)]
        )
    tokens = torch.cat([ids, following], 1)[0]
    masks, _ = decoded_masks(program, tokens, LENGTH)
    for layer in range(LAYERS):
        if "special" in str(program.model().layer(layer).resolve().inputs):
            assert bool(masks[layer][:, -1, LENGTH + 2].all()), "the new special token"
    masked = Eager(lambda layer, n: masks[layer]).logits(llama(), tokens[None])[0, LENGTH:]
    torch.testing.assert_close(logits, masked, atol=2e-4, rtol=1e-4)


def test_frequent_keys_go_with_their_sequences_and_end_where_tokens_are_taken_back() -> None:
    model, ids = llama(), prompt(2)
    apply(model, mixed(model, ids[:1]), target="torch")
    ids[1, 4:9] = ids[1, 4:9].flip(0) + 1
    following = prompt(2, 20).roll(3, 1)
    found = []
    for rows in ([0, 1], [1, 0]):
        cache = new_cache(model, 100, rollback=4)
        with torch.no_grad():
            model(ids[rows, :9], past_key_values=cache, use_cache=True)
            for token in following[rows].split(1, 1)[:6]:
                model(token, past_key_values=cache, use_cache=True)
            if rows == [1, 0]:
                cache.reorder_cache(torch.tensor([1, 0]))
            found.append([model(following[:, 6:], past_key_values=cache, use_cache=True).logits])
        cache.crop(-3)
        renewals = [each for layer in cache.layers for each in layer.renewals.values()]
        assert renewals and all(each.lengths == (26, 26) for each in renewals)
        for each in renewals:
            assert not each.sums[..., 26:].any() and not each.there["frequent"][..., 26:].any()
            assert bool(each.sums[..., :26].any())
        with torch.no_grad():
            found[-1].append(model(following[:, :2], past_key_values=cache, use_cache=True).logits)
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)

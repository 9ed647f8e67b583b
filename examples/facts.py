"""A small Llama that looks facts up in a long context, and the contexts that it is trained on.

A context is noise with a (key, value) pair for each key at a random place, and with marks that are opened and closed a
few symbols later: a mark's letter stands again where it is closed. So some attention is to far symbols, and some to
near ones. The prompt ends with the keys that are asked for. Then each of these is one new token, in another order; its
answer is the likeliest value. A symbol's features hold those of the one before it, so a value is found by its key.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from lm import progress_bar
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

KEYS, VALUES, LETTERS, NOISE = 32, 16, 16, 16
FIRST_VALUE, FIRST_LETTER, FIRST_NOISE = KEYS, KEYS + VALUES, KEYS + VALUES + LETTERS
START, ASK, OPEN, CLOSE = range(FIRST_NOISE + NOISE, FIRST_NOISE + NOISE + 4)
VOCABULARY = CLOSE + 1
SHORTEST = 128
"""Symbols of the shortest context."""


@dataclass(frozen=True, slots=True)
class Facts:
    """prompt: symbols [count, N], with the questions at its end. values: their answers, [count, asked]. again: the
    questions in another order, with their answers in `values_again`. closed: where marks are closed, with their letters
    in `letters`. Answers and letters count from 0."""

    prompt: Tensor
    values: Tensor
    again: Tensor
    values_again: Tensor
    closed: Tensor
    letters: Tensor


def facts(count: int, length: int, asked: int, generator: torch.Generator) -> Facts:
    """Contexts of `length` symbols, a multiple of 16; two symbols make a slot, and eight slots have one mark."""
    slots = length // 2
    context = torch.randint(FIRST_NOISE, START, (count, slots, 2), generator=generator)
    letters = torch.randint(LETTERS, (count, slots // 8), generator=generator)
    opened, closed = (
        torch.arange(start, slots, 8) + torch.randint(4, (count, slots // 8), generator=generator) for start in (0, 4)
    )
    order = torch.rand((count, slots), generator=generator)
    for at, symbol in ((opened, OPEN), (closed, CLOSE)):
        mark = torch.stack((torch.full_like(letters, symbol), FIRST_LETTER + letters), 2)
        context.scatter_(1, at[..., None].expand(-1, -1, 2), mark)
        order.scatter_(1, at, 2.0)
    values = torch.randint(VALUES, (count, KEYS), generator=generator)
    pairs = torch.stack((torch.arange(KEYS).expand(count, -1), FIRST_VALUE + values), 2)
    context.scatter_(1, order.argsort(1)[:, :KEYS, None].expand(-1, -1, 2), pairs)
    questions = torch.rand((count, KEYS), generator=generator).argsort(1)[:, :asked]
    again = questions.gather(1, torch.rand((count, asked), generator=generator).argsort(1))
    start, ask = (torch.full((count, 1), symbol) for symbol in (START, ASK))
    prompt = torch.cat((start, context.flatten(1), ask, questions, ask), 1)
    return Facts(prompt, values.gather(1, questions), again, values.gather(1, again), 1 + 2 * closed, letters)


def llama(width: int = 64) -> Any:
    """Two layers of four query heads on two KV heads; untrained. The same weights each time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=8192,
        rope_theta=1e5,
        initializer_range=0.1,
        bos_token_id=START,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    embedding = model.get_input_embeddings()
    embedding.smear = nn.Linear(width, width, bias=False)
    embedding.register_forward_hook(_smear)
    return model


def _smear(embedding: nn.Module, _: Any, out: Tensor) -> Tensor:
    """Adds to each symbol's features those of the one before it in the call."""
    return out + nn.functional.pad(embedding.smear(out)[:, :-1], (0, 0, 1, 0))


def train(model: Any, length: int, steps: int, tokens: int, rate: float = 1e-2, asked: int = 16) -> float:
    """Trains on `tokens` symbols a step: on contexts twice as long, up to `length`, each time that nine answers in ten
    are right. Gives the share of right answers in the last steps."""
    started, shares = time.perf_counter(), [0.0]
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator, size = torch.Generator().manual_seed(1), min(SHORTEST, length)
    with progress_bar(steps) as show:
        for step in range(steps):
            at = step / steps
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1, (step + 1) / 50, 2 * math.cos(math.pi / 2 * at) + 0.02)
            of = facts(max(1, tokens // size), size, asked, generator)
            logits = model(torch.cat((of.prompt, of.again), 1), use_cache=False).logits
            answers = logits[..., FIRST_VALUE:FIRST_LETTER]
            answers = torch.cat((answers[:, -2 * asked - 1 : -asked - 1], answers[:, -asked:]), 1)
            right = torch.cat((of.values, of.values_again), 1)
            closing = logits[..., FIRST_LETTER:FIRST_NOISE].gather(1, of.closed[..., None].expand(-1, -1, LETTERS))
            loss = nn.functional.cross_entropy(answers.flatten(0, 1), right.flatten())
            loss = loss + nn.functional.cross_entropy(closing.flatten(0, 1), of.letters.flatten())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            shares = [*shares[-19:], (answers.argmax(2) == right).float().mean().item()]
            if shares[-1] >= 0.9:
                size = min(2 * size, length)
            seconds = time.perf_counter() - started
            show(step + 1, f"{size} symbols: loss {loss.item():.3f}, found {shares[-1]:.0%}, {seconds:.0f} s")
    return sum(shares) / len(shares)

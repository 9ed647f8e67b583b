"""A function, or a press of kvpress -> what scores the keys of a `Prompt`.

A press is any object with `score(module, hidden_states, keys, values, attentions, kwargs) -> [B, G, N]`.
Invariant: a press gets `attentions` of None, for a matrix of queries and keys is never made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers.prompts import Prompt

Score = Callable[[Prompt], Tensor]
"""From a prompt in a layer to the scores of its keys, [B, G, N]; those with the highest stay."""


@dataclass(frozen=True, slots=True)
class OfPress:
    """The scores of a press. rotary: the decoder's rotary embedding, which a press finds at the attention module."""

    press: Any
    rotary: nn.Module | None

    def __call__(self, prompt: Prompt) -> Tensor:
        name, module = type(self.press).__name__, prompt.module
        lent = self.rotary is not None and not hasattr(module, "rotary_emb")
        if lent:
            module.add_module("rotary_emb", self.rotary)
        try:
            options = dict(prompt.options)
            found: Tensor = self.press.score(module, prompt.hidden_states, prompt.k, prompt.v, None, options)
        except Exception as error:  # a press may raise any
            why = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
            raise CallError(
                f"expected {name} to score layer {prompt.layer} by hidden states, keys and values, for attention "
                f"weights are not made (Prompt.mass has their sums), got {why}"
            ) from error
        finally:
            if lent:
                del module.rotary_emb
        return found


def scorer_of(given: Any, model: nn.Module, decoder: nn.Module) -> Score:
    """Raises CallError for what is neither a function nor a press that scores."""
    if callable(getattr(given, "score", None)):
        prepare = getattr(given, "post_init_from_model", None)
        if callable(prepare):
            prepare(model)
        return OfPress(given, getattr(decoder, "rotary_emb", None))
    if callable(getattr(given, "compress", None)):
        raise CallError(
            f"expected a press with score(...), got {type(given).__name__}, which chooses the keys itself; give the "
            "press that it wraps, and keep= for the budget"
        )
    if not callable(given):
        raise CallError(f"expected score, a function of a Prompt or a press, got {type(given).__name__}")
    found: Score = given
    return found

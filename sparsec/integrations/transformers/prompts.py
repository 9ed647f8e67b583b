"""What a layer's attention was given of a prompt, in one call or in chunks -> the `Prompt` that a score looks at.

Invariant: a `Prompt` has sequences of one length, without padding; nothing of as many entries as pairs of queries and
keys is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sparsec.runtime.module import SparseAttention

OF_TOKENS = ("hidden_states", "position_embeddings", "position_ids")
"""Arguments of attention modules that have a row for each token, in their second dimension."""
Options = Mapping[str, Any]
"""Those of `OF_TOKENS` that a module was given, by name: tensors, or tuples of them."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a layer's attention has when a prompt ends, for B sequences of N tokens.

    q: [B, H, N, D]; of the last tokens alone where the model asks for no other queries. k: [B, G, N, D]. v: [B, G, N,
    Dv]. scale: of the scores q.k. options: the arguments of the layer's attention module that have a row for each
    token, by name: `hidden_states`, and the rotary embedding of their positions, in most models.
    """

    layer: int
    module: nn.Module
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    options: Options
    attn: SparseAttention = field(repr=False)

    @property
    def hidden_states(self) -> Tensor | None:
        """[B, N, width], what the attention module got; None where that is no tensor with a row for each token."""
        return self.options.get("hidden_states")

    @cached_property
    def mass(self) -> Tensor:
        """float32 [B, H, N]: the attention probabilities of each key, added up over the queries, as the model's pattern
        has them: H2O's sums."""
        every = torch.ones((1, self.k.shape[2]), dtype=torch.bool, device=self.k.device)
        inputs = {each.name: every for each in self.attn.inputs}
        found: Tensor = self.attn(self.q, self.k, self.v, inputs=inputs, return_mass=True)[1]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class PromptPart:
    """What a layer's attention was given in a call: of a prompt, or of a chunk of it."""

    q: Tensor
    k: Tensor
    v: Tensor
    options: Options


def options_of(args: tuple[Any, ...], named: Mapping[str, Any]) -> Options:
    """Of the arguments of an attention module, the first of which are hidden states."""
    found = {**dict(zip(OF_TOKENS, args[:1], strict=False)), **named}
    hidden = found.get("hidden_states")
    if not isinstance(hidden, Tensor) or hidden.dim() != 3:
        return {}
    return {name: found[name] for name in OF_TOKENS if _rows(found.get(name), hidden.shape[1])}


def _rows(value: Any, tokens: int) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(_rows(each, tokens) for each in value)
    return isinstance(value, Tensor) and value.dim() > 1 and value.shape[1] == tokens


def whole_prompt(parts: Sequence[PromptPart]) -> PromptPart:
    """The chunks of a prompt as one; of queries those after the last that a chunk left out."""
    if len(parts) == 1:
        return parts[0]
    queries: list[Tensor] = []
    for part in reversed(parts):
        queries.insert(0, part.q)
        if part.q.shape[2] < part.k.shape[2]:
            break
    keys, values = (torch.cat([getattr(part, name) for part in parts], 2) for name in ("k", "v"))
    names = [name for name in OF_TOKENS if all(name in part.options for part in parts)]
    options = {name: _joined([part.options[name] for part in parts]) for name in names}
    return PromptPart(torch.cat(queries, 2), keys, values, options)


def _joined(values: Sequence[Any]) -> Any:
    if isinstance(values[0], tuple):
        return tuple(_joined(each) for each in zip(*values, strict=True))
    return torch.cat(list(values), 1)


def prompts(
    layer: int, module: nn.Module, attn: SparseAttention, part: PromptPart, lengths: tuple[int, ...]
) -> Iterator[tuple[list[int], Prompt]]:
    """The sequences of a batch by length, and a `Prompt` of each length; the last lengths[b] columns are row b's."""
    scale = part.q.shape[3] ** -0.5 if attn.scale is None else attn.scale
    for length in sorted(set(lengths) - {0}):
        rows = [row for row, each in enumerate(lengths) if each == length]
        q, k, v = (_cut(each, rows, min(length, each.shape[2]), 2) for each in (part.q, part.k, part.v))
        options = {name: _cut_any(value, rows, length) for name, value in part.options.items()}
        yield rows, Prompt(layer, module, q, k, v, scale, options, attn)


def _cut(x: Tensor, rows: list[int], length: int, dim: int) -> Tensor:
    last = x.narrow(dim, x.shape[dim] - length, length)
    return last if len(x) in (1, len(rows)) else last[rows]


def _cut_any(value: Any, rows: list[int], length: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_cut_any(each, rows, length) for each in value)
    return _cut(value, rows, length, 1)

"""A prompt in a layer -> the keys of it that stay in the cache when it ends.

Invariant: until a prompt ends each of its keys is marked, and so is each new one after it; what is left out of the
prompt stays out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sparsec.diagnostics.model import CallError
from sparsec.integrations.transformers.budgets import Budget
from sparsec.integrations.transformers.cache import SparseCache, SparseCacheLayer
from sparsec.integrations.transformers.presses import Score
from sparsec.integrations.transformers.prompts import Options, PromptPart, prompts, whole_prompt
from sparsec.runtime.module import SparseAttention

KEPT = "kept"
"""The input that marks the keys that stay."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What `compress` was given."""

    score: Score
    keep: Budget

    def of_call(self, cache: SparseCache | None, new: int) -> Selecting:
        """For a call of `new` columns. Raises CallError for one that goes on past the prompt."""
        if cache is None:
            return Selecting(self, reads=False, ends=False, columns=new)
        columns, had = cache.get_seq_length() + new, cache.get_seq_length()
        prompt = cache.prompt if cache.prompt is not None else new if had == 0 else 0
        if had < prompt < columns:
            raise CallError(f"expected calls that end where the prompt of {prompt} columns does, got one to {columns}")
        return Selecting(self, reads=had < prompt, ends=columns == prompt, columns=columns)

    def marks(
        self, layer: int, module: nn.Module, attn: SparseAttention, part: PromptPart, lengths: tuple[int, ...]
    ) -> Tensor:
        """bool [B, G, max(lengths)]: the keys that stay, by position. Raises CallError for other scores than wanted."""
        groups = part.k.shape[1]
        found = torch.zeros((len(lengths), groups, max(lengths)), dtype=torch.bool, device=part.k.device)
        for rows, prompt in prompts(layer, module, attn, part, lengths):
            shape = (len(rows), groups, prompt.k.shape[2])
            scores = _checked("scores", self.score(prompt), shape, layer)
            if not scores.is_floating_point() or bool(scores.isnan().any()):
                what = "NaN" if scores.is_floating_point() else str(scores.dtype)
                raise CallError(f"expected scores that are real numbers in layer {layer}, got {what}")
            kept = _checked("a budget", self.keep(scores, layer), shape, layer)
            if kept.dtype != torch.bool:
                raise CallError(f"expected a budget that gives bool in layer {layer}, got {kept.dtype}")
            found[rows, :, : shape[2]] = kept.to(found.device)
        return found


@dataclass(frozen=True, slots=True)
class Selecting:
    """Of one call. reads: whether it brings a prompt, or a chunk of one. ends: whether the prompt ends with it.
    columns: those there are after it. seen: by layer, what attention modules were given in it."""

    selection: Selection
    reads: bool
    ends: bool
    columns: int
    seen: dict[int, Options] = field(default_factory=dict)

    def every_key(self, k: Tensor) -> dict[str, Tensor]:
        """The marks of the keys [B, G, N, D] of the call."""
        return {KEPT: torch.ones((1, k.shape[2]), dtype=torch.bool, device=k.device)}

    @torch.compiler.disable(reason="lengths are read on the host")  # type: ignore[no-untyped-call, untyped-decorator]
    def after(
        self,
        layer: SparseCacheLayer,
        number: int,
        module: nn.Module,
        attn: SparseAttention,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> None:
        """After a layer's attention: notes a chunk, and drops keys where the prompt ends; q may have the last alone."""
        layer.chunks.append(PromptPart(q, k, v, self.seen.pop(number, {})))
        if not self.ends:
            return
        whole, kv = whole_prompt(layer.chunks), layer.kv
        layer.chunks.clear()
        assert kv is not None
        if whole.k.shape[2] != self.columns:
            raise CallError(
                f"expected a prompt that comes in calls one after the other, got {whole.k.shape[2]} of its "
                f"{self.columns} columns"
            )
        with torch.no_grad():
            kv.keep(KEPT, self.selection.marks(number, module, attn, whole, kv.lengths))


def _checked(what: str, given: object, shape: tuple[int, ...], layer: int) -> Tensor:
    if not isinstance(given, Tensor) or tuple(given.shape) != shape:
        got = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise CallError(f"expected {what} [batch, KV heads, keys] {list(shape)} in layer {layer}, got {got}")
    return given

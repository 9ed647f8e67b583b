"""What a pattern's inputs are given in a model: the lists of keys that its layers choose, and what a selector gives.

Invariant: a list names tokens as the pattern counts them, from the first one of its row, whatever padding comes before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsec.diagnostics.model import CallError
from sparsec.runtime.inputs.checks import InputTensors
from sparsec.sema.model import InputDecl, InputKind, InputUnit, ResolvedPattern

Selector = Callable[[int, Tensor, Tensor], Mapping[str, InputTensors]]
"""From a layer, its queries [B, H, N, D] and keys [B, G, N, D] of one call to tensors by the names of inputs."""
LISTS: Mapping[str, InputUnit] = {"indices": InputUnit.TOKENS, "block_indices": InputUnit.BLOCKS}
"""Arguments of attention functions that list keys for each query, -1 for none: of DeepSeek V3.2 and models like it
int [B, N, c], of MiniMax M3 int [B, G, N, c]."""
MASKED = "indexed_attention"
"""Layers of this type read a causal mask before they choose."""


@dataclass(frozen=True, slots=True)
class Fed:
    """Input `name` of a pattern is given the model's own lists, which come as `argument`; of `blocks`, or of tokens."""

    name: str
    argument: str

    @property
    def blocks(self) -> bool:
        return LISTS[self.argument] is InputUnit.BLOCKS


def fed(
    pattern: ResolvedPattern,
    module: nn.Module,
    options: Mapping[str, Any],
    *,
    selected: bool,
    made: tuple[str, ...] = (),
) -> Fed | None:
    """How the lists among `options` of a layer's attention reach the pattern. `selected`: a selector gives the inputs
    that are left, or there are none but those `made`. Raises CallError where either lacks what the other has."""
    given = [name for name in LISTS if options.get(name) is not None]
    wanting = [each for each in pattern.inputs if each.name not in made]
    rows = [each for each in wanting if each.kind is InputKind.ROWS]
    if not given:
        if wanting and not selected:
            raise CallError(
                f"expected inputs=, a function that gives {_names(wanting)} of the pattern, for the layer "
                f"({type(module).__name__}) chooses no keys itself; got none"
            )
        return None
    argument, unit = given[0], LISTS[given[0]]
    fitting = [each for each in rows if each.unit is unit]
    if len(fitting) != 1:
        wanted = "rows" if unit is InputUnit.TOKENS else "rows(blocks)"
        raise CallError(
            f"expected a pattern with one input of kind {wanted}, for the lists that {type(module).__name__} hands to "
            f"its attention as {argument}, got {_names(fitting) or 'none'}"
        )
    size = getattr(getattr(module, "indexer", None), "block_size", pattern.block)
    if unit is InputUnit.BLOCKS and size != pattern.block:
        raise CallError(f"expected a pattern with block {size}, as the model's lists count, got block {pattern.block}")
    if len(wanting) > 1 and not selected:
        others = [each for each in wanting if each is not fitting[0]]
        raise CallError(f"expected inputs=, a function that gives {_names(others)} of the pattern, got none")
    return Fed(fitting[0].name, argument)


def _names(inputs: list[InputDecl]) -> str:
    return ", ".join(repr(each.name) for each in inputs)


def selected(selector: Selector, wanted: tuple[str, ...], layer: int, q: Tensor, k: Tensor) -> dict[str, InputTensors]:
    """What a selector gives one call of a layer. Raises CallError unless it is a tensor, or a pair, for each name."""
    found: object = selector(layer, q, k)
    names = ", ".join(map(repr, wanted))
    if not isinstance(found, Mapping):
        raise CallError(f"expected inputs= to return a dict with {names} for layer {layer}, got {type(found).__name__}")
    if set(found) != set(wanted):
        given = ", ".join(map(repr, found)) or "none"
        raise CallError(f"expected inputs= to return {names} for layer {layer}, got {given}")
    return dict(found)


def given_lists(of: Fed, options: Mapping[str, Any], before: int) -> Tensor:
    """int [B, X, N, c] of a call's queries; the first `before` of them, which the model left out, list nothing."""
    lists: Tensor = options[of.argument]
    lists = lists[:, None] if lists.dim() == 3 else lists
    return nn.functional.pad(lists, (0, 0, before, 0), value=-1) if before else lists


def from_first_token(of: Fed, lists: Tensor, padding: Tensor) -> Tensor:
    """The lists counted from each row's first token, `padding` [B] columns after the first; what lies before is absent.

    Raises CallError for padding before blocks, whose bounds it would move.
    """
    if of.blocks:
        raise CallError(
            "expected no padding at the left, for the model chooses blocks of columns, which padding would move, got it"
        )
    moved = lists - padding.to(lists.device, lists.dtype)[:, None, None, None]
    return torch.where(moved < 0, -1, moved)

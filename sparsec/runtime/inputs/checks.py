"""The tensors that a call gives for a pattern's inputs -> all of them in order, checked.

Invariant: no number is read unless `values` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.sema.model import InputDecl

InputTensors = Tensor | tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the shapes of a call's inputs are held to."""

    batch: int
    heads: int
    kv_heads: int
    n_queries: int
    n_keys: int


def flat_inputs(
    declared: tuple[InputDecl, ...],
    given: Mapping[str, InputTensors] | None,
    sizes: Sizes,
    like: Tensor,
    *,
    values: bool,
) -> list[Tensor]:
    """The tensors of the inputs in the order of their declarations, on the device of `like`. Raises CallError."""
    if not declared:
        if given is not None and (not isinstance(given, Mapping) or given):
            names = sorted(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
            raise CallError(f"expected no inputs, since the pattern declares none, got {names}")
        return []
    found: list[Tensor] = []
    for input_ in declared:
        tensor = (given or {})[input_.name]
        found += tensor if isinstance(tensor, tuple) else (tensor,)
    return found

"""What a KV cache remembers of inputs: what these say of keys, by absolute position, for calls that come later.

Invariant: a tensor has a place for each position below max_len, and one past them that takes what padding says; or
that one alone, where a cache has what an input says elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.runtime.inputs.prepare import by_input
from sparsec.sema.model import InputDecl, InputKind

_DTYPES = {InputKind.TOKENS: torch.bool, InputKind.LABELS: torch.int32, InputKind.WEIGHTS: torch.float32}
"""Of the inputs that speak of keys."""


def blank(
    declared: tuple[InputDecl, ...], batch: int, heads: int, max_len: int, device: torch.device
) -> tuple[Tensor, ...]:
    """Of each input that speaks of keys a tensor [batch, heads, max_len + 1] of zeros."""
    return tuple(
        torch.zeros((batch, heads, max_len + 1), dtype=_DTYPES[input_.kind], device=device)
        for input_ in declared
        if input_.kind in _DTYPES
    )


def positions_kept(declared: tuple[InputDecl, ...], marks: Sequence[Tensor]) -> dict[int, Tensor]:
    """The tensors of `blank` by the ordinals of their inputs."""
    return dict(zip((n for n, input_ in enumerate(declared) if input_.kind in _DTYPES), marks, strict=True))


def remember(
    declared: tuple[InputDecl, ...], inputs: Sequence[Tensor], marks: Sequence[Tensor], lengths: Tensor, counts: Tensor
) -> None:
    """Writes what the inputs of a call say of its new keys, of which the last counts[b] are sequence b's, after the
    lengths[b] that it has. One of them at least speaks of keys. Raises CallError for labels that are not int32."""
    of_inputs = _of_keys(declared, inputs)
    places = max(mark.shape[-1] for mark in marks)
    if places == 1:
        return
    new, (batch, heads, _) = of_inputs[0].shape[-1], marks[0].shape
    row = torch.arange(new, device=lengths.device) - (new - counts.to(lengths.device))[:, None]
    position = row + lengths[:, None]
    inside = (row >= 0) & (position < places - 1)
    position = torch.where(inside, position, places - 1).to(torch.int64)[:, None].expand(batch, heads, new)
    for of_keys, mark in zip(of_inputs, marks, strict=True):
        if mark.shape[-1] == 1:
            continue
        of_heads = of_keys if of_keys.dim() == 3 else of_keys[:, None]
        spread = of_heads.repeat_interleave(heads // of_heads.shape[1], dim=1).expand(batch, heads, new)
        mark.scatter_(-1, position, spread)


def recalled(
    declared: tuple[InputDecl, ...], inputs: Sequence[Tensor], marks: Sequence[Tensor], n_keys: int
) -> list[Tensor]:
    """The tensors of a call's inputs, where those that speak of keys speak of the first `n_keys` of each sequence."""
    found: list[Tensor] = []
    kept = iter(marks)
    for input_, given in zip(declared, by_input(declared, inputs, Tensor.dim), strict=True):
        found += given[:-1] if input_.kind in _DTYPES else given
        if input_.kind in _DTYPES:
            found.append(next(kept)[..., :n_keys])
    return found


def _of_keys(declared: tuple[InputDecl, ...], inputs: Sequence[Tensor]) -> list[Tensor]:
    found = []
    for input_, given in zip(declared, by_input(declared, inputs, Tensor.dim), strict=True):
        if input_.kind in _DTYPES:
            if input_.kind is InputKind.LABELS and {each.dtype for each in given} != {torch.int32}:
                raise CallError(f"expected labels of int32 with a cache, got {given[0].dtype} and {given[1].dtype}")
            found.append(given[-1])
    return found

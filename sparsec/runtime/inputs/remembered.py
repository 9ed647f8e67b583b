"""What a KV cache remembers of inputs: what these say of keys, by absolute position, for calls that come later.

Invariant: a tensor has a place for each position below max_len, and one past them that takes what padding says; or
that one alone, where a cache has what an input says elsewhere. Of an input of kind tokens it has counts: one more place
at the front, and at m how many of a sequence's keys before position m are marked, as far as the sequence goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.runtime.inputs.prepare import by_input
from sparsec.sema.model import InputDecl, InputKind

_DTYPES = {InputKind.TOKENS: torch.int32, InputKind.LABELS: torch.int32, InputKind.WEIGHTS: torch.float32}
"""Of the inputs that speak of keys."""


def blank(
    declared: tuple[InputDecl, ...], batch: int, heads: int, max_len: int, device: torch.device
) -> tuple[Tensor, ...]:
    """Of each input that speaks of keys a tensor [batch, heads, places] of zeros."""
    return tuple(
        torch.zeros((batch, heads, max_len + 1 + (input_.kind is InputKind.TOKENS)), dtype=of_kind, device=device)
        for input_ in declared
        if (of_kind := _DTYPES.get(input_.kind)) is not None
    )


def marked(counts: Tensor, n_keys: int) -> Tensor:
    """bool [batch, heads, n_keys]: which keys the counts of an input of kind tokens say to be marked."""
    return counts[..., 1 : n_keys + 1] > counts[..., :n_keys]


def count_marks(counts: Tensor, marks: Tensor) -> None:
    """Lets the counts be those of `marks`, bool [batch, heads, keys], of all keys that sequences have."""
    torch.cumsum(marks, dim=-1, dtype=torch.int32, out=counts[..., 1 : marks.shape[-1] + 1])


def positions_kept(declared: tuple[InputDecl, ...], marks: Sequence[Tensor]) -> dict[int, Tensor]:
    """The tensors of `blank` by the ordinals of their inputs."""
    return dict(zip((n for n, input_ in enumerate(declared) if input_.kind in _DTYPES), marks, strict=True))


def remember(
    declared: tuple[InputDecl, ...], inputs: Sequence[Tensor], marks: Sequence[Tensor], lengths: Tensor, counts: Tensor
) -> None:
    """Writes what the inputs of a call say of its new keys, of which the last counts[b] are sequence b's, after the
    lengths[b] that it has. One of them at least speaks of keys. Raises CallError for labels that are not int32."""
    of_inputs = _of_keys(declared, inputs)
    if all(mark.shape[-1] == 1 for mark in marks):
        return
    new, (batch, heads, _) = of_inputs[0].shape[-1], marks[0].shape
    row = torch.arange(new, device=lengths.device) - (new - counts.to(lengths.device))[:, None]
    for of_keys, mark in zip(of_inputs, marks, strict=True):
        last = mark.shape[-1] - 1
        if last == 0:
            continue
        of_heads = of_keys if of_keys.dim() == 3 else of_keys[:, None]
        spread = of_heads.repeat_interleave(heads // of_heads.shape[1], dim=1).expand(batch, heads, new)
        place = row + lengths[:, None]
        if of_keys.dtype == torch.bool:  # of kind tokens
            before = mark.gather(-1, lengths.clamp(max=last).to(torch.int64)[:, None, None].expand(-1, heads, 1))
            place = place + 1
            spread = before + (spread & (row >= 0)[:, None]).cumsum(-1, dtype=torch.int32)
        place = torch.where((row >= 0) & (place < last), place, last).to(torch.int64)
        mark.scatter_(-1, place[:, None].expand(batch, heads, new), spread)


def recalled(
    declared: tuple[InputDecl, ...], inputs: Sequence[Tensor], marks: Sequence[Tensor], n_keys: int
) -> list[Tensor]:
    """The tensors of a call's inputs, where those that speak of keys speak of the first `n_keys` of each sequence; of
    an input of kind tokens they are its counts, whole, in which later places may hold anything."""
    found: list[Tensor] = []
    kept = iter(marks)
    for input_, given in zip(declared, by_input(declared, inputs, Tensor.dim), strict=True):
        found += given[:-1] if input_.kind in _DTYPES else given
        if input_.kind in _DTYPES:
            of_keys = next(kept)
            found.append(of_keys if input_.kind is InputKind.TOKENS else of_keys[..., :n_keys])
    return found


def _of_keys(declared: tuple[InputDecl, ...], inputs: Sequence[Tensor]) -> list[Tensor]:
    found = []
    for input_, given in zip(declared, by_input(declared, inputs, Tensor.dim), strict=True):
        if input_.kind in _DTYPES:
            if input_.kind is InputKind.LABELS and {each.dtype for each in given} != {torch.int32}:
                raise CallError(f"expected labels of int32 with a cache, got {given[0].dtype} and {given[1].dtype}")
            found.append(given[-1])
    return found

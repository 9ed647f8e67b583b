"""The tensors of inputs of a call over pages -> the same as of a call that has a sequence for each request.

Invariant: no number is read on the host. What speaks of single queries stays as it is, for the rows of q.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparsec.runtime.inputs.prepare import by_input
from sparsec.sema.model import InputDecl, InputKind

_PAST = {InputKind.TOKENS: 0, InputKind.LABELS: -1, InputKind.WEIGHTS: 0}
"""By the kinds that speak of keys, what they say of those past the positions that a tensor has."""


def of_requests(declared: tuple[InputDecl, ...], flat: Sequence[Tensor], starts: Tensor, n_keys: int) -> list[Tensor]:
    """Those that speak of keys speak of the first `n_keys`; parents are those of the last tokens of each request.

    starts: int32 [requests + 1], the rows of each request.
    """
    found: list[Tensor] = []
    for input_, given in zip(declared, by_input(declared, flat, Tensor.dim), strict=True):
        if input_.kind is InputKind.TREE:
            found.append(_parents_of_last(given[0], starts))
            continue
        found += given[:-1]
        last = given[-1]
        if input_.kind in _PAST and last.shape[-1] != n_keys:
            last = pad(last[..., :n_keys], (0, max(n_keys - last.shape[-1], 0)), value=_PAST[input_.kind])
        found.append(last)
    return found


def _parents_of_last(parents: Tensor, starts: Tensor) -> Tensor:
    """[requests, n]: the parents of the last n tokens of each request, of which the last are its rows, as far as these
    are no more than n: parents [1 or requests, n] are of these. Others follow each other."""
    requests, n = len(starts) - 1, parents.shape[1]
    place = torch.arange(n, dtype=torch.int64, device=parents.device)
    count = (starts[1:] - starts[:-1]).to(torch.int64)[:, None]
    before = torch.where(count <= n, n - count, n)
    own = (place - before).clamp(min=0)
    parent = parents.to(torch.int64).expand(requests, n).gather(1, own)
    known = (parent >= 0) & (parent < own)
    of_draft = torch.where(known, parent + before, before - 1)
    return torch.where(place < before, place - 1, of_draft)

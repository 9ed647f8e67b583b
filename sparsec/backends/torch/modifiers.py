"""A modifier's rule in PyTorch: what becomes of scores, and the derivative of the new score by the old one.

Invariant: a modifier that is not `per_pair` leaves scores as they are.
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from sparsec.sema.modifiers import Alibi, KeyBias, LearnedSink, Modifier, Softcap


def of_heads(modifier: Modifier, heads: int, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """The modifier's numbers, one a query head; None if it has none."""
    match modifier:
        case Alibi():
            return torch.tensor(modifier.of_heads(heads), device=device, dtype=dtype)
        case Softcap() | KeyBias() | LearnedSink():
            return None
        case _:
            assert_never(modifier)


def modified(
    modifier: Modifier, numbers: Tensor | None, scores: Tensor, i: Tensor, j: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Scores [B, heads, queries, keys] at positions i and j, which broadcast to [queries, keys], changed; and d new /
    d old, None standing for 1.

    numbers: of the block's heads, as from `of_heads`; of a key bias what it adds, which broadcasts to the scores.
    """
    match modifier:
        case Softcap(x):
            bent = torch.tanh(scores / x)
            return bent * x, 1 - bent * bent
        case Alibi():
            assert numbers is not None
            return scores - numbers[:, None, None] * (i - j).abs(), None
        case KeyBias():
            assert numbers is not None
            return scores + numbers, None
        case LearnedSink():
            return scores, None
        case _:
            assert_never(modifier)

"""H2O's score (arXiv 2306.14048), for `sparsec.integrations.transformers.compress`.

A key's score is the attention that all queries of the prompt pay it, added up over them and over the query heads of a
KV group. The `recent` keys stay in any case.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsec.integrations.transformers import Prompt


def score(prompt: Prompt, *, recent: int = 64) -> Tensor:
    groups, keys = prompt.k.shape[1:3]
    heavy = prompt.mass.unflatten(1, (groups, -1)).sum(2)
    return heavy.masked_fill(torch.arange(keys, device=heavy.device) >= keys - recent, math.inf)

"""PyramidKV's budget (arXiv 2406.02069), for `sparsec.integrations.transformers.compress`.

Lower layers keep more keys than higher ones: from one layer to the next it is the same number less, and the mean over
the layers is `share` of the prompt. `beta`: how much less than the mean the last layer keeps.
"""

from __future__ import annotations


def shares(share: float, layers: int, *, beta: float = 20) -> list[float]:
    most = min(2 * share - share / beta, 1.0)
    step = 2 * (most - share) / max(1, layers - 1)
    return [most - layer * step if layers > 1 else share for layer in range(layers)]

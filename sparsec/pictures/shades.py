"""Shares of live pairs -> levels of shade, the same in text, SVG and the page's script.

Invariant: level 0 is a cell without a live pair, the last a cell whose pairs are all live, and no other cell has them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LIMITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
"""Shares up to the first have level 1, and so on; then comes less than all, then all."""
LEVELS = len(LIMITS) + 2
OPACITY = (0.14, 0.18, 0.23, 0.29, 0.36, 0.45, 0.55, 0.67, 0.82, 1.0)
"""Of the ink of levels 1 to LEVELS."""
_ALL = 1 - 1e-9
"""Shares are quotients of floating-point sums."""


def levels(live: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The level of each cell."""
    found = np.searchsorted(np.asarray(LIMITS), live, side="left") + 1
    return np.where(live <= 0, 0, np.where(live >= _ALL, LEVELS, found)).astype(np.int64)


def level_texts() -> tuple[str, ...]:
    """What each level from 0 on means, for a legend."""
    return ("none", *(f"{limit:.0%}" for limit in LIMITS), "<100%", "all")

"""What a pattern means, pair by pair, and dense attention over it."""

from sparsec.reference.attention import attention
from sparsec.reference.mask import mask

__all__ = ["attention", "mask"]

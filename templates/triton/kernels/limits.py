"""Which columns of a tile a row has."""

import triton
import triton.language as tl


@triton.jit
def between(column, lower, upper):
    """Whether lower <= column < upper, by one comparison; columns count from 0."""
    lower = tl.maximum(lower, 0)
    count = tl.maximum(lower, upper) - lower
    return (column - lower).to(tl.uint32, bitcast=True) < count.to(tl.uint32, bitcast=True)

"""Which columns of a tile a row has; they count from 0."""

import triton
import triton.language as tl


@triton.jit
def between(column, lower, upper):
    """Whether lower <= column < upper, by one comparison."""
    lower = tl.maximum(lower, 0)
    count = tl.maximum(lower, upper) - lower
    return (column - lower).to(tl.uint32, bitcast=True) < count.to(tl.uint32, bitcast=True)


@triton.jit
def columns_from(limit, first):
    """A word with a bit for each of the columns first .. first + 31: whether it is `limit` or above."""
    below = tl.minimum(tl.maximum(limit - first, 0), 32)
    return (-1 << below.to(tl.int64)).to(tl.int32)


@triton.jit
def has_column(word, column):
    """Whether the bit of `column` is set in the word of its columns."""
    bit = 1 << (column & 31)
    return (word & bit) == bit

"""The online soft-max: of each row the maximum of its scores and the sum of their weights, to base 2."""

import triton
import triton.language as tl
from kernels.exact import seen_weights
from kernels.tiles import add_rows


@triton.jit
def none_seen(zeros):
    """Row maxima and row sums before the first key."""
    return zeros + float("-inf"), zeros


@triton.jit
def weigh(scores, live, high, factor, MASKED: tl.constexpr):
    """Weights of a key tile, the factor of what was summed before, and the new row maxima."""
    if MASKED:
        scores = tl.where(live, scores, float("-inf"))
    new_high = tl.maximum(high, tl.max(scores, 1) * factor)
    base = new_high
    if MASKED:
        # Nothing seen yet: high is -inf, and subtracting it from itself would give NaN.
        base = tl.where(new_high == float("-inf"), 0.0, new_high)
    return tl.exp2(scores * factor - base[:, None]), tl.exp2(high - base), new_high


@triton.jit
def add_values(
    p, live, values, sums, decay, attempt, EXACT: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr
):
    """The sums, rescaled, and the weighted values."""
    if EXACT:
        p = seen_weights(p, live, attempt)
        decay = tl.where(attempt % 3 == 0, decay, 1.0)
    rescaled = ()
    for n in tl.static_range(len(sums)):
        rescaled = rescaled + (sums[n] * decay[:, None],)
    return add_rows(p, values, rescaled, OPERAND, PRECISION)


@triton.jit
def inverse_of(weight):
    """A row that saw no key has weight 0, and output 0."""
    return (1.0 / tl.where(weight == 0.0, 1.0, weight))[:, None]

"""key_bias: each key's own weight is added to its scores. Scores are exponents of 2."""

import triton
import triton.language as tl


@triton.jit
def key_bias_of_head(bias, bias_batch, bias_heads, bias_head, HEADS: tl.constexpr, batch, head):
    """Where the weights of the head's keys begin, from row 0 on; `bias`: [batch, bias_heads, bias_keys]."""
    return bias + bias_batch.to(tl.int64) * batch + (head * bias_heads // HEADS).to(tl.int64) * bias_head


@triton.jit
def key_bias_score(scores, factor, key_bias, bias_key, bias_keys, KEY_ROW, j):
    """The scores, and which keys are kept: one whose weight is -inf is not seen. Position 0 is row KEY_ROW."""
    row = j + KEY_ROW
    there = (row >= 0) & (row < bias_keys)
    place = tl.where(there, row, 0).to(tl.int64) * bias_key
    weights = tl.load(key_bias + place, mask=there, other=0.0) * 1.4426950408889634
    return scores * factor + weights, weights != float("-inf")

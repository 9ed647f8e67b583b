"""Integer division that rounds toward minus infinity; Triton's own truncates."""

import triton
import triton.language as tl


@triton.jit
def floor_div(left, right):
    quotient = left // right
    return tl.where(left < quotient * right, quotient - 1, quotient)


@triton.jit
def floor_mod(left, right):
    remainder = left % right
    return tl.where(remainder < 0, remainder + right, remainder)

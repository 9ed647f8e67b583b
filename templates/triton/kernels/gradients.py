"""The gradients of one key tile and one query tile; rows are queries and columns keys, or the reverse."""

import triton
import triton.language as tl
from kernels.exact import seen_weights
from kernels.tiles import add_rows, load_rows


@triton.jit
def weights_of(scores, live, log_sums, factor, MASKED: tl.constexpr):
    """The soft-max's weights, from the base-2 log-sum-exps of the queries."""
    p = tl.exp2(scores * factor - log_sums)
    if MASKED:
        p = tl.where(live, p, 0.0)
    return p


@triton.jit
def score_gradient(p, slopes, deltas):
    """From the gradient of the weights to that of the scores."""
    return p * (slopes - deltas)


@triton.jit
def weighed(p, ds, EXACT: tl.constexpr):
    """Where nothing is weighed, the gradient may have met a NaN."""
    if EXACT:
        ds = tl.where(p == 0.0, 0.0, ds)
    return ds


@triton.jit
def add_gradients(
    weights,
    live,
    log_sums,
    tile,
    sums,
    attempt,
    EXACT: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The sums and the weighted rows of the tile."""
    if EXACT:
        weights = seen_weights(weights, live & (log_sums < float("inf")), attempt)
    return add_rows(weights, tile, sums, OPERAND, PRECISION)


@triton.jit
def sums_of(gradients, outputs, g_offsets, out_offsets, present, CHUNKS: tl.constexpr):
    """Of each row sum(g * out), and whether its gradient is 0 throughout."""
    sums = tl.zeros([present.shape[0]], tl.float32)
    given = tl.zeros([present.shape[0]], tl.int32)
    g = load_rows(gradients, g_offsets, present, CHUNKS, tl.float32)
    out = load_rows(outputs, out_offsets, present, CHUNKS, tl.float32)
    for n in tl.static_range(len(CHUNKS)):
        # A row that saw no key has output 0, whatever its gradient is.
        sums += tl.sum(tl.where(out[n] == 0.0, 0.0, g[n] * out[n]), 1)
        given = tl.maximum(given, tl.max((g[n] != 0.0).to(tl.int32), 1))
    return sums, given == 0

"""learned_sink: one more logit of each head in the soft-max's denominator, with no value."""

import triton
import triton.language as tl


@triton.jit
def learned_sink_start(sink, head, zeros):
    """The row maxima and row sums of rows that have seen the sink alone."""
    return zeros + tl.load(sink + head) * 1.4426950408889634, zeros + 1.0


@triton.jit
def learned_sink_row_gradient(sink, sink_parts, program, head, natural, dead, sums):
    """The part of the sink's gradient that this program's rows give."""
    weight = tl.exp2((tl.load(sink + head) - natural) * 1.4426950408889634)
    tl.store(sink_parts + program, -tl.sum(tl.where(dead, 0.0, weight * sums), 0))

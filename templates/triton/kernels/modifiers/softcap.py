"""softcap x: the score s becomes x * tanh(s / x). Scores are exponents of 2, and so is `cap_log2`."""

import triton
import triton.language as tl


@triton.jit
def softcap_score(scores, factor, cap_log2, WIDE: tl.constexpr):
    """The capped scores * factor, and their tanh, which the gradient reads."""
    bent = tanh(scores * (factor / cap_log2), WIDE)
    return bent * cap_log2, bent


@triton.jit
def softcap_gradient(ds, softcap_kept):
    return ds * (1.0 - softcap_kept * softcap_kept)


@triton.jit
def tanh(x, WIDE: tl.constexpr):
    if WIDE:
        # A power series near 0, where the difference would cancel.
        square = x * x
        series = x * (1.0 - square * (0.3333333333 - square * (0.1333333333 - square * 0.0539682540)))
        found = tl.where(square < 0.04, series, 1.0 - 2.0 / (tl.exp2(x * 2.885390081777927) + 1.0))
    else:
        found = 1.0 - 2.0 / (tl.exp2(x * 2.885390081777927) + 1.0)
    return found

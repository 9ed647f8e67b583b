"""alibi: a head's slope times the distance of query and key is taken from the score. Scores are exponents of 2."""

import triton
import triton.language as tl


@triton.jit
def alibi_of_head(head_slopes, head):
    return tl.load(head_slopes + head)


@triton.jit
def alibi_score(scores, factor, i, j, alibi):
    return scores * factor - alibi * tl.abs(i - j).to(tl.float32)

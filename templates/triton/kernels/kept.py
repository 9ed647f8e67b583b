"""Lists of kept keys: of each sequence and KV head the entries base .. base + count - 1, at most `capacity` of them.

An entry has a key, a value, a position, and marks in words of 32 bits: the words w of all `columns` entries begin at
marks + w * columns.
"""

import triton
import triton.language as tl
from kernels.inputs import own


@triton.jit
def entry_marked(marks, entry, known, columns, bit, FIRST: tl.constexpr, LAST: tl.constexpr):
    """Whether entries have a bit, which is in one of the words FIRST .. LAST."""
    word = tl.load(marks + FIRST * columns + entry, mask=known, other=0)
    for n in tl.static_range(FIRST + 1, LAST + 1):
        word = tl.where(bit >> 5 == n, tl.load(marks + n * columns + entry, mask=known, other=0), word)
    return ((word >> (bit & 31)) & 1) != 0


@triton.jit
def word_of(
    word,
    said,
    batches,
    heads,
    rows,
    batch,
    group,
    row,
    there,
    WORD: tl.constexpr,
    FIRST: tl.constexpr,
    SHARE: tl.constexpr,
    HEADS: tl.constexpr,
):
    """Word WORD of the marks of a call's rows, with those of an input: bit FIRST + n is that of head n of the group.

    said: bytes [batches, heads, rows].
    """
    for n in tl.static_range(SHARE):
        if (FIRST + n) // 32 == WORD:
            at = own(said, batches, heads, 1, rows, batch, group * SHARE + n, HEADS)
            marked = tl.load(at + row, mask=there, other=0) != 0
            word = word | (marked.to(tl.int32) << (FIRST + n) % 32)
    return word


@triton.jit
def with_others(sums, weight, high, others, logs, attempt, EXACT: tl.constexpr):
    """The sums, row sums and row maxima of kept keys and of other keys, whose results and log-sum-exps are given."""
    new_high = tl.maximum(high, logs)
    base = tl.where(new_high == float("-inf"), 0.0, new_high)
    share, decay = tl.exp2(logs - base), tl.exp2(high - base)
    weight = weight * decay + share
    if EXACT:
        share = tl.where(attempt % 3 == 0, share, 1.0)
        decay = tl.where(attempt % 3 == 0, decay, 1.0)
    added = ()
    for n in tl.static_range(len(sums)):
        added = added + (sums[n] * decay[:, None] + others[n] * share[:, None],)
    return added, weight, new_high

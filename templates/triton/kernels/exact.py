"""What a NaN or an infinity may reach: the rows that see it, and no others.

A product of tiles carries a NaN of one row to all, as 0 * NaN. So a program asks at its end whether a sum of its is not
finite; only then it goes over its tiles again, three times for each PIECE of columns. The first time it sums what is
finite, as before. Then it sums 1 for each NaN or infinity that a row sees, the second time those that are not negative,
the third time those that are not positive: where the sum is not 0, infinity or minus infinity is added to the result,
and both are a NaN. Sums of a piece take few registers, beside those that the tile holds anyway.

Invariant: what reaches no row leaves all results as they are.
"""

import triton
import triton.language as tl


@triton.jit
def attempts_of(sums, ATTEMPTS: tl.constexpr):
    """How often to go over the tiles again: not at all if all sums are finite."""
    rows = tl.zeros([sums[0].shape[0]], tl.float32)
    for n in tl.static_range(len(sums)):
        rows += tl.sum(sums[n] * 0.0, 1)
    # By pairs of rows: of sums in tensor memory Triton 3.7 cannot compile the largest at once.
    found = tl.reshape((rows != 0.0).to(tl.int32), [sums[0].shape[0] // 2, 2], can_reorder=True)
    return tl.max(tl.max(found, 1), 0) * ATTEMPTS


@triton.jit
def anew(numbers, attempt):
    """`numbers`, in a form that holds no registers from before the attempt: attempt >> 29 is 0, as no compiler sees."""
    return numbers + (attempt >> 29)


@triton.jit
def load_piece(rows, inside, attempt, PIECE: tl.constexpr, HEAD_DIM: tl.constexpr, SIGNED: tl.constexpr):
    """What an attempt sums of the rows at `rows` [rows, 1]; unless SIGNED, an infinity is as good as a NaN."""
    column = attempt // 3 * PIECE + tl.arange(0, PIECE)[None, :]
    found = tl.load(rows + column, mask=inside & (column < HEAD_DIM), other=0.0)
    piece = found.to(tl.float32)
    finite = tl.abs(piece) < float("inf")
    left_out = finite
    if SIGNED:
        left_out = finite | (piece == tl.where(attempt % 3 == 1, float("-inf"), float("inf")))
    piece = tl.where(attempt % 3 == 0, tl.where(finite, piece, 0.0), tl.where(left_out, 0.0, 1.0))
    return (piece.to(found.dtype),)


@triton.jit
def seen_weights(weights, seen, attempt):
    """The weights with which an attempt sums."""
    return tl.where(attempt % 3 == 0, weights, tl.where(seen, 1.0, 0.0))


@triton.jit
def store_piece(
    piece, factor, rows, offsets, present, attempt, PIECE: tl.constexpr, HEAD_DIM: tl.constexpr, ADD: tl.constexpr
):
    """Writes an attempt's result where `present`, or adds it to what the attempts before have left."""
    column = attempt // 3 * PIECE + tl.arange(0, PIECE)[None, :]
    at = rows + (offsets + column)
    mask = present[:, None] & (column < HEAD_DIM)
    stored = tl.load(at, mask=mask if ADD else tl.where(attempt % 3 > 0, mask, False), other=0.0)
    mark = tl.where(attempt % 3 == 1, float("inf"), float("-inf"))
    result = tl.where(attempt % 3 == 0, piece * factor, tl.where(piece != 0.0, mark, 0.0)) + stored
    tl.store(at, result.to(rows.dtype.element_ty), mask=mask)

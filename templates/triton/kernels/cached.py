"""Keys and values from two sources: what the cache holds, and what comes with the call."""

import triton
import triton.language as tl
from kernels.tiles import load_chunk


@triton.jit
def either_pointers(arena, place, given, row, row_stride, old, HEAD_DIM: tl.constexpr, VECTOR: tl.constexpr):
    """Pointers to rows: those at `place` of the arena where `old`, else those numbered `row` of the call's own."""
    cached = arena + place.to(tl.int64) * HEAD_DIM
    rows = tl.where(old, cached, given + row.to(tl.int64) * row_stride)
    # Of a choice between two pointers the compiler does not see that either is aligned.
    return rows if VECTOR == 1 else tl.multiple_of(rows, (16, 16))


@triton.jit
def gather_tile(rows, inside, CHUNKS: tl.constexpr, BOUNDED: tl.constexpr):
    """The rows at the pointers `rows`; zeros where not `inside` (if BOUNDED)."""
    tile = ()
    for n in tl.static_range(len(CHUNKS)):
        column = CHUNKS[n][0] + tl.arange(0, CHUNKS[n][1])[None, :]
        tile = tile + (load_chunk(rows + column, inside, column, CHUNKS[n][2], BOUNDED),)
    return tile


@triton.jit
def store_nothing(out, lse, at, absent, ROWS: tl.constexpr, CHUNKS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Of padding the output is 0 and the log-sum-exp -inf."""
    tl.store(lse + at, tl.full([ROWS], float("-inf"), tl.float32), mask=absent)
    for n in tl.static_range(len(CHUNKS)):
        column = CHUNKS[n][0] + tl.arange(0, CHUNKS[n][1])[None, :]
        mask = absent[:, None]
        if CHUNKS[n][2] is not None:
            mask = mask & (column < CHUNKS[n][2])
        nothing = tl.zeros([ROWS, CHUNKS[n][1]], out.dtype.element_ty)
        tl.store(out + at[:, None] * HEAD_DIM + column, nothing, mask=mask)


@triton.jit
def copy_rows(source, strides, batch, group, row, arena, to, kept, CHUNKS: tl.constexpr):
    """New rows to where they are kept."""
    rows = source + batch * strides[0] + group * strides[1] + row.to(tl.int64)[:, None] * strides[2]
    for n in tl.static_range(len(CHUNKS)):
        column = CHUNKS[n][0] + tl.arange(0, CHUNKS[n][1])[None, :]
        mask = kept[:, None]
        if CHUNKS[n][2] is not None:
            mask = mask & (column < CHUNKS[n][2])
        tl.store(arena + to + column, tl.load(rows + column, mask=mask), mask=mask)


@triton.jit
def merge_parts(
    parts, part_logs, at, rows, splits, high, weight, PARTS: tl.constexpr, CHUNKS: tl.constexpr, HEAD_DIM: tl.constexpr
):
    """Row `at` of each of `splits` parts of `rows` rows: row maximum and row sum, from those given on, and the sums."""
    sums = ()
    for n in tl.static_range(len(CHUNKS)):
        sums = sums + (tl.zeros([CHUNKS[n][1]], tl.float32),)
    for first in tl.range(0, splits, PARTS):
        part = first + tl.arange(0, PARTS)
        place = part.to(tl.int64) * rows + at
        logs = tl.load(part_logs + place, mask=part < splits, other=float("-inf"))
        new_high = tl.maximum(high, tl.max(logs, 0))
        # Nothing seen yet: high is -inf, and subtracting it from itself would give NaN.
        base = tl.where(new_high == float("-inf"), 0.0, new_high)
        share = tl.exp2(logs - base)
        decay = tl.exp2(high - base)
        weight = weight * decay + tl.sum(share, 0)
        found = gather_tile(parts + place[:, None] * HEAD_DIM, (part < splits)[:, None], CHUNKS, True)
        sums = merged(sums, decay, found, share)
        high = new_high
    return high, weight, sums


@triton.jit
def merged(sums, decay, tile, share):
    added = ()
    for n in tl.static_range(len(sums)):
        added = added + (sums[n] * decay + tl.sum(tile[n] * share[:, None], 0),)
    return added


@triton.jit
def store_merged(sums, weight, out, absent, CHUNKS: tl.constexpr):
    """A row of the output; 0 where it is `absent` or has weight 0."""
    inverse = 1.0 / tl.where(weight == 0.0, 1.0, weight)
    for n in tl.static_range(len(CHUNKS)):
        column = CHUNKS[n][0] + tl.arange(0, CHUNKS[n][1])
        result = tl.where(absent, 0.0, sums[n] * inverse).to(out.dtype.element_ty)
        if CHUNKS[n][2] is not None:
            tl.store(out + column, result, mask=column < CHUNKS[n][2])
        else:
            tl.store(out + column, result)


@triton.jit
def log_sums_of(lse, present):
    """Base-2 log-sum-exps; infinity for a row that is not there or sees no key, so that it gives no weight."""
    found = tl.load(lse, mask=present, other=float("-inf"))
    return tl.where(found == float("-inf"), float("inf"), found * 1.4426950408889634)


@triton.jit
def add_mass(mass, position, sums, there):
    """Adds to what the program itself has added before, maybe by other threads."""
    tl.debug_barrier()
    at = mass + position
    tl.store(at, tl.load(at, mask=there, other=0.0) + sums, mask=there)

"""Tiles of rows, and their products.

A tile is a tuple with one tensor [rows, width] for each chunk of columns. CHUNKS has of each chunk its first column and
its width, a power of two; and, where columns of it lie beyond the head dimension, the head dimension, else None.
"""

import triton
import triton.language as tl
from kernels.exact import anew, store_piece


@triton.jit
def strides_of(batch, head, row, VECTOR: tl.constexpr, attempt):
    """Strides in elements, of those in vectors."""
    return anew(batch, attempt) * VECTOR, anew(head, attempt) * VECTOR, anew(row, attempt) * VECTOR


@triton.jit
def rows_of(tensor, strides, batch, head, first_row):
    """Where row `first_row` of a head begins; `strides` from one batch, head and row to the next."""
    return tensor + batch * strides[0] + head * strides[1] + strides[2].to(tl.int64) * first_row


@triton.jit
def load_chunk(at, inside, column, END: tl.constexpr, BOUNDED: tl.constexpr):
    """What is at `at`; zeros in columns from END on, and in rows that are not `inside` (if BOUNDED)."""
    if BOUNDED and END is not None:
        chunk = tl.load(at, mask=inside & (column < END), other=0.0)
    elif BOUNDED:
        chunk = tl.load(at, mask=inside, other=0.0)
    elif END is not None:
        chunk = tl.load(at, mask=column < END, other=0.0)
    else:
        chunk = tl.load(at)
    return chunk


@triton.jit
def load_tile(
    source,
    offset,
    batch,
    head,
    first,
    begin,
    end,
    row_stride,
    ROWS: tl.constexpr,
    CHUNKS: tl.constexpr,
    BOUNDED: tl.constexpr,
    TMA: tl.constexpr,
):
    """Rows from `first` on; those outside begin .. end - 1 (if BOUNDED) are zeros, with TMA any rows or zeros.

    `source`: of each chunk a descriptor (if TMA) or a pointer; row 0 of the head is `offset` elements behind it.
    """
    row = tl.arange(0, ROWS)[:, None]
    inside = (row >= begin - first) & (row < end - first)
    tile = ()
    for n in tl.static_range(len(CHUNKS)):
        if TMA:
            chunk = source[n].load([batch, head, first, CHUNKS[n][0]]).reshape(ROWS, CHUNKS[n][1])
        else:
            column = CHUNKS[n][0] + tl.arange(0, CHUNKS[n][1])[None, :]
            at = source[n] + offset + row_stride.to(tl.int64) * first + (row * row_stride + column)
            chunk = load_chunk(at, inside, column, CHUNKS[n][2], BOUNDED)
        tile = tile + (chunk,)
    return tile


@triton.jit
def load_rows(rows, offsets, present, CHUNKS: tl.constexpr, OPERAND: tl.constexpr):
    """The rows `offsets` [rows, 1] behind `rows`; zeros where not `present`."""
    tile = ()
    for n in tl.static_range(len(CHUNKS)):
        column = CHUNKS[n][0] + tl.arange(0, CHUNKS[n][1])[None, :]
        chunk = load_chunk(rows + (offsets + column), present[:, None], column, CHUNKS[n][2], True)
        tile = tile + (chunk.to(OPERAND),)
    return tile


@triton.jit
def zeros(ROWS: tl.constexpr, CHUNKS: tl.constexpr, PIECE: tl.constexpr, EXACT: tl.constexpr):
    """A tile of zeros, to add to: all columns, or (if EXACT) a piece of them."""
    tile = ()
    if EXACT:
        tile = (tl.zeros([ROWS, PIECE], tl.float32),)
    else:
        for n in tl.static_range(len(CHUNKS)):
            tile = tile + (tl.zeros([ROWS, CHUNKS[n][1]], tl.float32),)
    return tile


@triton.jit
def row_pointers(source, offset, first, row_stride, ROWS: tl.constexpr):
    """Pointers [ROWS, 1] to the rows from `first` on."""
    return source + offset + row_stride.to(tl.int64) * first + tl.arange(0, ROWS)[:, None] * row_stride


@triton.jit
def store_rows(
    tile,
    factor,
    rows,
    offsets,
    present,
    attempt,
    CHUNKS: tl.constexpr,
    PIECE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ADD: tl.constexpr,
    EXACT: tl.constexpr,
):
    """Writes factor * tile to those rows `offsets` [rows, 1] behind `rows` that are `present`; with ADD, adds it."""
    if EXACT:
        store_piece(tile[0], factor, rows, offsets, present, attempt, PIECE, HEAD_DIM, ADD)
    else:
        for n in tl.static_range(len(CHUNKS)):
            column = CHUNKS[n][0] + tl.arange(0, CHUNKS[n][1])[None, :]
            at = rows + (offsets + column)
            mask = present[:, None]
            if CHUNKS[n][2] is not None:
                mask = mask & (column < CHUNKS[n][2])
            result = tile[n] * factor
            if ADD:
                result += tl.load(at, mask=mask, other=0.0)
            tl.store(at, result.to(rows.dtype.element_ty), mask=mask)


@triton.jit
def join_rows(parts, count, step, to, rows, present, CHUNKS: tl.constexpr, HEAD_DIM: tl.constexpr, ADD: tl.constexpr):
    """Writes the sum of `count` tiles, `step` numbers apart, to those rows behind `to` that are `present`; with ADD,
    adds it."""
    for n in tl.static_range(len(CHUNKS)):
        column = CHUNKS[n][0] + tl.arange(0, CHUNKS[n][1])[None, :]
        mask = present[:, None]
        if CHUNKS[n][2] is not None:
            mask = mask & (column < CHUNKS[n][2])
        offsets = rows[:, None] * HEAD_DIM + column
        total = tl.zeros([rows.shape[0], CHUNKS[n][1]], tl.float32)
        part = parts + offsets
        for _ in tl.range(0, count):
            total += tl.load(part, mask=mask, other=0.0)
            part += step
        if ADD:
            total += tl.load(to + offsets, mask=mask, other=0.0)
        tl.store(to + offsets, total.to(to.dtype.element_ty), mask=mask)


@triton.jit
def product(left, right, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """Of each row of `left` and each of `right` the product."""
    found = tl.dot(left[0].to(OPERAND), tl.trans(right[0].to(OPERAND)), input_precision=PRECISION)
    for n in tl.static_range(1, len(left)):
        found = tl.dot(left[n].to(OPERAND), tl.trans(right[n].to(OPERAND)), found, input_precision=PRECISION)
    return found


@triton.jit
def add_rows(weights, tile, sums, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """`sums` and of each row of `weights` the weighted sum of the tile's rows."""
    added = ()
    for n in tl.static_range(len(sums)):
        chunk = tl.dot(weights.to(OPERAND), tile[n].to(OPERAND), sums[n], input_precision=PRECISION)
        added = added + (chunk,)
    return added

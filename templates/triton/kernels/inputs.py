"""What a call's inputs say of pairs and of tiles: look-ups in the tensors of `backends.base.Lookup`.

Numbers of pairs, and of tiles, are tensors that broadcast together. Invariant: whatever a number is, no address lies
outside the tensor.
"""

import triton
import triton.language as tl


@triton.jit
def own(tensor, batches, heads, rows, columns, batch, head, HEADS: tl.constexpr):
    """Where the rows x columns elements of a sequence and of a query head, or of several, begin."""
    place = batch * (batches > 1).to(tl.int32) * heads + head * heads // HEADS
    return tensor + place.to(tl.int64) * rows * columns


@triton.jit
def counted(counts, number, columns):
    """Whether a number is picked; `counts`: how many are picked before each of the `columns` places."""
    inside = (number >= 0) & (number < columns - 1)
    at = counts + tl.where(inside, number, 0)
    return tl.load(at + 1, mask=inside, other=0) > tl.load(at, mask=inside, other=0)


@triton.jit
def picked_among(counts, low, high, columns):
    """How many of the numbers low .. high are picked."""
    start = tl.maximum(low, 0)
    stop = tl.minimum(high + 1, columns - 1)
    known = start < stop
    return tl.load(counts + stop, mask=known, other=0) - tl.load(counts + start, mask=known, other=0)


@triton.jit
def cell(cells, row, column, rows, columns):
    """Whether a cell is set."""
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    place = tl.where(inside, row, 0).to(tl.int64) * columns + tl.where(inside, column, 0)
    return tl.load(cells + place, mask=inside, other=0) != 0


@triton.jit
def cells_set(cells, row, last_row, column, last_column, rows, columns, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """How many cells of the rows row .. last_row and of the columns column .. last_column are set.

    These are at most HIGH rows and WIDE columns.
    """
    found = (row + column) * 0
    for n in tl.range(0, HIGH * WIDE):
        of_row, of_column = row + n // WIDE, column + n % WIDE
        within = (of_row <= last_row) & (of_column <= last_column)
        found += (cell(cells, of_row, of_column, rows, columns) & within).to(tl.int32)
    return found


@triton.jit
def same_label(queries, keys, row, column, n_queries, n_keys):
    """Whether both labels are equal and not negative."""
    of_row = tl.load(queries + row, mask=(row >= 0) & (row < n_queries), other=-1)
    of_column = tl.load(keys + column, mask=(column >= 0) & (column < n_keys), other=-1)
    return (of_row == of_column) & (of_row >= 0)


@triton.jit
def row_lists(ordered, row, number, rows, columns):
    """Whether a number is in a row's list of `columns` entries in ascending order: by halves."""
    inside = (row >= 0) & (row < rows) & (number >= 0)
    start = tl.where(inside, row, 0).to(tl.int64) * columns
    low = (row + number) * 0
    high = low + columns
    left = columns
    while left > 0:
        middle = (low + high) >> 1
        before = tl.load(ordered + start + middle, mask=inside & (middle < high), other=0) < number
        low = tl.where((middle < high) & before, middle + 1, low)
        high = tl.where((middle < high) & (before == 0), middle, high)
        left = left >> 1
    inside = inside & (low < columns)
    return inside & (tl.load(ordered + start + low, mask=inside, other=-1) == number)


@triton.jit
def drawn(draws, block, WIDTH: tl.constexpr):
    """Whether a block is among the WIDTH draws at `draws`."""
    found = tl.load(draws) == block
    for n in tl.range(1, WIDTH):
        found = found | (tl.load(draws + n) == block)
    return found


@triton.jit
def add_visits(visits, room, found, wanted, tile, LAST: tl.constexpr):
    """Puts those tiles that are `wanted` in order behind the `found` ones, from the front or (if LAST) from the back.

    Returns how many there are then.
    """
    count = wanted.to(tl.int32)
    place = found + tl.cumsum(count, 0) - count
    at = room - 1 - place if LAST else place
    tl.store(visits + at, tile, mask=wanted & (place < room))
    return found + tl.sum(count, 0)

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
def is_picked(picked, number, columns):
    """Whether a number is picked; `picked` has a bit for each of the numbers 0 .. columns - 1."""
    inside = (number >= 0) & (number < columns)
    word = tl.load(picked + (tl.where(inside, number, 0) >> 5), mask=inside, other=0)
    return ((word >> (number & 31)) & 1) != 0


@triton.jit
def picked_run(picked, number, columns, column, WIDTH: tl.constexpr, DOWN: tl.constexpr):
    """Which of the numbers from `number` on, up or (if DOWN) down, are picked: of each `column`, below WIDTH, one."""
    found = bits_from(picked, number - 31 if DOWN else number, columns)
    for n in tl.static_range(1, WIDTH // 32):
        bits = bits_from(picked, number - 31 - 32 * n if DOWN else number + 32 * n, columns)
        found = tl.where(column >> 5 == n, bits, found)
    place = column & 31
    place = (31 - place if DOWN else place).to(tl.uint32)
    return ((found >> place) & 1) != 0


@triton.jit
def bits_from(picked, number, columns):
    """The bits of the 32 numbers from `number` on, the first one least."""
    words = (columns + 31) >> 5
    first = number >> 5
    shift = (number & 31).to(tl.uint32)
    low = tl.load(picked + tl.maximum(first, 0), mask=(first >= 0) & (first < words), other=0)
    high = tl.load(picked + tl.maximum(first + 1, 0), mask=(first >= -1) & (first + 1 < words), other=0)
    low = low.to(tl.uint32, bitcast=True) >> shift
    return low | ((high.to(tl.uint32, bitcast=True) << 1) << (31 - shift))


@triton.jit
def picked_among(counts, low, high, columns):
    """How many of the numbers low .. high are picked."""
    start = tl.maximum(low, 0)
    stop = tl.minimum(high + 1, columns - 1)
    known = start < stop
    return tl.load(counts + stop, mask=known, other=0) - tl.load(counts + start, mask=known, other=0)


@triton.jit
def picked_before(counts, number, columns, most):
    """How many of the numbers before `number` are picked, of `most` in all."""
    found = tl.load(counts + tl.minimum(tl.maximum(number, 0), columns - 1))
    return tl.minimum(tl.maximum(found, 0), most)


@triton.jit
def cell(cells, row, column, rows, columns):
    """Whether a cell is set."""
    # A loop of the interpreter counts in Python's integers.
    of_row = tl.where(row >= 0, row < rows, False)
    of_column = tl.where(column >= 0, column < columns, False)
    # An address of 64 bits a row, and 32 bits a column: the former a pair would fill the registers.
    at = cells + tl.where(of_row, row, 0).to(tl.int64) * columns
    return tl.load(at + tl.where(of_column, column, 0), mask=of_row & of_column, other=0) != 0


@triton.jit
def cell_bit(cells, row, column, size):
    """Whether a cell of `size` rows and columns, a bit each, is set."""
    inside = (row >= 0) & (row < size)
    at = cells + tl.where(inside, row, 0).to(tl.int64) * ((size + 31) >> 5)
    return is_picked(at, column, tl.where(inside, size, 0))


@triton.jit
def cell_run(cells, row, first, size, column, WIDTH: tl.constexpr):
    """The same of the columns from `first` on, the same for all rows: `column` and WIDTH as of `picked_run`."""
    inside = (row >= 0) & (row < size)
    at = cells + tl.where(inside, row, 0).to(tl.int64) * ((size + 31) >> 5)
    return picked_run(at, first + row * 0, tl.where(inside, size, 0), column, WIDTH, False)


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
def less_than(entries, number, zeros, columns):
    """How many of the `columns` entries, in ascending order, are less than a number: by halves."""
    low = zeros
    high = zeros + columns
    left = columns
    while left > 0:
        middle = (low + high) >> 1
        before = tl.load(entries + middle, mask=middle < high, other=0) < number
        low = tl.where((middle < high) & before, middle + 1, low)
        high = tl.where((middle < high) & (before == 0), middle, high)
        left = left >> 1
    return low


@triton.jit
def is_listed(ordered, row, number, rows, columns):
    """Whether a number is in a row's list of `columns` entries in ascending order."""
    inside = (row >= 0) & (row < rows) & (number >= 0)
    entries = ordered + tl.where(inside, row, 0).to(tl.int64) * columns
    place = less_than(entries, number, (row + number) * 0, columns)
    inside = inside & (place < columns)
    return inside & (tl.load(entries + place, mask=inside, other=-1) == number)


@triton.jit
def row_lists(ordered, row, number, least, most, rows, columns):
    """The same of numbers least .. most: of each list what lies between them is looked at once for all numbers."""
    inside = (row >= 0) & (row < rows)
    entries = ordered + tl.where(inside, row, 0).to(tl.int64) * columns
    place = less_than(entries, least, row * 0, columns)
    past = tl.where(inside, less_than(entries, most + 1, row * 0, columns), 0)
    found = (row + number) * 0 > 0
    for n in tl.range(0, tl.max(past - place)):
        entry = tl.load(entries + place + n, mask=place + n < past, other=-1)
        found = found | (entry == number)
    return found


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

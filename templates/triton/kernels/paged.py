"""Keys and values in a server's pages, and the requests of a call over them.

`starts` and `lengths` are of the requests: the first row of each among the `tokens` of the call, and one past the last;
how many tokens it has, of which these rows are the last. A row of the table has room for `longest`.
"""

import triton
import triton.language as tl


@triton.jit
def request_of(starts, lengths, r, there, tokens, longest):
    """Of request r: its first row, the position of that, and one past its last position; nothing unless `there`.

    Whatever the numbers are, rows are the call's and positions those of the table's row.
    """
    begin = tl.minimum(tl.maximum(tl.load(starts + r, mask=there, other=0), 0), tokens)
    end = tl.minimum(tl.maximum(tl.load(starts + r + 1, mask=there, other=0), begin), tokens)
    nk = tl.minimum(tl.load(lengths + r, mask=there, other=0), longest)
    return begin, tl.maximum(nk - (end - begin), 0), tl.maximum(nk, 0)


@triton.jit
def query_tile_of(starts, lengths, requests, tokens, longest, few, place, TILE: tl.constexpr, REQUESTS: tl.constexpr):
    """Of the query tiles of requests with more than `few` rows the one that comes at `place`: its request, and its
    number. Those of a request come from its last on. The request is -1 where there is none."""
    request = tl.full([], -1, tl.int32)
    query_tile = tl.zeros([], tl.int32)
    before = tl.zeros([], tl.int32)
    for first in tl.range(0, requests, REQUESTS):
        r = first + tl.arange(0, REQUESTS)
        _, q0, nk = request_of(starts, lengths, r, r < requests, tokens, longest)
        tiles = tl.where(nk - q0 > few, (nk - 1) // TILE - q0 // TILE + 1, 0)
        past = before + tl.cumsum(tiles, 0)
        here = (place >= past - tiles) & (place < past)
        request = tl.maximum(request, tl.max(tl.where(here, r, -1), 0))
        query_tile += tl.sum(tl.where(here, q0 // TILE + past - 1 - place, 0), 0)
        before += tl.sum(tiles, 0)
    return request, query_tile


@triton.jit
def request_of_row(starts, requests, row, REQUESTS: tl.constexpr):
    """The request that has a row of the call: the last that begins at it or before."""
    found = tl.full([], -1, tl.int32)
    for first in tl.range(0, requests, REQUESTS):
        r = first + tl.arange(0, REQUESTS)
        begins = tl.load(starts + r, mask=r < requests, other=0) <= row
        found += tl.sum((begins & (r < requests)).to(tl.int32), 0)
    return tl.maximum(found, 0)


@triton.jit
def page_of(page_row, key, known, pages, PAGE: tl.constexpr, BOUNDED: tl.constexpr):
    """The page and the row in it of each key; of keys not `known` (if BOUNDED) any page, and nothing is looked up.

    page_row: the request's row of the table; a number there that is no page's counts as the nearest that is.
    """
    page = tl.load(page_row + key // PAGE, mask=known, other=0) if BOUNDED else tl.load(page_row + key // PAGE)
    return tl.minimum(tl.maximum(page, 0), pages - 1), key % PAGE


@triton.jit
def rows_of_pages(memory, page, row, strides):
    """Pointers to rows of pages; `memory`: to row 0 of page 0.

    The rows of a page lie less than 2**31 elements apart.
    """
    return memory + (page.to(tl.int64) * strides[0] + row * strides[2])

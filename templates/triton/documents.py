"""The tiles of packed documents: see `document_tiles` in sparsec/backends/triton/packed.py."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["documents", "places", "tile"])
def find_document_tiles(
    cu_seqlens, found, documents, places, tile, RESTART: tl.constexpr, ROWS: tl.constexpr, WALK: tl.constexpr
):
    """One program ROWS rows of the table, for which it goes over all documents, WALK at a time."""
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    document = tl.zeros([ROWS], tl.int32)
    before = tl.zeros([ROWS], tl.int32)
    listed = 0
    for first in tl.range(0, documents, WALK):
        each = first + tl.arange(0, WALK)
        begin = tl.load(cu_seqlens + each, mask=each < documents, other=0)
        end = tl.load(cu_seqlens + each + 1, mask=each < documents, other=0)
        count = (end - begin + tile - 1) // tile if RESTART else (end + tile - 1) // tile - begin // tile
        count = tl.where(end > begin, count, 0)
        stop = (listed + tl.cumsum(count, 0))[None, :]
        passed = (each < documents)[None, :] & (stop <= place[:, None])
        document += tl.sum(passed.to(tl.int32), 1)
        before = tl.maximum(before, tl.max(tl.where(passed, stop, 0), 1))
        listed += tl.sum(count, 0)
    there = (place < places) & (document < documents)
    begin = tl.load(cu_seqlens + document, mask=there, other=0)
    end = tl.load(cu_seqlens + document + 1, mask=there, other=0)
    number = place - before if RESTART else begin // tile + place - before
    at = found + place * 3
    tl.store(at, tl.where(there, number, 0), mask=place < places)
    tl.store(at + 1, begin, mask=place < places)
    tl.store(at + 2, end, mask=place < places)

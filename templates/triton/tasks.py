"""Key tiles with many query tiles as several tasks: see `shared_tasks` in sparsec/backends/triton/splits.py."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["tiles", "most", "shortest"])
def find_tasks(steps, tasks, joined, tiles, most, shortest, WALK: tl.constexpr, STRETCHES: tl.constexpr):
    """One program goes over all tiles, WALK at a time. First come the tasks that are a tile's second part or a later.

    A share is what `most` tasks have of all steps; a tile is cut into parts of about equally many steps, at most a
    share each. A stretch belongs to the part in which it begins.
    """
    lane = tl.arange(0, WALK)
    stretch = tl.arange(0, STRETCHES)[None, :]
    total = tl.zeros([WALK], tl.int64)
    for first in tl.range(0, tiles, WALK):
        at = (first + lane).to(tl.int64)[:, None] * STRETCHES + stretch
        total += tl.sum(tl.load(steps + at, mask=(first + lane < tiles)[:, None], other=0), 1).to(tl.int64)
    share = tl.maximum((tl.sum(total, 0) + most - 1) // most, shortest).to(tl.int32)
    others = 0
    parts = 0
    for first in tl.range(0, tiles, WALK):
        tile = first + lane
        there = tile < tiles
        at = tile.to(tl.int64)[:, None] * STRETCHES + stretch
        own = tl.load(steps + at, mask=there[:, None], other=0)
        last = tl.load(steps + at - 1, mask=there[:, None] & (stretch > 0), other=0)
        before = tl.cumsum(own, 1) - own
        whole = tl.sum(own, 1)[:, None]
        shares = tl.minimum((whole + share - 1) // share, STRETCHES)
        of = tl.maximum(whole, 1)
        begins = (before < whole) & (before * shares // of != (before - last) * shares // of)
        number = tl.cumsum(begins.to(tl.int32), 1)
        more = tl.max(number, 1)
        place = others + tl.cumsum(more, 0) - more
        count = tl.where(more > 0, more + 1, 0)
        part = parts + tl.cumsum(count, 0) - count
        tl.store(joined + tile.to(tl.int64) * 2, part, mask=there)
        tl.store(joined + tile.to(tl.int64) * 2 + 1, count, mask=there)
        for n in tl.range(0, tl.max(more, 0) + 1):
            row = tl.where(n == 0, most + tile, place + n - 1).to(tl.int64)
            mask = there & (n <= more)
            tl.store(tasks + row * 4, tile, mask=mask)
            tl.store(tasks + row * 4 + 1, tl.sum((number < n).to(tl.int32), 1), mask=mask)
            tl.store(tasks + row * 4 + 2, tl.sum((number <= n).to(tl.int32), 1), mask=mask)
            tl.store(tasks + row * 4 + 3, tl.where(more > 0, part + n, -1), mask=mask)
        others += tl.sum(more, 0)
        parts += tl.sum(count, 0)
    for first in tl.range(others, most, WALK):
        tl.store(tasks + (first + lane).to(tl.int64) * 4, lane * 0 - 1, mask=first + lane < most)

"""A tile program: which key tiles one query tile visits, as straight-line closed forms; every kernel prints one.

A query tile holds the rows i0..i1 (absolute positions, both inclusive) that share i // query_tile; a key tile t holds
the keys t*key_tile .. (t+1)*key_tile - 1. Inputs of every expression: i0, i1, nk (number of keys), head constants c0,
c1, ..., then the `lets` in order; `live` reads i and j besides; a segment's `tile` reads n (0 <= n < count), its `when`
reads n and tile.

A transposed program says the same of a key tile's query tiles (`plan.kernel.BackwardPlan` has its inputs): `tile` is
then a query tile's number, no segment is listed, and a full tile holds query_tile queries that all see every key.

Where a pattern asks inputs, `live` and `when` do too (`expr.nodes.Picked`), and its set is the pairs for which `live`
holds and, beside them, those of its `gathers`, whose `reach` has all of them.

Invariant: whatever the inputs say, over all segments each visited tile comes exactly once; a tile of a full segment
holds key_tile live keys for every row; every live pair of the query tile lies in a visited tile; `tile` is in [0,
ceil(nk / key_tile)); no pair of a gather is live, or comes in an earlier gather.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparsec.ir.bands.band import InputTest
from sparsec.ir.expr.fold import names_in
from sparsec.ir.expr.nodes import Bool, Expr, Let
from sparsec.ir.expr.scalars import Interval


@dataclass(frozen=True, slots=True)
class Segment:
    """Visits `count` candidate tiles: for n in range(count): tile(n), where `when` holds (TRUE: always).

    Full segments that are neither listed nor ask an input always have `when` TRUE. `count` is never negative.
    `contiguous`: tile(n) is start + n. `listed`: the tiles come from run-time list `listed` (see ListSpec), then
    `tile` is the variable `entry`, the n-th list entry of this query tile, -1 for padding, which `when` excludes.
    `span`: where there is one, the candidates are the tiles of a residue in it, each once: a candidate tile(n) has
    0 <= n < count iff it lies in the span.
    """

    count: Expr
    tile: Expr
    when: Bool
    contiguous: bool
    listed: int | None
    origin: str
    span: Interval | None = None


@dataclass(frozen=True, slots=True)
class Ranges:
    """The ranges of tiles that a program puts in order before it loops over them; their ends are numbers or names.

    `visited`: of each dense band, the tiles in which a pair may be live, as the band has them. `full`: the tiles in
    which all pairs surely are, in order and disjoint. The contiguous segments without a test run through the union of
    both, and no further.
    """

    visited: tuple[Interval, ...] = ()
    full: tuple[Interval, ...] = ()


@dataclass(frozen=True, slots=True)
class ListSpec:
    """A random term's table of draws, built at call time: int32 [len(lanes), query blocks, width], block indices or -1.

    Row `constants[lane_row]` belongs to a head; `block` is the pattern's block size, and query_tile and key_tile divide
    it. Draws of query block qb are mix(seed, lane, qb, t) % (qb + 1), duplicates replaced by -1; a negative qb has
    none. `lanes` holds the pairs (seed, lane) in row order.
    """

    width: int
    block: int
    lanes: tuple[tuple[int, int], ...]
    lane_row: str


@dataclass(frozen=True, slots=True)
class Gather:
    """The pairs of query i with the keys of its own list (`Asks.ROW`) in input test `test` for which `live` holds.

    An entry e of a list stands for the keys e * width .. (e + 1) * width - 1 of the test. Of `Asks.KEPT` the list is
    the cache's, one for all queries. Of `Asks.COLUMN` too one serves all, in ascending order, and `reach` tells where a
    tile's pairs lie: among which keys, or, of a transposed program, in which query tiles. There a tile's rows are some
    keys of the list, from j0 to j1, that need share no key tile.
    """

    test: int
    live: Bool
    origin: str
    reach: Interval | None = None


@dataclass(frozen=True, slots=True)
class TileProgram:
    """One head class's kernel map. `live` is the predicate of the whole set on (i, j), for 0 <= j < nk.

    `ranges` explain the lets that the contiguous segments read, where these segments test nothing.
    """

    query_tile: int
    key_tile: int
    lets: tuple[Let, ...]
    full: tuple[Segment, ...]
    masked: tuple[Segment, ...]
    live: Bool
    lists: tuple[ListSpec, ...]
    ranges: Ranges = Ranges()
    inputs: tuple[InputTest, ...] = ()
    """What the conditions ask inputs, by the ordinals of their `Picked`; none is negated."""
    gathers: tuple[Gather, ...] = ()


def names_read(segments: Iterable[Segment], gathers: Iterable[Gather] = ()) -> frozenset[str]:
    """The names that these read before they test a pair."""
    parts = [part for each in segments for part in (each.count, each.tile, each.when)]
    ends = [end for each in gathers if each.reach is not None for end in (each.reach.start, each.reach.stop)]
    return frozenset[str]().union(*map(names_in, (*parts, *ends)))


def lets_for(lets: Sequence[Let], names: Iterable[str]) -> tuple[Let, ...]:
    """The lets of these names, and those that they read."""
    read, kept = set(names), list[Let]()
    for let in reversed(lets):
        if let.name in read:
            read |= names_in(let.value)
            kept.append(let)
    return tuple(reversed(kept))

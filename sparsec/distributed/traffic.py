"""A pattern and shards of its sequence -> how many rows of keys go from which rank to which, KV group by KV group.

Invariant: a rank receives each key that some query of its own may need, of each KV group, once, from its holder; how
many they are follows from closed forms, and no key is counted one by one.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np

from sparsec.distributed.needs import Ints, Needs, Piece, count_below, keys_within, kinds, needed
from sparsec.distributed.shards import Shards
from sparsec.ir.bands.band import Band
from sparsec.pipeline import Lowered
from sparsec.sema.model import Documents


@dataclass(frozen=True)
class Traffic:
    """`kinds[g]`: KV groups of one kind need the same keys; `bands[kind]`: what any of its heads attends by.

    documents: the first key of each, and the sequence's length; empty: the sequence is one. documents_of:
    what the pattern says of documents. first: the positions before it are padding, and the one that counts as 0.
    """

    shards: Shards
    kinds: tuple[int, ...]
    bands: tuple[tuple[Band, ...], ...]
    documents_of: Documents
    documents: tuple[int, ...] = ()
    first: int = 0

    @staticmethod
    def of(lowered: Lowered, shards: Shards) -> Traffic:
        """Raises TooManyBands."""
        bands, share = lowered.bands, lowered.pattern.heads // lowered.pattern.kv_heads
        of_groups = [
            tuple(dict.fromkeys(band for of_head in bands[first : first + share] for band in of_head))
            for first in range(0, len(bands), share)
        ]
        distinct, number = kinds(of_groups)
        return Traffic(shards, number, distinct, lowered.pattern.documents)

    def pieces(self, rank: int) -> tuple[Piece, ...]:
        """The queries of a rank, chunk by chunk and document by document, in order."""
        length, chunks = self.shards.length, self.shards.chunks[rank]
        if not self.documents:
            spans = ((max(start, self.first), stop) for start, stop in chunks)
            return tuple(Piece(span, (self.first, length), self.first) for span in spans if span[0] < span[1])
        found = []
        for start, stop in chunks:
            for number in range(bisect_right(self.documents, start) - 1, len(self.documents) - 1):
                begin, end = self.documents[number : number + 2]
                if begin >= stop:
                    break
                if max(start, begin) < min(stop, end):
                    rows = max(start, begin), min(stop, end)
                    found.append(Piece(rows, (begin, end), begin if self.documents_of is Documents.RESTART else 0))
        return tuple(found)

    def needs(self, rank: int) -> tuple[Needs, ...]:
        """What the queries of a rank need, by kind."""
        return tuple(needed(bands, self.pieces(rank)) for bands in self.bands)

    def keys(self, needs: Needs, holder: int) -> Ints:
        """The keys that a rank holds among these, ascending."""
        return np.concatenate([keys_within(needs, chunk) for chunk in self.shards.chunks[holder]])

    @cached_property
    def rows(self) -> Ints:
        """int64 [ranks that hold, ranks that need, kinds]: keys of one group; a rank's own count too."""
        ranks = self.shards.ranks
        edges = np.array([chunk for of_rank in self.shards.chunks for chunk in of_rank], np.int64)
        holder = np.repeat(np.arange(ranks), [len(of_rank) for of_rank in self.shards.chunks])
        found = np.zeros((ranks, ranks, len(self.bands)), np.int64)
        for rank in range(ranks):
            for kind, needs in enumerate(self.needs(rank)):
                held = count_below(needs, edges[:, 1]) - count_below(needs, edges[:, 0])
                np.add.at(found[:, rank, kind], holder, held)
        return found

    @cached_property
    def graph(self) -> nx.DiGraph[int]:
        """An edge from each rank to each that needs keys of it; `rows`: how many, by KV group."""
        graph: nx.DiGraph[int] = nx.DiGraph()
        graph.add_nodes_from(range(self.shards.ranks))
        by_group = self.rows[:, :, list(self.kinds)]
        holders, others = np.nonzero(by_group.sum(axis=2))
        for holder, other in zip(holders.tolist(), others.tolist(), strict=True):
            if holder != other:
                graph.add_edge(holder, other, rows=tuple(by_group[holder, other].tolist()))
        return graph

"""Keys of a prompt that ranks hold in shares -> those of them that the ranks' caches keep, by one all-to-all.

Invariant: the keys that one process would have stored after the prompt are stored, each on the rank that holds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from sparsec.distributed.exchange import KEYS, exchange_of, flat_rows, sent_to_all
from sparsec.distributed.holders import holders_of
from sparsec.distributed.needs import Bools, Ints
from sparsec.distributed.rank_cache import RankCache
from sparsec.distributed.traffic import Traffic
from sparsec.ir.bands.liveness import Region
from sparsec.ir.expr.evaluate import evaluate
from sparsec.plan.kv.layout import CacheLayout, place_names, slot_map


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a prompt's keys go; `count`: its tokens, the last of the ranks' positions."""

    cache: RankCache
    traffic: Traffic
    count: int

    def shares(self, rank: int) -> Ints:
        """The keys of the prompt that a rank has, ascending, counted from its first."""
        spans = [np.arange(start, stop) for start, stop in self.traffic.shards.chunks[rank]]
        keys = np.concatenate(spans) - (self.traffic.shards.length - self.count)
        return keys[keys >= 0]

    def kept(self, keys: Ints) -> list[Bools]:
        """Of each group, whether one process would have these keys after the prompt."""
        found: dict[tuple[Region, ...], Bools] = {}
        for group, of in enumerate(self.cache.of_all.groups):
            if of not in found:
                found[of] = self._slots(self.cache.of_all, group, keys) >= 0
        return [found[of] for of in self.cache.of_all.groups]

    def slots(self, group: int, keys: Ints) -> Ints:
        """Where the cache of this rank has those that it holds."""
        found = self._slots(self.cache.layout, group, keys)
        assert bool((found >= 0).all()), "a rank's layout has what the whole layout has"
        return found

    def _slots(self, layout: CacheLayout, group: int, keys: Ints) -> Ints:
        cache = self.cache
        names = place_names(layout.places(cache.max_len, cache.rollback)[group])
        found = evaluate(slot_map(layout.groups[group]).kept, {**names, "j": keys, "stop": self.count})
        return np.broadcast_to(np.asarray(found, np.int64), keys.shape)


def store_shares(cache: RankCache, k: Tensor, v: Tensor, rows: list[int], traffic: Traffic, count: int) -> None:
    """Stores the last `count` tokens of these sequences, which are empty: k and v [B, groups, tokens, D] are this
    rank's tokens of theirs. Lengths stay as they are."""
    ranks, rank = traffic.shards.ranks, dist.get_rank(cache.group)
    to, tokens = Stored(cache, traffic, count), k.shape[2]
    mine = to.shares(rank)
    local = np.arange(tokens - len(mine), tokens)
    leaving = [holders_of(mine, cache.run, ranks) == other for other in range(ranks)]
    sent = [local[kept & own] + g * tokens for own in leaving for g, kept in enumerate(to.kept(mine))]
    slots: list[Ints] = []
    sizes: list[int] = []
    for other in range(ranks):
        theirs = to.shares(other)
        theirs = theirs[holders_of(theirs, cache.run, ranks) == rank]
        slots += [to.slots(g, theirs[kept]) for g, kept in enumerate(to.kept(theirs))]
        sizes.append(sum(map(len, slots)) - sum(sizes))
    groups = len(cache.of_all.groups)
    leave = [sum(map(len, sent[other * groups : (other + 1) * groups])) for other in range(ranks)]
    places, where = (torch.from_numpy(np.concatenate(each)).to(k.device) for each in (sent, slots))
    work, came = sent_to_all([flat_rows(k), flat_rows(v)], places, leave, sizes, cache.group, KEYS)
    with exchange_of(KEYS, cache.group):
        work.wait()
    of_rows = torch.tensor(rows, device=k.device)[:, None]
    for arena, part in zip((cache.keys, cache.values), came, strict=True):
        arena[of_rows, where] = part.reshape(len(where), len(rows), arena.shape[2]).transpose(0, 1)

"""Attention over a sequence that several ranks hold: each receives only the keys that its queries may need.

From the closed form of a pattern each rank computes which keys of which KV group every other rank needs (`needs`),
deals positions out so that the work is even (`shards`, `work`), and makes a `Plan` (`planning`, `traffic`). `attention`
runs it: one all-to-all of the rows that travel (`exchange`), then the pattern's own kernels. `heads` deals out heads
instead, or also. Of a KV cache each rank has the keys that `holders` gives it (`rank_cache`); those of a prompt
go there by `prompt`, and what ranks find in their keys is joined by `merging`. `report` prices it all.

Importing this package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsec.distributed.exchange import ExchangeError
    from sparsec.distributed.heads import HeadPlan
    from sparsec.distributed.planning import Plan, plan
    from sparsec.distributed.rank_cache import RankCache

__all__ = ["ExchangeError", "HeadPlan", "Plan", "RankCache", "plan"]

_LAZY = {
    "ExchangeError": "exchange",
    "HeadPlan": "heads",
    "Plan": "planning",
    "RankCache": "rank_cache",
    "plan": "planning",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'sparsec.distributed' has no attribute {name!r}")
    return getattr(import_module(f"sparsec.distributed.{_LAZY[name]}"), name)

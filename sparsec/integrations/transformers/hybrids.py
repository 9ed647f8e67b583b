"""The config of a model some of whose layers do not attend -> which these are, and their own part of a cache.

Invariant: what a layer without attention holds is transformers' own, and no pattern reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import cache_utils


def state_layers(config: Any) -> Mapping[int, Any]:
    """New, empty layers of a cache for the layers that keep a state in place of keys and values (convolutions, linear
    attention, Mamba), by layer; empty for a model without, and for transformers that know no such layers."""
    kind = getattr(cache_utils, "LinearAttentionLayer", None)
    if kind is None:
        return {}
    try:
        layers = cache_utils.DynamicCache(config=config).layers
    except Exception:  # a config that transformers makes no such cache of
        return {}
    return {place: layer for place, layer in enumerate(layers) if type(layer) is kind}

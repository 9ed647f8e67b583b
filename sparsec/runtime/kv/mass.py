"""What `return_mass` asks of a call with a cache -> the tensors that the mass of keys is added to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparsec.backends.base import KeyMass
from sparsec.diagnostics.arguments import integer
from sparsec.runtime.kv.cache import KVCache
from sparsec.runtime.kv.live import RELEASED, without_released

Asked = bool | Sequence[int]
"""Whether the mass of keys is asked for, or of which KV groups' heads."""


def room_for_mass(asked: Asked, cache: KVCache, heads: int, kv_heads: int, new: int, counts: Tensor | None) -> KeyMass:
    """Zeros for each key of the longest sequence after a call of `new` tokens, `counts` of them its own."""
    make: Callable[..., KeyMass] = _room
    if torch.compiler.is_compiling():  # as a decorator it would import torch's compiler, which takes a second
        make = torch.compiler.disable(_room, reason="lengths are read on the host")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return make(asked, cache, heads, kv_heads, new, counts)


def _room(asked: Asked, cache: KVCache, heads: int, kv_heads: int, new: int, counts: Tensor | None) -> KeyMass:
    more = [new] * cache.batch_size if counts is None or not counts.is_cpu else counts.tolist()
    more = without_released(more, cache.state[RELEASED].tolist(), asked=False)
    keys = max(have + own for have, own in zip(cache.lengths, more, strict=True))
    sums = torch.zeros((cache.batch_size, heads, max(keys, 0)), device=cache.keys.device)
    if isinstance(asked, bool):
        return KeyMass(sums)
    groups = torch.zeros(kv_heads, dtype=torch.bool)
    groups[[integer("a KV group of return_mass", group, 0, kv_heads - 1) for group in asked]] = True
    return KeyMass(sums, groups)

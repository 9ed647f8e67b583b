"""The custom operator `sparsec::attend_cached`: attention over a KV cache, which it then extends.

Invariant: an error is raised before anything is written; on a device, nothing of the call waits for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsec.diagnostics.model import CallError
from sparsec.runtime.cached_kernel import Cached, check_room
from sparsec.runtime.draws import draw_tables
from sparsec.runtime.kernel import LoadedKernel, registered
from sparsec.runtime.tangents import library, refuse_tangents

torch.library.define(
    "sparsec::attend_cached",
    "(Tensor q, Tensor k, Tensor v, Tensor? sink, Tensor(a!) keys, Tensor(b!) values, Tensor(c!) lengths,"
    " Tensor(d!) state, Tensor? counts, Tensor places, Tensor[] lists, SymInt max_len, str kernel, float? scale)"
    " -> (Tensor, Tensor)",
)


@torch.library.impl("sparsec::attend_cached", "CompositeExplicitAutograd")
def _attend_cached(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: Tensor | None,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    state: Tensor,
    counts: Tensor | None,
    places: Tensor,
    lists: list[Tensor],
    max_len: int,
    kernel: str,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """Attends as `cached_kernel.CachedKernel.attend` does, stores k and v, and counts them.

    `counts`: int32 [B] on the CPU, the tokens of each sequence among the N (None: all of them). `state`: see KVCache.
    """
    cache = Cached(keys, values, lengths, counts, places, state, max_len)
    return attend_now(registered(kernel), q, k, v, sink, cache, tuple(lists), scale)


def attend_now(
    loaded: LoadedKernel,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: Tensor | None,
    cache: Cached,
    lists: tuple[Tensor, ...],
    scale: float | None,
    *,
    checked: bool = False,
) -> tuple[Tensor, Tensor]:
    """What the operator does; `cache.counts` are on the CPU, `cache.state` is given. `checked`: see CachedKernel."""
    kernel, batch, new, counts, state = loaded.cached, q.shape[0], q.shape[2], cache.counts, cache.state
    assert state is not None
    given = [new] * batch if counts is None else counts.tolist()
    if len(given) != batch or min(given) < 0 or max(given) > new:
        raise CallError(f"expected lengths from 0 to {new} for {batch} sequences, got {given}")
    if not kernel.advances:
        check_room(state[0].tolist(), given, cache.max_len)
        if counts is not None:
            cache = replace(cache, counts=counts.to(q.device, torch.int32, non_blocking=True))
    if new > 1 and min(given) == new and not state[0].any() and not _captured(q):
        # Empty sequences, and all tokens theirs: the forward kernel serves, which is faster.
        out, lse = _first(loaded, q, k, v, sink, scale)
        kernel.store(k, v, cache)
    else:
        out, lse = kernel.attend(q, k, v, cache, scale=scale, lists=lists, sink=sink, store=True, checked=checked)
    if not kernel.advances:
        cache.lengths.add_(cache.counted(new))
        record = state.numpy()  # torch's own operations on a few numbers take longer than a small step's kernel
        record[0] += given
        np.maximum(record[0], record[1], out=record[1])
    return out, lse


def cache_tables(kernel: str, max_len: int, device: torch.device) -> tuple[Tensor, ...]:
    """The tables of draws of every query block that a cache may come to, for the kernel of that digest."""
    plan = registered(kernel).cached.plan.attend
    specs = tuple(spec for head_class in plan.classes for spec in head_class.program.lists)
    return draw_tables(specs, max_len, 0, device)


def _captured(q: Tensor) -> bool:
    """Whether the call is being recorded: a replay will meet other lengths."""
    return q.is_cuda and torch.cuda.is_current_stream_capturing()


def _first(
    loaded: LoadedKernel, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    lists = draw_tables(loaded.lists, q.shape[2], 0, q.device)
    return loaded.forward.forward(q, k, v, q_offset=0, scale=scale, lists=lists, sink=sink)


@torch.library.register_fake("sparsec::attend_cached")  # type: ignore[untyped-decorator]  # torch leaves it untyped
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: Tensor | None,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    state: Tensor,
    counts: Tensor | None,
    places: Tensor,
    lists: list[Tensor],
    max_len: int,
    kernel: str,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=wide)


attend_cached = torch.ops.sparsec.attend_cached


def refuse_derivatives(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> None:
    """Raises CallError if a gradient is asked for, SparsecError for a derivative in forward mode."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise CallError("expected no gradients with a cache, got tensors that require them; use torch.no_grad()")
    refuse_tangents((q, k, v, sink))


def _without_derivatives(keyset: torch._C.DispatchKeySet, *arguments: Any) -> Any:
    refuse_derivatives(*arguments[:4])
    with torch._C._AutoDispatchBelowAutograd():
        return attend_cached.default.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)


library.impl("attend_cached", _without_derivatives, "Autograd", with_keyset=True)

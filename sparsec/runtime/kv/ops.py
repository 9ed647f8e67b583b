"""The custom operator `sparsec::attend_cached`: attention over a KV cache, which it then extends.

Invariant: an error is raised before anything is written; on a device, nothing of the call waits for it, and a captured
call leaves the host's record as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsec.backends.base import Cached, KeyMass
from sparsec.backends.room import check_room
from sparsec.diagnostics.model import CallError
from sparsec.runtime.devices import captured, current
from sparsec.runtime.draws import draw_tables
from sparsec.runtime.inputs.prepare import CallShape, by_input
from sparsec.runtime.inputs.remembered import recalled, remember
from sparsec.runtime.kernel import LoadedKernel, lookups, registered
from sparsec.runtime.kv.lists import KeptLists
from sparsec.runtime.kv.live import RELEASED, of_live, without_released
from sparsec.runtime.tangents import library, refuse_tangents

torch.library.define(
    "sparsec::attend_cached",
    "(Tensor q, Tensor k, Tensor v, Tensor? sink, Tensor(a!) keys, Tensor(b!) values, Tensor(c!) lengths,"
    " Tensor(d!) state, Tensor? counts, Tensor places, Tensor[] lists, Tensor(e!)[] marks, Tensor(f!)[] kept,"
    " Tensor[]? inputs, SymInt max_len, str kernel, float? scale, Tensor(g!)? mass=None, Tensor? mass_groups=None,"
    " Tensor? live=None) -> (Tensor, Tensor)",
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
    marks: list[Tensor],
    kept: list[Tensor],
    inputs: list[Tensor] | None,
    max_len: int,
    kernel: str,
    scale: float | None,
    mass: Tensor | None = None,
    mass_groups: Tensor | None = None,
    live: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attends as `backends.base.CachedKernel.attend` does, stores k and v, and counts them.

    `counts`: int32 [B] on the CPU or on q's device, the tokens of each sequence among the N (None: all of them).
    `state`: see KVCache. `mass`, `mass_groups`: as of `backends.base.KeyMass`. `live`: as of `backends.base.Cached`.
    """
    loaded, lists_of_kept = registered(kernel, q.device), None
    if kept:
        of = loaded.kept.plan.kept
        assert of is not None, "kernels over lists say what these have"
        lists_of_kept = KeptLists(of, *kept)
    cache = Cached(keys, values, lengths, counts, places, state, max_len, tuple(marks), lists_of_kept, live=live)
    if mass is not None:
        cache = replace(cache, mass=KeyMass(mass, mass_groups))
    return attend_now(loaded, q, k, v, sink, cache, tuple(lists), inputs, scale)


def attend_now(
    loaded: LoadedKernel,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: Tensor | None,
    cache: Cached,
    lists: tuple[Tensor, ...],
    inputs: list[Tensor] | None,
    scale: float | None,
    *,
    checked: bool = False,
) -> tuple[Tensor, Tensor]:
    """What the operator does; `cache.state` is given. `checked`: see CachedKernel."""
    kernel = loaded.over_cache(q.dtype, cache.keys.dtype, lists=cache.kept is not None)
    batch, new, counts, state = q.shape[0], q.shape[2], cache.counts, cache.state
    assert state is not None
    if cache.mass is not None and not kernel.weighs:
        raise CallError("expected no return_mass with a cache for these kernels, which do not give it, got it")
    told = counts is None or counts.is_cpu
    given = [new] * batch if counts is None or not told else counts.tolist()
    if len(given) != batch or min(given) < 0 or max(given) > new:
        raise CallError(f"expected lengths from 0 to {new} for {batch} sequences, got {given}")
    recorded = captured(q.device)
    released = [] if cache.live is None else state[RELEASED].tolist()
    if any(released):
        given = without_released(given, released, asked=told and counts is not None)
    if not kernel.advances:
        check_room(state[0].tolist(), given, cache.max_len)
        if counts is not None:
            counts = _there(counts, new, q.device, recorded)
    if cache.live is not None and (recorded or any(released)) and (cache.counts is None or not told):
        counts = of_live(cache.live, counts, new)
    if counts is not cache.counts:
        cache = replace(cache, counts=counts)
    said, reach = inputs or [], 0
    chunks = kernel.plan.chunks
    if inputs:
        declared = loaded.launch.declared
        if cache.kept is not None:
            of_each = by_input(declared, inputs, Tensor.dim)
            cache.kept.take(tuple(of_each[n][0] for n in cache.kept.of.ordinals))
    in_place = kernel.advances and chunks.takes_lists_alone and not cache.marks
    if inputs and not in_place and (chunks.of_inputs or any(mark.shape[-1] > 1 for mark in cache.marks)):
        # As many keys as any sequence can have by then; a replay of a graph may have more than the host knows of.
        reach = cache.max_len if recorded else min(max(state.tolist()[0]) + new, max(cache.max_len, new))
        cache.reach = reach
        if cache.marks:
            remember(declared, inputs, cache.marks, cache.lengths, cache.counted(new))
            said = recalled(declared, inputs, cache.marks, reach)
    weighs = cache.mass is None or loaded.weighs
    whole = new > 1 and told and min(given) == new and weighs and not state[0].any() and not recorded
    if whole and cache.keys.dtype == q.dtype:
        # Empty sequences, and all tokens theirs: the forward kernel serves, which is faster.
        out, lse = _first(loaded, q, k, v, sink, inputs, scale, cache.mass)
        kernel.store(k, v, cache)
    else:
        found = lookups(chunks, said, CallShape(new, reach, reach - new)) if reach or in_place else ()
        out, lse = kernel.attend(
            q,
            k,
            v,
            cache,
            scale=scale,
            lists=lists,
            sink=sink,
            store=True,
            checked=checked,
            inputs=found,
            key_bias=loaded.key_bias(said) if said else None,
        )
    if not kernel.advances:
        cache.lengths.add_(new if cache.counts is None else cache.counts)
        if not recorded:  # nothing has happened yet
            _count(state.numpy(), given, told)
    return out, lse


def _there(counts: Tensor, new: int, device: torch.device, recorded: bool) -> Tensor:
    """The counts on the kernel's device, with nothing to wait for."""
    if not counts.is_cpu:
        return counts.to(torch.int32).clamp(0, new)  # the host has not seen them, and a kernel must not read past q
    if device.type != "cuda":
        return counts.to(device, torch.int32)
    if recorded:
        raise CallError(
            f"expected lengths as a tensor on {device} in a CUDA graph capture, got them on the CPU, "
            "where no replay would find them"
        )
    with current(device):
        return counts.to(torch.int32).pin_memory().to(device, non_blocking=True)


def _count(state: np.ndarray[Any, Any], given: list[int], told: bool) -> None:
    """Adds to a cache's state; by numpy, for torch's operations on a few numbers take longer than a small kernel.

    Where the host was not told the lengths, or was not before, the most that they may be stands in state[0], above
    state[1]: a sign for KVCache.
    """
    told = told and bool((state[0] <= state[1]).all())
    state[0] += given
    if told:
        np.maximum(state[0], state[1], out=state[1])


def cache_tables(kernel: str, max_len: int, device: torch.device) -> tuple[Tensor, ...]:
    """The tables of draws of every query block that a cache may come to, for the kernel of that name."""
    return draw_tables(registered(kernel, device).cached.plan.chunks.lists, max_len, 0, device)


def _first(
    loaded: LoadedKernel,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: Tensor | None,
    inputs: list[Tensor] | None,
    scale: float | None,
    mass: KeyMass | None,
) -> tuple[Tensor, Tensor]:
    lists = loaded.draws.tables(q.shape[2], 0, q.device)
    lookups = loaded.lookups(inputs or (), q.shape[2], k.shape[2], 0)
    bias = loaded.key_bias(inputs or ())
    out, lse = loaded.forward.forward(
        q, k, v, q_offset=0, scale=scale, lists=lists, sink=sink, inputs=lookups, key_bias=bias
    )
    if mass is not None:
        found = loaded.mass.mass(
            q, k, lse, q_offset=0, scale=scale, lists=lists, sink=sink, inputs=lookups, key_bias=bias
        )
        if mass.groups is not None:
            of_heads = mass.groups.to(q.device).repeat_interleave(q.shape[1] // k.shape[1])
            found = found.where(of_heads[:, None], 0)
        mass.sums[..., : found.shape[-1]] += found
    return out, lse


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
    marks: list[Tensor],
    kept: list[Tensor],
    inputs: list[Tensor] | None,
    max_len: int,
    kernel: str,
    scale: float | None,
    mass: Tensor | None = None,
    mass_groups: Tensor | None = None,
    live: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty((*q.shape[:3], v.shape[3])), q.new_empty(q.shape[:3], dtype=wide)


attend_cached = torch.ops.sparsec.attend_cached


def refuse_derivatives(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink: Tensor | None,
    inputs: Sequence[Tensor] = (),
    *,
    where: str = "with a cache",
) -> None:
    """Raises CallError if a gradient is asked for, SparsecError for a derivative in forward mode."""
    asked = q.requires_grad or k.requires_grad or v.requires_grad or any(t.requires_grad for t in inputs)
    if torch.is_grad_enabled() and asked:
        raise CallError(f"expected no gradients {where}, got tensors that require them; use torch.no_grad()")
    refuse_tangents((q, k, v, sink, *inputs))


def _without_derivatives(keyset: torch._C.DispatchKeySet, *arguments: Any) -> Any:
    q, k, v, sink, *_ = arguments
    refuse_derivatives(q, k, v, sink, arguments[12] or ())
    with torch._C._AutoDispatchBelowAutograd():
        return attend_cached.default.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)


library.impl("attend_cached", _without_derivatives, "Autograd", with_keyset=True)

"""`KVCache`: the keys and values that a compiled pattern may still need, for a batch of sequences.

Invariant: `state` on the host says what `lengths` on the device says, after every call made outside a CUDA graph, or
that it does not know it yet; all that changes is in tensors of fixed shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace

import torch
from torch import Tensor

from sparsec.backends.base import Cached, KeyMass
from sparsec.diagnostics.arguments import integer
from sparsec.diagnostics.model import CallError
from sparsec.ir.bands.bounds import POSITION_LIMIT
from sparsec.plan.kv.layout import CacheLayout
from sparsec.plan.launch import CachedLaunch
from sparsec.runtime.inputs.remembered import blank
from sparsec.runtime.kernel import registered
from sparsec.runtime.kv.arena import arena, places_table, slots_for
from sparsec.runtime.kv.growth import FIRST, grow_for, resize
from sparsec.runtime.kv.keep import keep, list_marked, make_room
from sparsec.runtime.kv.lists import (
    DROPPED_AT,
    KEPT_AT,
    NEWEST,
    KeptLists,
    check_within,
    names,
    reordered,
    settle,
    truncated,
)
from sparsec.runtime.kv.live import RELEASED
from sparsec.runtime.kv.merge import merge
from sparsec.runtime.kv.ops import cache_tables
from sparsec.runtime.kv.rows import admit, release
from sparsec.runtime.kv.stored import width_of


class KVCache:
    """Made by `SparseAttention.new_cache`; filled by calling the module with `cache=`.

    Attributes: `layout` (which keys are kept), `batch_size`, `max_len` (tokens a sequence may have), `grows` (whether
    that is doubled when a call needs it), `rollback` (how many of the latest tokens `truncate` may always take back),
    `keys` and `values` (the arenas, [batch, slots, head_dim] and [batch, slots, value_dim], of `kv_dtype`; rows of int8
    are 4 longer, see `runtime.kv.stored`), `marks` (what inputs said of keys, as of `runtime.inputs.remembered`),
    `lengths_tensor` and `live` (int32 [batch], on the cache's device: the tokens of each sequence, and 0 for a released
    one, else 1), `state` (int64 [3, batch] on the CPU: tokens of each sequence, the most that it has had since it was
    last empty, and whether it is released; after calls with `lengths` on a device the first is the most that it may be,
    above the second, until somebody asks for it), and after `keep` `kept` (the marked keys in lists, which `layout` is
    then beside; `whole` is that before) and `room` (see there).
    """

    def __init__(
        self,
        layout: CacheLayout,
        *,
        batch_size: int,
        max_len: int | None,
        head_dim: int,
        value_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        kernel: str,
        rollback: int = 0,
    ) -> None:
        self.grows, max_len = max_len is None, FIRST if max_len is None else max_len
        for name, value, least in (("batch_size", batch_size, 1), ("max_len", max_len, 1), ("rollback", rollback, 0)):
            if value < least:
                raise CallError(f"expected {name} of at least {least}, got {value}")
        slots = slots_for(layout, max_len, rollback)
        self.layout, self.batch_size, self.max_len, self.rollback = layout, batch_size, max_len, rollback
        launch = registered(kernel, device).launch
        self.kernel, self.lists = kernel, cache_tables(kernel, max_len, device)
        self.marks = blank(launch.declared, batch_size, launch.heads, max_len, device)
        widths = (width_of(dim, dtype) for dim in (head_dim, value_dim))
        self.keys, self.values = (arena((batch_size, slots, width), dtype, device) for width in widths)
        self.lengths_tensor = torch.zeros(batch_size, dtype=torch.int32, device=device)
        self.live = torch.ones_like(self.lengths_tensor)
        self.state = torch.zeros((3, batch_size), dtype=torch.int64)
        self.places = places_table(layout, max_len, rollback).to(device)
        self.whole = layout
        self.kept: KeptLists | None = None
        self.room: int | None = None
        self._seen: Cached | None = None

    def check_call(self, kernel: object, q: Tensor, k: Tensor) -> None:
        """Raises CallError unless the module with that kernel may attend with q and k over this cache."""
        batch, _, new, _ = q.shape
        if k.shape[2] != new or new < 1:
            raise CallError(f"expected as many queries as keys with a cache, got {new} and {k.shape[2]}")
        if self.kernel != kernel:  # a digest, where to compare layouts would have a graph trace their making
            raise CallError("expected a cache that this module's new_cache made, got one of another pattern or dtype")
        if self.batch_size != batch or self.keys.device != q.device:
            raise CallError(
                f"expected a cache for {batch} sequences on {q.device}, "
                f"got one for {self.batch_size} on {self.keys.device}"
            )

    def seen(self, counts: Tensor | None, mass: KeyMass | None = None) -> Cached:
        """What kernels take, for a call with `counts` tokens of each sequence (None: with all that it has), whose keys'
        mass goes to `mass`."""
        last, lengths, state = self._seen, self.lengths_tensor, self.state
        same = last is not None and last.keys is self.keys and last.values is self.values and last.marks is self.marks
        same = same and last is not None and last.max_len == self.max_len and last.kept is self.kept
        if last is None or not (same and last.lengths is lengths and last.state is state):
            held = self.places, state, self.max_len, self.marks, self.kept
            # A graph is captured for rows that may be released later.
            asked = not lengths.is_cpu or bool(state[RELEASED].any())
            last = Cached(self.keys, self.values, lengths, None, *held, live=self.live if asked else None)
            self._seen = last
        return last if counts is None and mass is None else replace(last, counts=counts, mass=mass)

    @property
    def kv_dtype(self) -> torch.dtype:
        """What keys and values are stored as."""
        return self.keys.dtype

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence. It waits for the device after a call whose `lengths` were there."""
        self._settle()
        return tuple(self.state[0].tolist())

    @property
    def length(self) -> int:
        """Tokens of the longest sequence; see `lengths`."""
        return max(self.lengths)

    @property
    def released(self) -> tuple[int, ...]:
        """The sequences that are released, in order."""
        return tuple(self.state[RELEASED].nonzero().flatten().tolist())

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values that the cache has room for, and of what says which these are."""
        return self.keys.nbytes + self.values.nbytes + (0 if self.kept is None else self.kept.nbytes)

    @property
    def keeps(self) -> bool:
        """Whether there are kernels for `keep`."""
        return registered(self.kernel, self.keys.device).keeps

    def keep(self, name: str, marks: Tensor, *, room: int | None = None) -> None:
        """Takes marks of an input of kind tokens away, and drops the keys that nothing needs any more.

        marks: bool [batch, x, length], x 1, the KV heads or the heads, or [batch, length]; a key is marked from now on
        if it was and is so in `marks`. Their memory is given back, by sequence and KV group. The marked keys of calls
        to come are added; any input of kind tokens may be kept, any number of times.
        room: how many marked keys each sequence and KV group may get until the next `keep`, and more are an error
        (None: any number, for which the cache grows from time to time). A CUDA graph captures calls on a cache with a
        room alone; a later `keep` has other tensors, so that they are captured anew.
        Raises CallError, and changes nothing, for a mark that was not there before.
        """
        keep(self, name, marks, room)

    def merge(self, name: str, groups: Tensor, *, room: int | None = None) -> None:
        """Makes one key of each group of marked keys, for patterns with `key_bias`.

        name: of an input of kind tokens. groups: int [batch, x, length], x 1 or the KV heads, or [batch, length]; keys
        of one sequence and KV group with the same label become one, a label below 0 leaves a key as it is. The key and
        the value are the means over the tokens that the keys stand for, and the weight, as of `key_bias`, is the
        logarithm of the sum of exp(weight), so that merged keys may be merged again. The key stands where the last of
        its group stood: `causal`, windows and `alibi` see it there. The memory of the others is given back as by
        `keep`. room: see there.
        Raises CallError, and changes nothing, unless the terms see the keys of a group alike: for their marks alone,
        which are the same, and where windows of marked keys see all of them or none; and with weights that the heads
        of a KV group have in common. After it `truncate` takes no older tokens back.
        """
        merge(self, name, groups, room)

    def release(self, row: int | Sequence[int]) -> None:
        """Ends sequence `row`, or each of them: it has no token in any call until it is admitted again.

        Calls still have a place for it in q, k and v, whose output is 0: nothing is read there, in the cache neither.
        `lengths` must then have 0 for it; without them it has none. A CUDA graph that was captured before goes on with
        the sequences that are left, and nothing waits for the device. But where `keep` made lists without a room, the
        memory of the sequence's marked keys is given back, for which the lists are copied. Raises CallError, and
        changes nothing, for one that is not in use.
        """
        release(self, row)
        self._seen = None

    def admit(self, row: int | None = None, sequence: KVCache | None = None) -> int:
        """Has a sequence begin at position 0 in released `row` (None: the first one that is released); returns it.

        sequence: a cache of one sequence, of the same module and rollback, which the new one goes on from: it is
        copied. Raises CallError, and changes nothing, where no row is free or the sequence does not fit.
        """
        found = admit(self, row, sequence)
        self._seen = None
        return found

    def grow(self, max_len: int) -> None:
        """Has room for sequences of up to `max_len` tokens, no fewer than before; what it holds stays.

        Its tensors are others then where these are larger, so that CUDA graphs are captured anew. Raises CallError.
        """
        resize(self, integer("max_len", max_len, self.max_len, POSITION_LIMIT - 1))

    def make_room(self, new: int, counts: Tensor | None = None) -> None:
        """Before a call of `new` tokens, `counts` of them its own, on a cache that grows or one of kept keys."""
        if self.grows:
            grow_for(self, new, counts)
        if self.kept is not None:
            make_room(self, new)

    def truncate(self, length: int | Sequence[int]) -> None:
        """Takes tokens back: every sequence (or each, by its own number) keeps at most its first `length` tokens.

        Exact, and always possible for the latest `rollback` tokens, and one more, counted from the most that the
        sequence has had. Raises CallError, and changes nothing, if a key that the shorter sequence needs has been
        overwritten.
        """
        self._settle()
        wanted = [integer("length", n) for n in (length if isinstance(length, Sized) else [length] * self.batch_size)]
        if len(wanted) != self.batch_size or min(wanted) < 0:
            raise CallError(f"expected a length of at least 0, or {self.batch_size} of them, got {length}")
        kept = [min(have, want) for have, want in zip(self.lengths, wanted, strict=True)]
        newest = self.state[1].tolist()
        for row, (have, want, most) in enumerate(zip(self.lengths, kept, newest, strict=True)):
            lost = None if want == have else self._first_lost(row, want, most)
            if lost is not None:
                raise CallError(
                    f"expected a length whose keys are still there, got {want} for sequence {row}: key {lost} has been "
                    f"overwritten; new_cache(rollback=n) keeps what taking back n tokens needs"
                )
        self.state[0] = torch.tensor(kept)
        self.state[1] = torch.where(self.state[0] == 0, 0, self.state[1])
        self.lengths_tensor.copy_(self.state[0])
        if self.kept is not None:
            truncated(self.kept, self.state[0])

    @property
    def layouts(self) -> tuple[CacheLayout, CacheLayout]:
        """Of the sequences' keys: `layout`, and `whole`."""
        return self.layout, self.whole

    @property
    def plan_of_all(self) -> CachedLaunch:
        """Of the kernels over lists, for all keys of the sequences."""
        return registered(self.kernel, self.keys.device).kept.plan

    def holds(self, position: Tensor) -> Tensor:
        """bool: whether it is this cache that holds the keys of these positions."""
        return torch.ones_like(position, dtype=torch.bool)

    def of_all_ranks(self, own: Tensor) -> Tensor:
        """The sum of what those have who hold the sequences together; of bool whether one has it."""
        return own

    def _first_lost(self, row: int, want: int, most: int) -> int | None:
        """The first key that sequence `row` would need of `want` tokens and that has been overwritten. Raises CallError
        where keys may have been dropped that it would need."""
        layout, whole = self.layouts
        lost = layout.first_lost(want, most, self.max_len, self.rollback)
        if self.kept is None or not want:
            return lost
        record = self.kept.record[:, row].tolist()
        if want < record[DROPPED_AT]:
            raise CallError(
                f"expected a length of at least {record[DROPPED_AT]} for sequence {row}, at which `keep` dropped "
                f"marked keys that lay too far back or `merge` made some of them one, got {want}"
            )
        if lost is None and want < record[KEPT_AT]:
            return whole.first_lost(want, record[NEWEST], self.max_len, self.rollback)
        return lost

    def reset(self) -> None:
        """Empties the cache; every sequence is in use."""
        self.state.zero_()
        self.live.fill_(1)
        self._seen = None
        self.lengths_tensor.zero_()
        if self.kept is not None:
            truncated(self.kept, self.state[0])

    def fork(self) -> KVCache:
        """An independent copy."""
        return self._with({name: tensor.clone() for name, tensor in self.state_dict().items()})

    def reorder(self, index: Tensor | Sequence[int]) -> None:
        """Makes sequence n a copy of sequence index[n], as beam search does; the batch gets len(index) sequences."""
        rows = torch.as_tensor(index, dtype=torch.int64)
        if rows.dim() != 1 or not len(rows) or bool(((rows < 0) | (rows >= self.batch_size)).any()):
            raise CallError(f"expected indices of sequences from 0 to {self.batch_size - 1}, got {rows.tolist()}")
        there = rows.to(self.keys.device)
        self.keys, self.values = self.keys[there], self.values[there]
        self.marks = tuple(mark[there] for mark in self.marks)
        self.kept = None if self.kept is None else reordered(self.kept, rows)
        self.lengths_tensor, self.state = self.lengths_tensor[there], self.state[:, rows.cpu()]
        self.live = self.live[there]
        self.batch_size = len(rows)

    def refresh(self) -> None:
        """Reads the lengths back from the device, after replays of a CUDA graph.

        Raises CallError where they had more marked keys than `keep` made room for.
        """
        self.state[0] = self.lengths_tensor.to("cpu", torch.int64)
        self.state[1] = torch.maximum(self.state[0], self.state[1])
        if self.kept is not None:
            settle(self.kept)

    def _settle(self) -> None:
        """Reads the lengths back if the host was not told them."""
        if bool((self.state[0] > self.state[1]).any()):
            self.refresh()

    def state_dict(self) -> dict[str, Tensor]:
        """All that the cache holds, as contiguous tensors: keys, values, lengths, state, max_len, marks by number, and
        the lists of kept keys."""
        self._settle()
        marks = {f"marks {n}": mark for n, mark in enumerate(self.marks)}
        kept = {} if self.kept is None else {f"kept {name}": each for name, each in self.kept.tensors.items()}
        own = {"keys": self.keys, "values": self.values, "lengths": self.lengths_tensor, "state": self.state}
        return {**own, "max_len": torch.tensor([self.max_len]), **marks, **kept}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies what `state_dict` of a cache of the same pattern, max_len and rollback gave; a cache that grows has
        that max_len afterwards."""
        said = state.get("max_len", torch.empty(0))
        max_len = int(said) if said.shape == (1,) else self.max_len
        lists, resized = "kept lists" in state and self.kept is None, self.grows and max_len != self.max_len
        if lists or resized:
            like = self.fork()
            like.reset()
            if resized:
                resize(like, integer("max_len", max_len, 1, POSITION_LIMIT - 1))
            if lists:
                list_marked(like)
            like.load_state_dict(state)
            self.__dict__ |= like.__dict__
            return
        own = self.state_dict()
        if set(state) != set(own):
            raise CallError(f"expected the tensors {sorted(own)}, got {sorted(state)}")
        if max_len != self.max_len:
            raise CallError(f"expected the state of a cache with max_len {self.max_len}, got {max_len}")
        batch = state["lengths"].shape[0] if state["lengths"].dim() == 1 else -1
        for name, tensor in own.items():
            given = state[name]
            expected: tuple[int, ...] = (batch, *tensor.shape[1:])
            if name in ("state", "kept record"):
                expected = (len(tensor), batch)
            elif name == "max_len":
                expected = (1,)
            elif name in ("kept keys", "kept values"):
                expected = (len(state["kept keys"]), *tensor.shape[1:])
            elif name == "kept entries":
                expected = (len(tensor), len(state["kept keys"]))
            if tuple(given.shape) != expected or given.dtype != tensor.dtype:
                raise CallError(
                    f"expected {name} {tensor.dtype} {list(expected)}, got {given.dtype} {list(given.shape)}"
                )
        for name in ("lengths", "state"):
            if int(state[name].max()) > self.max_len or int(state[name].min()) < 0:
                raise CallError(f"expected {name} of at most {self.max_len}, got {state[name].tolist()}")
        now, most, released = state["state"]
        if bool((now > most).any()):
            raise CallError(f"expected sequences no longer than they have been, got {state['state'].tolist()}")
        if bool(((released != 0) & (state["lengths"].to(released.device) != 0)).any()):
            raise CallError(f"expected released sequences without tokens, got {state['state'].tolist()}")
        if self.kept is not None:
            check_within(state["kept lists"], len(state["kept keys"]))
        self.batch_size = batch
        device = self.keys.device
        self.keys, self.values, self.lengths_tensor = (
            state[name].to(device, copy=True).contiguous() for name in ("keys", "values", "lengths")
        )
        self.marks = tuple(state[f"marks {n}"].to(device, copy=True).contiguous() for n in range(len(self.marks)))
        self.state = state["state"].to("cpu", copy=True)
        self.live = (self.state[RELEASED] == 0).to(self.lengths_tensor)
        if self.kept is not None:
            kept = {name: state[f"kept {name}"].to(device, copy=True).contiguous() for name in names}
            self.kept = self.kept.having({**kept, "record": kept["record"].cpu()})
        self.refresh()

    def _with(self, tensors: Mapping[str, Tensor]) -> KVCache:
        copy = type(self).__new__(type(self))
        copy.__dict__ |= self.__dict__
        copy.keys, copy.values = tensors["keys"], tensors["values"]
        copy.lengths_tensor, copy.state, copy.live = tensors["lengths"], tensors["state"], self.live.clone()
        copy.marks = tuple(tensors[f"marks {n}"] for n in range(len(self.marks)))
        copy.kept = None if self.kept is None else self.kept.having({name: tensors[f"kept {name}"] for name in names})
        return copy

    def __repr__(self) -> str:
        return (
            f"KVCache(lengths={list(self.lengths)}, max_len={self.max_len}, {self.nbytes} bytes on {self.keys.device})"
        )

"""The launches of a call -> the same launches for the next call like it, on its own tensors: a record of each, frozen.

Invariant: two calls of one key differ in the addresses of their tensors alone, all of them multiples of 16, so that
Triton would take the same compiled kernels and the same numbers for both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.runtime import driver
from triton.runtime.errors import OutOfResources

from sparsec.backends.base import Lookup
from sparsec.backends.triton.launches import (
    VECTOR_BYTES,
    Again,
    Derived,
    Launched,
    Made,
    Recorded,
    as_tuple,
    hooked,
    lack_of_room,
)
from sparsec.runtime.devices import captured, is_current

_APART = 256
"""Bytes that tensors in one piece of memory begin at multiples of."""
_FEW_BYTES = 1 << 24
"""Of a tensor that the host makes in less time than a device fills it."""
_MOST = 256
"""Keys of one kernel whose records are kept."""

Key = tuple[Hashable, ...]
Fill = float | None
"""Of a new tensor; None: whatever is there."""


def given_to(
    alike: Sequence[Tensor], beside: tuple[Tensor | None, ...], inputs: tuple[Lookup, ...], *numbers: Hashable
) -> tuple[list[Tensor], Key]:
    """All tensors of a call, and what its launches follow from, but for addresses: their layouts, and the numbers.

    `alike`: those whose dtypes and devices follow from the first's.
    """
    given, first = list(alike), alike[0]
    key: list[Hashable] = [first.dtype, first.device, *numbers, *map(_shape, alike), *map(Tensor.stride, alike)]
    for lookup in inputs:
        beside += lookup.data, lookup.keys, lookup.ordered
        key.append(lookup.first)
    for each in beside:
        if each is None:
            key.append(None)
        else:
            given.append(each)
            key.append(_layout(each))
    return given, tuple(key)


_shape = attrgetter("shape")


def _layout(tensor: Tensor) -> Hashable:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


class Lasting(NamedTuple):
    """Tensors that many calls have in common, their addresses, and what stands for their layouts."""

    tensors: tuple[Tensor, ...]
    addresses: tuple[int, ...]
    layouts: Hashable
    """None where an address is no multiple of 16: such calls are not replayed."""


_NOTHING = Lasting((), (), ())


class _Derivation(NamedTuple):
    """Tensors that are made of those of these numbers, and get the next ones."""

    make: Callable[..., Made]
    numbers: tuple[int, ...]


_Described = tuple[int, int, type[Any], Mapping[str, object]]
"""An argument that is a descriptor: its place, its tensor's number, its type, and the rest of it."""


class _Step(NamedTuple):
    """A launch. `pick`: its arguments, of the constants of all launches and the tensors behind them."""

    again: Again
    pick: Callable[[Sequence[object]], Sequence[object]]
    descriptors: tuple[_Described, ...]


@dataclass(frozen=True, slots=True)
class Scratch:
    """Tensors in one piece of memory, which takes one step of the host: where each begins, in bytes."""

    make: Callable[[], Tensor]
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Scratch:
        sizes = [-(-tensor.nbytes // _APART) * _APART for tensor in tensors]
        *offsets, size = accumulate(sizes, initial=0)
        piece = torch.empty((), dtype=torch.uint8, device=tensors[0].device).expand(size)
        return cls(_maker(piece, None), tuple(offsets))


@dataclass(frozen=True, slots=True)
class Replay:
    """What one call does, on the tensors given to it, those held and those that it makes, numbered so."""

    device: torch.device
    steps: tuple[_Step | _Derivation, ...]
    constants: tuple[object, ...]
    """Arguments that no call changes, each once."""
    made: tuple[Callable[[], Tensor], ...]
    returned: int
    """How many of these, the first ones, the call returns."""
    scratch: Scratch | None
    """Of what is made and not returned, where it has addresses."""
    by_address: bool
    """Whether kernels are given addresses, or tensors, as the interpreter wants them."""

    @classmethod
    def of(
        cls,
        recorded: Recorded,
        given: Sequence[Tensor],
        made: Sequence[tuple[Tensor, Fill]],
        scratch: Sequence[Tensor],
        held: Lasting,
        kept: Sequence[Tensor],
    ) -> Replay:
        """`made`: with each what it starts full of. `scratch`: made too, and not returned. `kept`: tensors that are the
        same in each call, and live as long as the kernel, as do those that no call changes.

        Raises LookupError where a launch has a tensor that the next call would not have, or where one is given twice;
        also where more than the address of a scratch tensor is asked for.
        """
        tensors = *given, *held.tensors, *(tensor for tensor, _ in made), *scratch
        numbers = {id(tensor): n for n, tensor in enumerate(tensors)}
        if len(numbers) < len(tensors):
            raise LookupError
        known, lasting = len(tensors), set(map(id, kept))
        by_address = all(each.by_address for each in recorded if isinstance(each, Launched))
        made_of: list[tuple[Again, list[tuple[bool, int]], list[_Described]] | _Derivation] = []
        constants, places_of = list[object](), dict[int, int]()
        addressed = set(map(id, scratch)) if by_address else set[int]()
        for each in recorded:
            if isinstance(each, Derived):
                if addressed.intersection(map(id, each.tensors)):
                    raise LookupError
                made_of.append(_Derivation(each.make, tuple(numbers[id(tensor)] for tensor in each.tensors)))
                for n, tensor in enumerate(each.results, start=known):
                    numbers.setdefault(id(tensor), n)
                known += len(each.results)
                continue
            picked, descriptors = list[tuple[bool, int]](), list[_Described]()
            for place, argument in enumerate(each.arguments):
                constant = argument
                if (base := getattr(argument, "base", None)) is not None:  # Triton's descriptor of a tensor, or Gluon's
                    if id(base) in addressed:
                        raise LookupError
                    described = {name: value for name, value in vars(argument).items() if name != "base"}
                    descriptors.append((place, numbers[id(base)], type(argument), described))
                    constant = None
                elif isinstance(argument, Tensor) and place not in each.fixed and id(argument) not in lasting:
                    picked.append((True, numbers[id(argument)]))
                    continue
                elif isinstance(argument, Tensor) and by_address:
                    constant = argument.data_ptr()
                if (at := places_of.setdefault(id(constant), len(constants))) == len(constants):
                    constants.append(constant)  # and so its id is nobody else's
                picked.append((False, at))
            made_of.append((each.again, picked, descriptors))
        steps: list[_Step | _Derivation] = []
        for made_by in made_of:
            if isinstance(made_by, _Derivation):
                steps.append(made_by)
                continue
            again, picked, descriptors = made_by
            places = [n + of_tensor * len(constants) for of_tensor, n in picked]
            steps.append(_Step(again, _picker(places), tuple(descriptors)))
        makers = [_maker(*each) for each in made]
        if not by_address:
            makers += [_maker(each, None) for each in scratch]
        room = Scratch.of(scratch) if by_address and scratch else None
        return cls(given[0].device, tuple(steps), tuple(constants), tuple(makers), len(made), room, by_address)

    def run(self, given: Sequence[Tensor], held: Lasting) -> list[Tensor] | None:
        """Launches; returns what it has made, or None, having done nothing, where an address is no such multiple."""
        addresses = []
        for tensor in given:
            address = tensor.data_ptr()
            if address % VECTOR_BYTES:
                return None
            addresses.append(address)
        made = [make() for make in self.made]
        tensors = [*given, *held.tensors, *made]
        if self.by_address:
            values = [*self.constants, *addresses, *held.addresses, *[tensor.data_ptr() for tensor in made]]
            if self.scratch is not None:
                tensors += [room := self.scratch.make()] * len(self.scratch.offsets)
                address = room.data_ptr()
                values += [address + offset for offset in self.scratch.offsets]
        else:
            values = [*self.constants, *tensors]
        try:
            if is_current(self.device):
                self._launch(tensors, values)
            else:
                with torch.cuda.device(self.device):
                    self._launch(tensors, values)
        except OutOfResources as error:
            raise lack_of_room(self.device, error) from error
        return made[: self.returned]

    def _launch(self, tensors: list[Tensor], values: list[Any]) -> None:
        stream, told = (_stream(), hooked()) if self.by_address else (None, False)
        for step in self.steps:
            if isinstance(step, _Derivation):
                found = as_tuple(step.make(*[tensors[n] for n in step.numbers]))
                tensors += found
                values += [tensor.data_ptr() for tensor in found] if self.by_address else found
                continue
            arguments = step.pick(values)
            if step.descriptors:
                arguments = list(arguments)
                for place, n, of, described in step.descriptors:
                    arguments[place] = _descriptor(of, described, tensors[n])
            step.again(stream, told, arguments)


def _picker(places: Sequence[int]) -> Callable[[Sequence[object]], Sequence[object]]:
    """What is in those places, in order."""
    return itemgetter(*places) if len(places) > 1 else lambda values: [values[place] for place in places]


def _maker(tensor: Tensor, fill: Fill) -> Callable[[], Tensor]:
    """Makes contiguous tensors of its shape and type, on its device: like one without memory, of which nothing is read,
    for of a shape, a type and a device torch takes twice as long."""
    kind: dict[str, Any] = {"dtype": tensor.dtype, "device": tensor.device}
    arguments: dict[str, Any] = {}
    if tensor.nbytes <= _FEW_BYTES:
        like = torch.empty(tensor.shape, **kind)
        memory = like.untyped_storage()
        if memory.resizable():  # that of some allocators is not
            memory.resize_(0)
    else:  # which would have memory for a moment
        like, arguments["memory_format"] = torch.empty((), **kind).expand(tensor.shape), torch.contiguous_format
    if fill is None or fill == 0.0:
        return partial(torch.empty_like if fill is None else torch.zeros_like, like, **arguments)
    return partial(torch.full_like, like, fill, **arguments)


def _stream() -> int:
    """Of the current device."""
    active = driver.active
    return active.get_current_stream(active.get_current_device())  # type: ignore[no-any-return]  # untyped


def _descriptor(of: type[Any], described: Mapping[str, object], base: Tensor) -> object:
    """One whose numbers have been checked."""
    found = object.__new__(of)
    found.__dict__ = {**described, "base": base}
    return found


@dataclass(frozen=True, slots=True)
class Replays:
    """Those of one kernel by key. A call of a new key is run, the second one recorded, the others replayed: of lengths
    that come once nothing is made."""

    _found: dict[Key, Replay | None] = field(default_factory=dict, repr=False)
    _layouts: dict[Key, object] = field(default_factory=dict, repr=False)

    def run(self, key: Key, given: Sequence[Tensor], held: Lasting = _NOTHING) -> list[Tensor] | None:
        """What the call makes, or None where it is not replayed."""
        found = self._found.get(key)
        return None if found is None else found.run(given, held)

    def recorder(self, key: Key, device: torch.device) -> Recorded | None:
        """Where to put what is done by a call that was not replayed, if they are wanted. Those that a CUDA graph
        captures are not: what is made there does not last."""
        if captured(device):
            return None
        if key in self._found:
            return [] if self._found[key] is None else None
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[key] = None
        return None

    def keep(
        self,
        key: Key,
        recorded: Recorded,
        given: Sequence[Tensor],
        made: Sequence[tuple[Tensor, Fill]],
        scratch: Sequence[Tensor] = (),
        held: Lasting = _NOTHING,
        kept: Sequence[Tensor] = (),
    ) -> None:
        """As of `Replay.of`; a call that cannot be replayed is left out."""
        with suppress(LookupError):
            self._found[key] = Replay.of(recorded, given, made, scratch, held, kept)

    def held(self, tensors: tuple[Tensor, ...]) -> Lasting:
        """What calls that have these in common give beside them."""
        addresses = tuple(tensor.data_ptr() for tensor in tensors)
        if any(address % VECTOR_BYTES for address in addresses):
            return Lasting(tensors, addresses, None)
        if len(self._layouts) >= _MOST:
            self._layouts.clear()
        return Lasting(tensors, addresses, self._layouts.setdefault(tuple(map(_layout, tensors)), object()))

"""The launches of a call -> the same launches for the next call like it, on its own tensors: a record of each, frozen.

Invariant: two calls of one key differ in the addresses of their tensors alone, all of them multiples of 16, so that
Triton would take the same compiled kernels and the same numbers for both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
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
from sparsec.runtime.devices import captured, current

_MOST = 256
"""Keys of one kernel whose records are kept."""

Key = tuple[Hashable, ...]
Fill = float | None
"""Of a new tensor; None: whatever is there."""


def key_of(given: Sequence[Tensor], *numbers: Hashable) -> Key:
    """What the launches of a call follow from, but for addresses: its tensors' layouts, and the numbers."""
    return (*numbers, *[(t.shape, t.stride(), t.dtype, t.device) for t in given])


def given_to(
    tensors: tuple[Tensor, ...], beside: tuple[Tensor | None, ...], inputs: tuple[Lookup, ...]
) -> tuple[tuple[Tensor, ...], tuple[int | bool, ...]]:
    """All tensors of a call, and what tells which of those `beside` and of the lookups are there."""
    for lookup in inputs:
        beside += lookup.data, lookup.keys, lookup.ordered
    told = *[each is None for each in beside], *[lookup.first for lookup in inputs]
    return (*tensors, *[each for each in beside if each is not None]), told


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


class _Step(NamedTuple):
    """A launch: `places` says which argument is which tensor, `descriptors` also what describes it."""

    again: Again
    arguments: list[object]
    places: tuple[tuple[int, int], ...]
    descriptors: tuple[tuple[int, int, type[Any], Mapping[str, object]], ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """What one call does, on the tensors given to it, those held and those that it makes, numbered so."""

    device: torch.device
    steps: tuple[_Step | _Derivation, ...]
    made: tuple[Callable[[], Tensor], ...]
    by_address: bool
    """Whether kernels are given addresses, or tensors, as the interpreter wants them."""

    @classmethod
    def of(
        cls,
        recorded: Recorded,
        given: Sequence[Tensor],
        made: Sequence[tuple[Tensor, Fill]],
        held: Lasting,
        kept: Sequence[Tensor],
    ) -> Replay:
        """`made`: with each what it starts full of. `kept`: tensors that are the same in each call, and live as long as
        the kernel, as do those that no call changes.

        Raises LookupError where a launch has a tensor that the next call would not have, or where one is given twice.
        """
        tensors = *given, *held.tensors, *(tensor for tensor, _ in made)
        numbers = {id(tensor): n for n, tensor in enumerate(tensors)}
        if len(numbers) < len(tensors):
            raise LookupError
        known, lasting = len(tensors), set(map(id, kept))
        by_address = all(each.by_address for each in recorded if isinstance(each, Launched))
        steps: list[_Step | _Derivation] = []
        for each in recorded:
            if isinstance(each, Derived):
                steps.append(_Derivation(each.make, tuple(numbers[id(tensor)] for tensor in each.tensors)))
                for n, tensor in enumerate(each.results, start=known):
                    numbers.setdefault(id(tensor), n)
                known += len(each.results)
                continue
            arguments, places, descriptors = list(each.arguments), [], []
            for place, argument in enumerate(each.arguments):
                if (base := getattr(argument, "base", None)) is not None:  # Triton's descriptor of a tensor, or Gluon's
                    described = {name: value for name, value in vars(argument).items() if name != "base"}
                    descriptors.append((place, numbers[id(base)], type(argument), described))
                elif not isinstance(argument, Tensor):
                    pass
                elif place not in each.fixed and id(argument) not in lasting:
                    places.append((place, numbers[id(argument)]))
                elif by_address:
                    arguments[place] = argument.data_ptr()
            for place in (*(place for place, _ in places), *(place for place, *_ in descriptors)):
                arguments[place] = None
            steps.append(_Step(each.again, arguments, tuple(places), tuple(descriptors)))
        return cls(given[0].device, tuple(steps), tuple(_maker(*each) for each in made), by_address)

    def run(self, given: Sequence[Tensor], held: Lasting) -> list[Tensor] | None:
        """Launches; returns what it has made, or None, having done nothing, where an address is no such multiple."""
        addresses = [tensor.data_ptr() for tensor in given]
        for address in addresses:
            if address % VECTOR_BYTES:
                return None
        made = [make() for make in self.made]
        tensors = [*given, *held.tensors, *made]
        values: list[Any] = tensors
        if self.by_address:
            values = [*addresses, *held.addresses, *[tensor.data_ptr() for tensor in made]]
        try:
            with current(self.device):
                stream, told = (_stream(), hooked()) if self.by_address else (None, False)
                for step in self.steps:
                    if isinstance(step, _Derivation):
                        found = as_tuple(step.make(*[tensors[n] for n in step.numbers]))
                        tensors += found
                        if self.by_address:
                            values += [tensor.data_ptr() for tensor in found]
                        continue
                    again, fixed, places, descriptors = step
                    arguments = fixed.copy()
                    for place, n in places:
                        arguments[place] = values[n]
                    for place, n, of, described in descriptors:
                        arguments[place] = _descriptor(of, described, tensors[n])
                    again(stream, told, arguments)
        except OutOfResources as error:
            raise lack_of_room(self.device, error) from error
        return made


def _maker(tensor: Tensor, fill: Fill) -> Callable[[], Tensor]:
    """Makes contiguous tensors of its shape and type, on its device: like one of a single element, of which nothing is
    read, for of a shape, a type and a device torch takes twice as long."""
    like = torch.empty((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)
    dense = torch.contiguous_format
    if fill is None or fill == 0.0:
        return partial(torch.empty_like if fill is None else torch.zeros_like, like, memory_format=dense)
    return partial(torch.full_like, like, fill, memory_format=dense)


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
        held: Lasting = _NOTHING,
        kept: Sequence[Tensor] = (),
    ) -> None:
        """As of `Replay.of`; a call that cannot be replayed is left out."""
        with suppress(LookupError):
            self._found[key] = Replay.of(recorded, given, made, held, kept)

    def held(self, tensors: tuple[Tensor, ...]) -> Lasting:
        """What calls that have these in common give beside them."""
        addresses = tuple(tensor.data_ptr() for tensor in tensors)
        if any(address % VECTOR_BYTES for address in addresses):
            return Lasting(tensors, addresses, None)
        if len(self._layouts) >= _MOST:
            self._layouts.clear()
        return Lasting(tensors, addresses, self._layouts.setdefault(key_of(tensors), object()))

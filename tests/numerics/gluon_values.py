"""Numbers and tensors as Gluon's kernels have them, on a CPU: 32 bits, division that truncates, loads that are checked.

Those without a sign have 64 bits here, whose upper half nobody asks for. Invariant: a load or store outside its tensor
is an IndexError unless its mask forbids it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def tensor_of(value: Any) -> Any:
    return value.data if isinstance(value, Value) else value


@dataclass(eq=False)
class Value:
    """A scalar or a tensor in registers."""

    data: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.data.dtype

    def to(self, dtype: torch.dtype, bitcast: bool = False) -> Value:
        if dtype is torch.uint32:
            return Value(self.data.to(torch.int64) & 0xFFFFFFFF)
        return Value(self.data.to(dtype))

    def __getitem__(self, at: Any) -> Value:
        return Value(self.data[at])

    def __bool__(self) -> bool:
        return bool(self.data)

    def __index__(self) -> int:
        return int(self.data)

    def __int__(self) -> int:
        return int(self.data)

    def _with(self, other: Any, function: Callable[[Any, Any], Tensor]) -> Any:
        if isinstance(other, Pointer | tuple):
            return NotImplemented
        return Value(function(self.data, tensor_of(other)))

    def __add__(self, other: Any) -> Any:
        return self._with(other, torch.add)

    def __sub__(self, other: Any) -> Any:
        return self._with(other, torch.sub)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, torch.mul)

    def __truediv__(self, other: Any) -> Any:
        return self._with(other, torch.true_divide)

    def __radd__(self, other: Any) -> Any:
        return self + other

    def __rsub__(self, other: Any) -> Any:
        return Value(other - self.data)

    def __rmul__(self, other: Any) -> Any:
        return self * other

    def __rtruediv__(self, other: Any) -> Any:
        return Value(other / self.data)

    def __neg__(self) -> Value:
        return Value(-self.data)

    def __floordiv__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: torch.div(a, b, rounding_mode="trunc"))

    def __mod__(self, other: Any) -> Any:
        return self._with(other, torch.fmod)

    def __lshift__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a << b)

    def __rlshift__(self, other: Any) -> Any:
        return Value(other << self.data)

    def __invert__(self) -> Value:
        return Value(~self.data)

    def __rshift__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a >> b)

    def __and__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a & b)

    def __or__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a | b)

    def __xor__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a ^ b)

    def __lt__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a < b)

    def __le__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a <= b)

    def __gt__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a > b)

    def __ge__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a >= b)

    def __eq__(self, other: object) -> Any:
        return self._with(other, lambda a, b: a == b)

    def __ne__(self, other: object) -> Any:
        return self._with(other, lambda a, b: a != b)


@dataclass(eq=False)
class Pointer:
    """Elements of a tensor, by their offsets from its first."""

    tensor: Tensor
    offset: Any = 0

    @property
    def dtype(self) -> SimpleNamespace:
        return SimpleNamespace(element_ty=self.tensor.dtype)

    def __add__(self, offset: Any) -> Pointer:
        return Pointer(self.tensor, self.offset + tensor_of(offset))

    def __sub__(self, offset: Any) -> Pointer:
        return Pointer(self.tensor, self.offset - tensor_of(offset))

    def _places(self, mask: Any) -> tuple[Tensor, Tensor]:
        size = 1 + sum((n - 1) * stride for n, stride in zip(self.tensor.shape, self.tensor.stride(), strict=True))
        places = torch.as_tensor(self.offset)
        allowed = torch.ones_like(places, dtype=torch.bool) if mask is None else tensor_of(mask).expand_as(places)
        if bool((allowed & ((places < 0) | (places >= size))).any()) or self.tensor.numel() == 0:
            raise IndexError("an address outside the tensor")
        return torch.where(allowed, places, 0), allowed

    def load(self, mask: Any = None, other: Any = None) -> Value:
        places, allowed = self._places(mask)
        found = self.tensor.as_strided((int(places.max()) + 1,), (1,))[places]
        return Value(found if mask is None else torch.where(allowed, found, other))

    def store(self, value: Any, mask: Any = None) -> None:
        places, allowed = self._places(mask)
        self.tensor.view(-1)[places[allowed]] = value.data.expand_as(places)[allowed].to(self.tensor.dtype)


def _where(condition: Any, a: Any, b: Any) -> Value:
    return Value(torch.where(torch.as_tensor(tensor_of(condition)), tensor_of(a), tensor_of(b)))


def _either(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Any], Value]:
    def applied(a: Any, b: Any) -> Value:
        data = [tensor_of(each) for each in (a, b)]
        dtype = next((each.dtype for each in data if isinstance(each, Tensor)), torch.int32)
        return Value(function(*(torch.as_tensor(each, dtype=dtype) for each in data)))

    return applied


def _layout(*_: object) -> None:
    return None


def language(program_id: Callable[[], Value]) -> SimpleNamespace:
    """What stands for `triton.experimental.gluon.language`, but for shared memory."""
    layouts = dict.fromkeys(
        ("BlockedLayout", "NVMMADistributedLayout", "DotOperandLayout", "SliceLayout", "SwizzledSharedLayout"), _layout
    )
    return SimpleNamespace(
        **layouts,
        constexpr=object,
        float32=torch.float32,
        int32=torch.int32,
        int64=torch.int64,
        uint32=torch.uint32,
        program_id=lambda axis: program_id(),
        static_range=range,
        arange=lambda first, past, layout: Value(torch.arange(first, past, dtype=torch.int32)),
        full=lambda shape, value, dtype, layout: Value(torch.full(shape, int(value), dtype=dtype)),
        zeros=lambda shape, dtype, layout: Value(torch.zeros(shape, dtype=dtype)),
        convert_layout=lambda value, layout: value,
        maximum=_either(torch.maximum),
        minimum=_either(torch.minimum),
        where=_where,
        max=lambda value, axis=None: Value(value.data.amax() if axis is None else value.data.amax(axis)),
        sum=lambda value, axis: Value(value.data.sum(axis, dtype=value.dtype)),
        exp2=lambda value: Value(torch.exp2(value.data)),
        log2=lambda value: Value(torch.log2(value.data)),
        abs=lambda value: Value(value.data.abs()),
        load=lambda pointer, mask=None, other=None: pointer.load(mask, other),
        store=lambda pointer, value, mask=None: pointer.store(value, mask),
    )

"""A machine with GPUs that is not there: CPU tensors that say they lie on `cuda:0` or `cuda:1`, and what CUDA would do.

Torch's operations are computed on the CPU; kernels are recorded, not run. Invariant: what a real card punishes with
wrong numbers or a crash raises Fault here: a launch on another device than its tensors', a read of what another stream
may not have written yet, an allocation of a graph read outside it, and, in a capture, a wait or a copy from the host.
Outside of captures `copies` and `waits` tell of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from sparsec.backends.triton import assembler

aten = torch.ops.aten
_OF_SHAPES = {aten.empty_like, aten.zeros_like, aten.full_like}
"""What reads no element of what it is given."""
_WAITING = (aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero, aten.masked_select, aten.unique_dim)


class Fault(AssertionError):
    """What a card would punish."""


class OnCard(Tensor):
    """`inside`: the numbers. `stream`: whose order its last writing is in, None once that is surely done; `graph`: the
    capture that it was allocated in; `whole`: of a view, what it is part of. Torch takes it for a CPU's, whoever asks
    it in Python for a GPU's."""

    inside: Tensor
    place: torch.device
    stream: int | None
    graph: int | None
    whole: OnCard | None
    machine: Machine
    __torch_function__: ClassVar[Any] = torch._C._disabled_torch_function_impl

    device = property(lambda self: self.place)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @property
    def root(self) -> OnCard:
        return self if self.whole is None else self.whole

    def data_ptr(self) -> int:
        return self.inside.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inside.untyped_storage()

    def tolist(self) -> Any:
        self.machine.waited(f"tolist of {self}")
        return self.inside.tolist()

    def cpu(self) -> Tensor:
        self.machine.waited(f"cpu of {self}")
        return self.inside.clone()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise Fault(f"{func} outside of the machine")

    def __repr__(self) -> str:
        return f"OnCard({list(self.shape)}, {self.device})"


@dataclass(frozen=True)
class Launch:
    """`given`: in a capture without tensors, which a graph does not keep either; `key`: what Triton compiles for."""

    name: str
    device: int
    stream: int
    programs: int
    given: Mapping[str, Any]
    options: Mapping[str, Any]
    key: str


@dataclass
class Machine(TorchDispatchMode):
    """`capabilities`: of its GPUs."""

    capabilities: tuple[tuple[int, int], ...] = ((9, 0), (9, 0))
    launches: list[Launch] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    """From the host, with a wait, unless they say `pinned`."""
    waits: list[str] = field(default_factory=list)
    refuse: BaseException | None = None
    """What Triton raises at a launch."""

    def __post_init__(self) -> None:
        super().__init__()
        self.device, self.streams, self.capture = 0, [0] * len(self.capabilities), None
        self.pinned: set[int] = set()
        self._borrowed: list[tuple[str, weakref.ref[OnCard]]] = []

    @contextmanager
    def running(self) -> Iterator[Machine]:
        changed = {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "device_count": lambda: len(self.capabilities),
            "current_device": lambda: self.device,
            "device": self._on_device,
            "current_stream": lambda device: SimpleNamespace(cuda_stream=self.streams[device.index]),
            "is_current_stream_capturing": lambda: self.capture is not None and self.capture[0] == self.device,
            "get_device_properties": self._properties,
        }
        with ExitStack() as stack:
            for name, value in changed.items():
                stack.enter_context(patch.object(torch.cuda, name, value))
            stack.enter_context(patch.object(assembler, "_too_old", lambda: False))  # which would ask ptxas
            stack.enter_context(patch.object(JITFunction, "run", lambda kernel, **given: self._launched(kernel, given)))
            stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
            torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) then shows its copy
            stack.enter_context(self)
            yield self

    def put(self, tensor: Tensor, index: int = 0) -> OnCard:
        """The tensor as a user's, there before anything else."""
        return self._card(tensor, torch.device("cuda", index))

    @contextmanager
    def on_stream(self, stream: int, index: int = 0) -> Iterator[None]:
        """Work for that device goes to that stream, which no other waits for."""
        before, self.streams[index] = self.streams[index], stream
        yield
        self.streams[index] = before

    @contextmanager
    def captured(self, graph: int = 1, index: int = 0) -> Iterator[None]:
        """As `torch.cuda.graph` does: all that was asked for is done before."""
        self.capture = index, graph
        try:
            with self.on_stream(100 + graph, index), self._on_device(index):
                yield
        finally:
            self.capture = None

    def lost(self) -> list[str]:
        """Arguments of captured launches that were not allocated in the capture, and of which nothing is left."""
        return [name for name, tensor in self._borrowed if tensor() is None]

    def forget(self) -> None:
        for found in (self.launches, self.copies, self.waits):
            found.clear()

    @contextmanager
    def _on_device(self, device: torch.device | int) -> Iterator[None]:
        before, self.device = self.device, device if isinstance(device, int) else device.index
        yield
        self.device = before

    def _properties(self, device: torch.device) -> SimpleNamespace:
        major, minor = self.capabilities[device.index]
        return SimpleNamespace(name=f"card {major}.{minor}", major=major, minor=minor, multi_processor_count=132)

    def _launched(self, kernel: Any, given: dict[str, Any]) -> None:
        if self.refuse is not None:
            raise self.refuse
        (programs,), _ = given.pop("grid"), given.pop("warmup")
        options = {name: given.pop(name) for name in list(given) if name not in kernel.arg_names}
        for name, value in given.items():
            tensor = getattr(value, "base", value)
            if isinstance(tensor, Tensor):
                if not isinstance(tensor, OnCard) or tensor.device.index != self.device:
                    raise Fault(f"{kernel.__name__} on cuda:{self.device}: {name} is on {tensor.device}")
                self._reads(tensor, f"{kernel.__name__}: {name}")
                if self._graph(self.device) is not None and tensor.graph is None:
                    self._borrowed.append((f"{kernel.__name__}: {name}", weakref.ref(tensor.root)))
        key = self._key(kernel, given)
        if self._graph(self.device) is not None:
            given = {name: value for name, value in given.items() if not hasattr(value, "data_ptr")}
        stream = self.streams[self.device]
        self.launches.append(Launch(kernel.__name__, self.device, stream, programs, dict(given), options, key))

    def _key(self, kernel: Any, given: Mapping[str, Any]) -> str:
        major, minor = self.capabilities[self.device]
        backend = make_backend(GPUTarget("cuda", 10 * major + minor, 32))
        bind = create_function_from_signature(kernel.signature, kernel.params, backend)
        return f"{kernel.__name__}: {bind(**given)[1]}"

    def _graph(self, index: int) -> int | None:
        return None if self.capture is None or self.capture[0] != index else self.capture[1]

    def _reads(self, tensor: OnCard, what: str) -> None:
        index = tensor.device.index
        if tensor.graph is not None and tensor.graph != self._graph(index):
            raise Fault(f"{what} was allocated in a capture and is read outside it")
        if tensor.stream not in (None, self.streams[index]) and self._graph(index) is None:
            raise Fault(f"{what} was made on stream {tensor.stream} and is read on {self.streams[index]}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.namespace == "sparsec":
            with self:
                return func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs)
        with self:
            found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        there = [t for t in tensors if isinstance(t, OnCard)]
        devices = {t.device for t in there}
        asked = kwargs.get("device")
        if asked is not None and asked.type == "cuda":
            devices.add(torch.device("cuda", self.device if asked.index is None else asked.index))
            kwargs["device"] = torch.device("cpu")
        if not devices:
            return self._on_host(func, args, kwargs)
        if len(devices) > 1:
            raise Fault(f"{func}: tensors on {devices}")
        device = devices.pop()
        for tensor in there if func.overloadpacket not in _OF_SHAPES else ():
            self._reads(tensor, str(func))
        host = [t for t in tensors if not isinstance(t, OnCard) and t.dim()]
        done = bool(host) and self._copied(func, host[0], kwargs, device)
        if func.overloadpacket in _WAITING or (asked is not None and asked.type == "cpu"):
            self.waited(f"{func} of {device}")
        inside = tree_map_only(OnCard, lambda t: t.inside, (args, kwargs))
        found = func(*inside[0], **inside[1])
        if asked is not None and asked.type == "cpu":
            return found
        if func is aten.copy_.default and not isinstance(args[0], OnCard):
            self.waited(f"copy of {device}")
            return found
        if func._schema.name.endswith("_") and isinstance(args[0], OnCard):
            if func is not aten.detach_.default and self._graph(device.index) is None:
                args[0].stream = self.streams[device.index]
            return args[0]
        return tree_map_only(Tensor, lambda t: self._made(t, there, device, done), found)

    def _made(self, inside: Tensor, given: list[OnCard], device: torch.device, done: bool) -> OnCard:
        """What an operation gave: a view of what was given, or new."""
        storage = inside.untyped_storage().data_ptr()
        for other in given:
            if storage and other.inside.untyped_storage().data_ptr() == storage:
                return self._card(inside, device, other.stream, other.graph, other.root)
        return self._card(inside, device, None if done else self.streams[device.index], self._graph(device.index))

    def _card(
        self,
        inside: Tensor,
        device: torch.device,
        stream: int | None = None,
        graph: int | None = None,
        whole: OnCard | None = None,
    ) -> OnCard:
        made: OnCard = Tensor._make_wrapper_subclass(
            OnCard, inside.shape, strides=inside.stride(), dtype=inside.dtype, device="cpu"
        )
        made.inside, made.place, made.machine = inside, device, self
        made.stream, made.graph, made.whole = stream, graph, whole
        return made

    def _on_host(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func.overloadpacket is aten.is_pinned:
            return args[0].data_ptr() in self.pinned
        if func.overloadpacket is aten._pin_memory:
            made = args[0].clone()
            self.pinned.add(made.data_ptr())
            return made
        return func(*args, **kwargs)

    def _copied(self, func: Any, host: Tensor, kwargs: Mapping[str, Any], device: torch.device) -> bool:
        """A copy from the host; whether it is done when it returns."""
        if func.overloadpacket not in (aten._to_copy, aten.copy_):
            raise Fault(f"{func}: a tensor of the CPU beside one of {device}")
        pinned = host.data_ptr() in self.pinned and bool(kwargs.get("non_blocking"))
        self.copies.append(f"{'pinned ' if pinned else ''}{list(host.shape)} to {device}")
        if self.capture is not None:
            raise Fault(f"{func}: a copy from the host in a capture")
        if not pinned:
            self.waits.append(f"{func} to {device}")
        return not pinned

    def waited(self, what: str) -> None:
        if self.capture is not None:
            raise Fault(f"{what}: a wait in a capture")
        self.waits.append(what)

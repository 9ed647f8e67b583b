"""A model of the part of Gluon that printed kernels use, on a CPU: partitions, barriers, copies and products in flight.

Each partition of a program is a thread, and one runs at a time, until it waits; who goes on, and which copy lands next,
a seed decides. Clocks keep what happened before what, so that a race is found in whatever order things ran. Invariant:
a Hazard is raised for what a card may do wrong: a read of a buffer whose copy was not waited for, a copy into one that
may still be read, a result before its product is waited for, barriers whose counts or bytes do not come out, a wait
that nothing ends, and copies, products or bytes left at the end.
"""

from __future__ import annotations

import builtins
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from gluon_memory import Barrier, Barriers, Buffer, Cell, Cells, Copy, Descriptor, Hazard, Known, Product, Read, Region
from gluon_values import Pointer, Value, language
from torch import Tensor


class Program:
    """One program of a launch."""

    def __init__(self, number: int, programs: int, seed: int) -> None:
        self.number, self.programs, self.chance = number, programs, random.Random(seed)
        self.copies: list[Copy] = []
        self.barriers: list[Barrier] = []
        self.known = [Known()]
        self.flight: list[list[tuple[Product, list[Read]]]] = [[]]
        self.waiting: dict[int, Callable[[], bool]] = {}
        self.turns: list[threading.Semaphore] = []
        self.live: set[int] = set()
        self.error: BaseException | None = None
        self.here = threading.local()

    @property
    def me(self) -> int:
        return getattr(self.here, "partition", 0)

    def now(self) -> Known:
        return self.known[self.me]

    def tick(self) -> int:
        times = self.now().times
        times[self.me] = times.get(self.me, 0) + 1
        return times[self.me]

    def land(self) -> None:
        copy = self.copies.pop(self.chance.randrange(len(self.copies)))
        copy.land()

    def until(self, ready: Callable[[], bool]) -> None:
        """Gives the turn away until `ready`."""
        while self.copies and self.chance.random() < 0.5:
            self.land()
        if len(self.live) < 2:
            while not ready():
                if not self.copies:
                    raise Hazard("a wait that nothing ends")
                self.land()
            return
        if ready() and self.chance.random() < 0.7:
            return
        self.waiting[self.me] = ready
        self.hand_over()
        self.turns[self.me].acquire()
        if self.error is not None:
            raise self.error
        del self.waiting[self.me]

    def hand_over(self) -> None:
        while True:
            able = [n for n in sorted(self.live) if n not in self.waiting or self.waiting[n]()]
            if able or not self.live:
                break
            if not self.copies:
                self.fail(Hazard(f"a wait that nothing ends: partitions {sorted(self.live)}"))
                return
            self.land()
        if able:
            self.turns[self.chance.choice(able)].release()

    def fail(self, error: BaseException) -> None:
        self.error = self.error or error
        for turn in self.turns:
            turn.release()

    def specialize(self, parts: list[tuple[Any, tuple[Any, ...]]], warps: list[int], registers: list[int]) -> None:
        assert len(warps) == len(registers) == len(parts) - 1, "the first partition has the program's own warps"
        if any(not barrier.fenced for barrier in self.barriers):
            raise Hazard("barriers that no fence has shown to the copies")
        self.known = [Known(dict(self.known[0].times), set(self.known[0].copies)) for _ in parts]
        self.flight, self.live = [[] for _ in parts], set(range(len(parts)))
        self.turns = [threading.Semaphore(0) for _ in parts]

        def body(partition: int) -> None:
            self.here.partition = partition
            self.turns[partition].acquire()
            try:
                if self.error is None:
                    function, arguments = parts[partition]
                    function(*arguments)
                    if self.flight[partition]:
                        raise Hazard("products in flight at the end")
                    self.live.discard(partition)
                    self.hand_over()
            except BaseException as error:  # it is raised where the program was started
                self.fail(error)

        threads = [threading.Thread(target=body, args=(n,), daemon=True) for n in range(len(parts))]
        for thread in threads:
            thread.start()
        self.hand_over()
        for thread in threads:
            thread.join()
        if self.error is not None:
            raise self.error
        while self.copies:
            self.land()
        if any(barrier.left != barrier.count or barrier.bytes for barrier in self.barriers):
            raise Hazard("a phase of a barrier begun and not ended")

    # What kernels call.

    def allocate(self, dtype: Any, shape: list[int], layout: object) -> Buffer | Barriers | Cells:
        if dtype == torch.int32:
            return Cells([Cell() for _ in range(shape[0])], self)
        if dtype == torch.int64:
            made = [Barrier() for _ in range(shape[0])]
            self.barriers += made
            return Barriers(made)
        data = torch.full(shape, torch.nan, dtype=dtype)
        return Buffer(data, [[Region() for _ in range(shape[3])] for _ in range(shape[0])], 3)

    def init(self, barrier: Barriers, count: int) -> None:
        barrier.one.count = barrier.one.left = count

    def fence(self) -> None:
        for barrier in self.barriers:
            barrier.fenced = True

    def expect(self, barrier: Barriers, size: int) -> None:
        barrier.one.bytes += size
        self.arrive(barrier)

    def arrive(self, barrier: Barriers, *, count: int = 1) -> None:
        one = barrier.one
        self.tick()
        one.arriving.learn(self.now())
        one.left -= count
        one.settle()

    def wait(self, barrier: Barriers, phase: Any) -> None:
        one, parity = barrier.one, int(phase)
        assert parity in (0, 1), "a phase is known by its parity"
        self.until(lambda: one.phase & 1 != parity)
        self.now().learn(one.known)

    def copy(self, source: Descriptor, at: list[Any], barrier: Barriers, into: Buffer) -> None:
        known, one = self.now(), barrier.one
        assert list(into.shape) == source.box, "a copy fills its buffer"
        for region in into.regions:
            if region.copy is not None and region.copy not in known.copies:
                raise Hazard("a copy into a buffer that another one is on its way to")
            if region.copy is not None and not region.reads:
                raise Hazard("a copy into a buffer that nobody has read since the last one")
            for read in region.reads:
                if read.done_at is None or read.done_at > known.times.get(read.partition, 0):
                    raise Hazard(f"a copy into a buffer that partition {read.partition} may still read")
        tile = source.tile(at)
        into.data.fill_(torch.nan)

        def land() -> None:
            into.data.copy_(tile)
            made.landed = True
            one.arriving.copies.add(made)
            one.bytes -= tile.numel() * tile.element_size()
            one.settle()

        made = Copy(into, land)
        for region in into.regions:
            region.copy, region.reads = made, []
        self.copies.append(made)

    def multiply(self, a: Any, b: Buffer, acc: Any, *, use_acc: bool = True, is_async: bool = False) -> Product:
        assert is_async, "products are waited for by name"
        if any(isinstance(each, Product) for each in (a, acc)):
            raise Hazard("a product of what is not waited for")
        buffers = [each for each in (a, b) if isinstance(each, Buffer)]
        reads = []
        for region in (region for buffer in buffers for region in buffer.regions):
            if region.copy is None or region.copy not in self.now().copies:
                raise Hazard("a read of a buffer whose copy was not waited for")
            reads.append(Read(self.me))
            region.reads.append(reads[-1])

        def finish() -> Value:
            found = a.data.float() @ b.data.float()
            return Value(found + acc.data if use_acc else found)

        made = Product(finish)
        self.flight[self.me].append((made, reads))
        return made

    def wait_products(self, outstanding: int, *, deps: tuple[Any, ...]) -> Any:
        flight = self.flight[self.me]
        while len(flight) > outstanding:
            product, reads = flight.pop(0)
            product.value = product.finish()
            done = self.tick()
            for read in reads:
                read.done_at = done
        found = []
        for each in deps:
            if isinstance(each, Product) and each.value is None:
                raise Hazard("a result before its product is waited for")
            found.append(each.value if isinstance(each, Product) else each)
        return found[0] if len(found) == 1 else tuple(found)


@dataclass(eq=False)
class Kernel:
    """A function of a module, as a launch takes it: `kernel[(programs,)](**given)`."""

    function: Callable[..., None]
    current: dict[str, Program]
    seed: int

    @property
    def arg_names(self) -> list[str]:
        code = self.function.__code__
        return list(code.co_varnames[: code.co_argcount])

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def run(*, num_warps: int, num_stages: int, enable_fp_fusion: bool, **given: Any) -> None:
            named = {name: _given(given[name]) for name in self.arg_names}
            for number in range(grid[0]):
                self.current["program"] = Program(number, grid[0], self.seed * 7919 + number)
                self.function(**named)

        return run


def _given(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Pointer(value)
    if hasattr(value, "block_shape"):
        return Descriptor(value.base.as_strided(value.shape, value.strides), value.block_shape)
    if isinstance(value, int | float):
        return Value(torch.tensor(value, dtype=torch.int32 if isinstance(value, int) else torch.float32))
    return value


def load(source: str, seed: int = 0) -> SimpleNamespace:
    """The kernels of a printed module, on this model instead of Triton."""
    current: dict[str, Program] = {}

    def now(name: str) -> Callable[..., Any]:
        return lambda *given, **named: getattr(current["program"], name)(*given, **named)

    gl = language(lambda: Value(torch.tensor(current["program"].number, dtype=torch.int32)))
    gl.allocate_shared_memory, gl.warp_specialize = now("allocate"), now("specialize")
    barriers = SimpleNamespace(
        **{name: now(name) for name in ("init", "expect", "arrive", "wait")}, MBarrierLayout=lambda: None
    )

    def jit(function: Any = None, **_: object) -> Any:
        return jit if function is None else Kernel(function, current, seed)

    modules: Mapping[str, Any] = {
        "triton.experimental": SimpleNamespace(gluon=SimpleNamespace(jit=jit)),
        "triton.experimental.gluon": SimpleNamespace(language=gl),
        "triton.experimental.gluon.language.nvidia.hopper": SimpleNamespace(
            fence_async_shared=now("fence"),
            mbarrier=barriers,
            tma=SimpleNamespace(async_load=now("copy")),
            warpgroup_mma=now("multiply"),
            warpgroup_mma_wait=now("wait_products"),
        ),
    }

    def imported(name: str, *given: Any) -> ModuleType:
        return modules[name] if name in modules else builtins.__import__(name, *given)

    scope: dict[str, Any] = {"__builtins__": {**vars(builtins), "__import__": imported}}
    exec(compile(source, "kernels.py", "exec"), scope)  # the text is this compiler's own
    return SimpleNamespace(**{name: each for name, each in scope.items() if isinstance(each, Kernel)})

"""Run by test_host.py: what calls from a record launch and what Python runs for them, as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

import sparsec
from sparsec.bench.stub import StubKernel, stub_launches

PATTERN = "pattern p { heads 4 kv 2  causal  learned_sink  attend window(256) | sink(4) }"
launches: list[tuple[object, ...]] = []
known: set[int] = set()


def noted(kernel: StubKernel, *arguments: Any) -> None:
    x, y, z, stream, function, metadata, _, _, _, *own = arguments
    launches.append((kernel.name, x, y, z, stream, function, metadata, *map(plain, own)))


def plain(argument: Any) -> object:
    """Alike for a tensor and its address; what a call makes for itself is one address."""
    if isinstance(argument, Tensor):
        return place(argument.data_ptr())
    if isinstance(argument, TensorDescriptor):
        given = {**vars(argument), "base": place(argument.base.data_ptr())}
        return sorted((name, str(value)) for name, value in given.items())
    if isinstance(argument, int) and argument > 1 << 32:
        return place(argument)
    return argument if isinstance(argument, int | float | None) else str(argument)


def place(address: int) -> object:
    return address if address in known else "made"


def differences(call: Callable[[], object], before: Callable[[], object]) -> tuple[int, int]:
    """Launches of a call, and arguments in which those of a record differ from those of the call that made it."""
    found = []
    for _ in range(4):
        before()
        launches.clear()
        call()
        found.append(list(launches))
    recorded, replayed = found[1], found[3]
    assert [each[0] for each in recorded] == [each[0] for each in replayed]
    unlike = sum(a != b for one, other in zip(recorded, replayed, strict=True) for a, b in zip(one, other, strict=True))
    return len(replayed), unlike


def functions(call: Callable[[], object], before: Callable[[], object]) -> int:
    """Python functions that a warm call runs."""
    for _ in range(4):
        before()
        call()
    before()
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename != __file__

    sys.setprofile(seen)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def nothing() -> None:
    pass


with stub_launches():
    StubKernel.run = noted  # type: ignore[method-assign]  # it launches nothing
    attn = sparsec.compile(PATTERN, head_dim=64, dtype=torch.bfloat16, target="triton", device="cpu")
    q, k, v = (torch.zeros(1, heads, 20, 64, dtype=torch.bfloat16) for heads in (4, 2, 2))
    leaves = tuple(t.clone().requires_grad_() for t in (q, k, v))
    gradient = torch.ones_like(q)
    cache = attn.new_cache(1, 200)
    assert attn.sink is not None
    held = attn.sink, cache.keys, cache.values, cache.lengths_tensor, cache.places
    one, some = tuple(t[:, :, :1].contiguous() for t in (q, k, v)), (q, k, v)
    known |= {t.data_ptr() for t in (*some, *one, *leaves, gradient, *held)}
    calls: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "forward": (torch.no_grad()(lambda: attn(q, k, v)), nothing),
        "forward + backward": (lambda: torch.autograd.grad(attn(*leaves), leaves, gradient), nothing),
        "decode": (torch.no_grad()(lambda: attn(*one, cache=cache)), cache.reset),
        "append": (torch.no_grad()(lambda: (attn(*one, cache=cache), attn(*some, cache=cache))), cache.reset),
    }
    print(
        json.dumps({name: [*differences(*each), functions(*each)] for name, each in calls.items()}),
    )

"""Names of mistakes -> kernels whose text holds them, so that the harness can be seen to find them.

Invariant: a mistake whose place the text no longer has is an error, never a kernel without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

BUILDERS = {"cpu": ("kernel", "backward", "cached"), "triton": ("kernel", "cached")}


@dataclass(frozen=True, slots=True)
class Plant:
    """`target` and `kernel` that has the mistake, the `side` on which it shows, and the text before and after."""

    target: str
    kernel: str
    side: str
    right: str
    wrong: str


_ROW = "const typename Format::type* from = m.data + (first + n) * m.row"
_LSE = "lse[(i - w.i0) * lse_row"
_TASKS = "if (tasks.count == 0) return 0;"
PLANTS = {
    "a row is read one element too far": Plant("cpu", "forward", "above", _ROW, f"{_ROW} + 1"),
    "a row is read one element too early": Plant("cpu", "forward", "below", _ROW, f"{_ROW} - 1"),
    "the LSE is written one row too far": Plant("cpu", "forward", "above", _LSE, f"{_LSE} + 1"),
    "the LSE is written one row too early": Plant("cpu", "forward", "below", _LSE, f"{_LSE} - 1"),
    "the LSE of a chunk is written one row too far": Plant("cpu", "chunk", "above", _LSE, f"{_LSE} + 1"),
    "the LSE of a token is written one row too far": Plant("cpu", "rows", "above", "*lse = total", "lse[1] = total"),
    "a stored key lies one element too far": Plant("cpu", "store", "above", "memcpy(to, data", "memcpy(to + 1, data"),
    "dk is written one element too early": Plant("cpu", "backward", "below", "dk[d] = narrow", "dk[d - 1] = narrow"),
    "keys are loaded without their mask": Plant(
        "triton", "forward", "above", "(row >= begin - first) & (row < end - first)", "row >= begin - first"
    ),
    "queries are loaded one element too early": Plant(
        "triton", "forward", "below", "load_rows(rows_of(q, ", "load_rows(rows_of(q - 1, "
    ),
    "new keys are loaded without their mask": Plant(
        "triton", "chunk", "above", "(key < nk) & ((place >= 0) | (key >= length))", "key >= 0"
    ),
    "the sums of a token's parts are merged one row too far": Plant(
        "triton", "rows", "above", "tl.store(lse + at, tl.where(", "tl.store(lse + at + 1, tl.where("
    ),
    "cached keys are stored without a mask": Plant("triton", "store", "above", "mask=mask), mask=mask)", "mask=mask))"),
    "gradients are stored without a mask": Plant(
        "triton", "backward", "above", "element_ty), mask=mask)", "element_ty))"
    ),
    "a signed sum overflows": Plant(
        "cpu", "forward", "heap", _TASKS, "if (int(tasks.count) + INT32_MAX == 0) return 0;"
    ),
    "scratch is written past an array's end": Plant("cpu", "forward", "heap", "n < PANEL && w; ++n", "n <= PANEL; ++n"),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Within it, kernels are built with the mistake of that name; the empty name stands for none."""
    with ExitStack() as stack:
        if name:
            plant = PLANTS[name]
            function = "compile_shared" if plant.target == "cpu" else "load_module"
            modules = [import_module(f"sparsec.backends.{plant.target}.{module}") for module in BUILDERS[plant.target]]
            for module in modules:  # all imported by now, for they take the function from each other
                stack.enter_context(_changed(module, function, plant))
        yield


@contextmanager
def _changed(module: ModuleType, function: str, plant: Plant) -> Iterator[None]:
    build: Callable[..., Any] = getattr(module, function)

    def build_wrong(source: str, **options: Any) -> Any:
        if plant.right not in source:
            raise LookupError(f"the kernel's text has no {plant.right!r}")
        return build(source.replace(plant.right, plant.wrong), **options)

    with patch.object(module, function, build_wrong):
        yield

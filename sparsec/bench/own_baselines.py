"""`MODULE:CALLABLE` and the package flash-attn -> calls that are timed beside a pattern.

Invariant: only what the command line names is imported, once, and what it raises is said in one line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsec.bench.baseline_names import FLASH_ATTN
from sparsec.bench.baselines import BaselineAbsent
from sparsec.diagnostics.model import CallError, in_one_line


def own_callable(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """What `MODULE:CALLABLE` names, CALLABLE with dots where it is inside something; MODULE may be a file of the
    working directory. Raises CallError."""
    module, _, path = name.partition(":")
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except SystemExit as error:
        raise CallError(
            f"expected a baseline MODULE:CALLABLE that can be imported, got a module {module!r} that ends the program"
        ) from error
    except Exception as error:  # a module raises anything when it is imported
        raise CallError(
            f"expected a baseline MODULE:CALLABLE that can be imported, got {in_one_line(error)}"
        ) from error
    finally:
        sys.path[:] = before
    if not callable(found):
        raise CallError(f"expected a callable (q, k, v) -> out in {name!r}, got {type(found).__name__}")
    called: Callable[[Tensor, Tensor, Tensor], Tensor] = found
    return called


def of_own(name: str, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    """The call of `own_callable` on q [B, H, Nq, D], k and v [B, G, Nk, D], whose last query sees the last key; it
    gives [B, H, Nq, D] of their dtype. Raises BaselineAbsent where it raises or gives something else."""
    attend = own_callable(name)
    try:
        out: object = attend(q, k, v)
    except Exception as error:  # whatever somebody's kernel raises
        raise BaselineAbsent(in_one_line(error)) from error
    wanted = (*q.shape[:3], v.shape[3])
    if not isinstance(out, Tensor) or tuple(out.shape) != wanted or out.dtype != q.dtype:
        given = f"{out.dtype} {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise BaselineAbsent(f"it has to give {q.dtype} {list(wanted)}, and gave {given}")
    return lambda: attend(q, k, v)


def check_own(names: tuple[str, ...]) -> None:
    """Raises CallError for names of callables that are not there, and for flash-attn where it is not installed."""
    for name in names:
        if ":" in name:
            own_callable(name)
    if FLASH_ATTN in names and find_spec("flash_attn") is None:
        raise CallError(
            f"expected the package flash-attn for the baseline {FLASH_ATTN}, got an environment without: install it "
            "where there is a GPU that it takes, or name other baselines"
        )


def of_flash_attn(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float | None) -> Callable[[], Tensor]:
    """Dense attention of the package flash-attn, on views of the same tensors. Raises BaselineAbsent."""
    if q.device.type != "cuda" or q.dtype not in (torch.float16, torch.bfloat16):
        raise BaselineAbsent(f"it is for float16 and bfloat16 on a GPU, and these are {q.dtype} on {q.device.type}")
    try:
        attend: Any = import_module("flash_attn").flash_attn_func
        rows = [t.transpose(1, 2) for t in (q, k, v)]
        attend(*rows, causal=causal, softmax_scale=scale)
    except Exception as error:  # an extension that does not load, or a GPU that it does not take
        raise BaselineAbsent(in_one_line(error)) from error

    def call() -> Tensor:
        out: Tensor = attend(*rows, causal=causal, softmax_scale=scale).transpose(1, 2)
        return out

    return call

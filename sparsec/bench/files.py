"""Files of tensors -> the inputs of a call, on its device, checked.

Invariant: a file is read as data and runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from sparsec.diagnostics.model import CallError
from sparsec.reference.parts import InputTensors
from sparsec.runtime.inputs.checks import flat_inputs
from sparsec.sema.inputs import settled
from sparsec.sema.model import ResolvedPattern
from sparsec.sema.shapes import Sizes


def check_given(
    pattern: ResolvedPattern, given: Mapping[str, InputTensors], sizes: Sizes, where: torch.device | str
) -> None:
    """Names, shapes, dtypes and numbers. Raises CallError."""
    declared = settled(pattern.inputs, pattern.block)
    flat_inputs(declared, given, sizes, torch.empty(0, device=where), block=pattern.block)


def loaded(path: Path) -> object:
    """The tensors of a file. Raises CallError."""
    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.load(path, allow_pickle=False))
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file raises what its reader happens to meet
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CallError(f"expected {path} to hold tensors alone, got: {reason:.120}") from error


def moved(value: object, path: Path, where: torch.device | str) -> InputTensors:
    """The tensor or the pair that a file holds, on the device. Raises CallError."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value,)
    if any(isinstance(each, torch.Tensor) and each.is_meta for each in pair):
        raise CallError(f"expected {path} to hold tensors with their numbers, got one on meta, which has none")
    found = tuple(each.to(where) for each in pair if isinstance(each, torch.Tensor))
    if len(found) != len(pair) or not 1 <= len(pair) <= 2:
        raise CallError(f"expected {path} to hold a tensor or a pair of tensors, got {type(value).__name__}")
    return found[0] if len(found) == 1 else (found[0], found[1])

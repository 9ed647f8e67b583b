"""Run-time inputs of calls over a cache, as the call gives them, and as the reference takes them for one sequence.

Invariant: what speaks of keys is held for each query head and every key of a sequence, by the input's name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsec.sema.inputs import OF_KEYS, settled
from sparsec.sema.model import InputKind, ResolvedPattern
from sparsec.testing.inputs import InputTensors, drawn_inputs

Marks = dict[str, Tensor]
"""[heads, keys]: what inputs say of the keys of a sequence."""


def new_inputs(pattern: ResolvedPattern, new: int, stops: list[int], seed: int) -> dict[str, InputTensors]:
    """For a call with `new` tokens, after which sequence b has stops[b]."""
    longest, call = max(*stops, new), {"n_q": new, "new_keys": new, "seed": seed}
    given = drawn_inputs(pattern, batch=len(stops), n_k=longest, q_offset=longest - new, **call)
    for decl in pattern.inputs:
        value = given[decl.name]
        if decl.kind is InputKind.TREE:
            assert isinstance(value, Tensor)
            given[decl.name] = value[:, : min(stops)]
        elif decl.kind is InputKind.LABELS:
            queries, keys = value
            given[decl.name] = (_narrow(queries), _narrow(keys))
    return given


def _narrow(labels: Tensor) -> Tensor:
    """int32: a cache takes no others."""
    return labels.clamp(-(2**31), 2**31 - 1).to(torch.int32)


def marks_of(pattern: ResolvedPattern, given: dict[str, InputTensors], b: int) -> Marks:
    """What a call says of the keys that it brings for sequence b."""
    found = {}
    for decl in pattern.inputs:
        if decl.kind in OF_KEYS:
            value = given[decl.name]
            own = _of_sequence(value[1] if isinstance(value, tuple) else value, b)[0]
            by_head = own[None] if own.dim() == 1 else own
            found[decl.name] = by_head.repeat_interleave(pattern.heads // by_head.shape[0], 0)
    return found


def of_sequence(
    pattern: ResolvedPattern, given: dict[str, InputTensors], b: int, marks: Marks
) -> dict[str, InputTensors]:
    """The inputs of a call for sequence b alone, whose keys have the marks."""
    found: dict[str, InputTensors] = {}
    for decl in settled(pattern.inputs, pattern.block):
        value = given[decl.name]
        pair = tuple(_of_sequence(each, b) for each in (value if isinstance(value, tuple) else (value,)))
        if decl.kind in OF_KEYS:
            pair = (*pair[:-1], marks[decl.name][None])
        elif decl.kind is InputKind.BLOCKS:  # tile rows of a sequence may be one more than those of the longest
            pair = tuple(torch.cat((each, torch.zeros_like(each[:, :, :1])), 2) for each in pair)
        found[decl.name] = pair if len(pair) == 2 else pair[0]
    return found


def _of_sequence(tensor: Tensor, b: int) -> Tensor:
    return tensor[b : b + 1] if tensor.shape[0] > 1 else tensor

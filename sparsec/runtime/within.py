"""A module -> modules of its pattern within one of its documents, within a range of keys, and without that range, or
of any other pattern.

Invariant: a variant runs on the backend, the device and in the dtype of the module that it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sparsec.pipeline import Lowered
from sparsec.sema.among import intersected
from sparsec.sema.inputs import input_names
from sparsec.sema.model import (
    Columns,
    Complement,
    Documents,
    InputDecl,
    InputKind,
    ResolvedPattern,
    RunTimeLength,
)
from sparsec.sema.modifiers import LearnedSink

if TYPE_CHECKING:
    from sparsec.runtime.module import SparseAttention


def without_documents(attn: SparseAttention) -> SparseAttention:
    """The pattern as it is within one document that begins with key 0."""
    return module_like(attn, replace(attn.lowered.pattern, documents=Documents.NONE))


def from_a_key(attn: SparseAttention) -> SparseAttention:
    """The pattern within one document, which begins with the key that the call gives as its last input: int [B]."""
    pattern = attn.lowered.pattern
    (name,) = _new_names(pattern, ("first_key",))
    begun = Columns(RunTimeLength(len(pattern.inputs)), None, blocks=False)
    within = intersected(pattern, begun, InputDecl(name, InputKind.LENGTH, line=0, column=0))
    return module_like(attn, replace(within, documents=Documents.NONE))


def by_keys(attn: SparseAttention) -> tuple[SparseAttention, SparseAttention]:
    """The pattern within a range of keys, and the rest of it, which has no learned sink. The call gives the range's
    first key and the one past its last as the last two inputs: int [B]."""
    pattern = attn.lowered.pattern
    names = _new_names(pattern, ("first_key", "past_key"))
    ends = [RunTimeLength(len(pattern.inputs) + n) for n in range(2)]
    inside = Columns(ends[0], ends[1], blocks=False)
    declared = [InputDecl(name, InputKind.LENGTH, line=0, column=0) for name in names]
    near, far = (intersected(pattern, also, *declared) for also in (inside, Complement(inside)))
    return module_like(attn, near), module_like(attn, without_sink(far))


def without_sink(pattern: ResolvedPattern) -> ResolvedPattern:
    """The pattern without a learned sink."""
    others = tuple(each for each in pattern.score.modifiers if not isinstance(each, LearnedSink))
    return replace(pattern, score=replace(pattern.score, modifiers=others))


def _new_names(pattern: ResolvedPattern, names: Sequence[str]) -> list[str]:
    """Names for inputs that the pattern does not have."""
    taken = input_names(pattern.inputs)
    longest = max(map(len, taken), default=0)
    return [name if name not in taken else name.ljust(longest + 1, "_") for name in names]


def module_like(attn: SparseAttention, pattern: ResolvedPattern) -> SparseAttention:
    """The module of another pattern with the same heads."""
    from sparsec.runtime.compile import module_for

    request = replace(attn._described(), lowered=Lowered(pattern), file_layout=None)
    made = module_for(request, attn.target, attn._device)
    made.scale = attn.scale
    return made
